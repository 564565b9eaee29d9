//! Schemas as client generators read them: objects, or one of several. utoipa writes `allOf` for
//! flattened fields and tagged enums, which many generators do not merge.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema::Schema};

const PREFIX: &str = "#/components/schemas/";

/// Merges the parts of every `allOf`. Parts that are one of several are merged with each of them.
///
/// # Panics
/// A schema is not JSON, or refers to one that does not exist.
pub(crate) fn flatten(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let all = serde_json::to_value(&*schemas).expect("schemas are JSON: this is a bug");
    for (name, schema) in schemas {
        let flat = flat(all[name].clone(), &all);
        *schema = serde_json::from_value(flat).expect("a JSON Schema: this is a bug");
    }
}

/// Names that nothing refers to in `document`, the whole contract as JSON.
pub(crate) fn unused(schemas: &BTreeMap<String, RefOr<Schema>>, document: &str) -> Vec<String> {
    let is_used = |name: &&String| document.contains(&format!("\"{PREFIX}{name}\""));
    schemas
        .keys()
        .filter(|name| !is_used(name))
        .cloned()
        .collect()
}

fn flat(schema: Value, all: &Value) -> Value {
    match schema {
        Value::Array(items) => items.into_iter().map(|item| flat(item, all)).collect(),
        Value::Object(mut fields) => {
            let Some(Value::Array(parts)) = fields.remove("allOf") else {
                let fields = fields.into_iter();
                return fields
                    .map(|(name, field)| (name, flat(field, all)))
                    .collect();
            };
            let mut merged = merge(&parts, all);
            let mut schema = match merged.len() {
                1 => Value::Object(merged.remove(0)),
                _ => json!({"oneOf": merged}),
            };
            if let Some(description) = fields.remove("description") {
                schema["description"] = description;
            }
            flat(schema, all)
        }
        other => other,
    }
}

/// The objects that these parts make: several if a part is one of several.
fn merge(parts: &[Value], all: &Value) -> Vec<Map<String, Value>> {
    let mut merged = vec![Map::new()];
    for part in parts {
        let choices = choices(resolve(part, all), all);
        let both = |one: &Map<String, Value>| {
            let one = one.clone();
            choices.iter().map(move |choice| join(one.clone(), choice))
        };
        merged = merged.iter().flat_map(both).collect();
    }
    merged
}

fn choices(part: &Value, all: &Value) -> Vec<Map<String, Value>> {
    if let Some(choices) = part["oneOf"].as_array() {
        let each = choices.iter();
        return each
            .flat_map(|choice| merge(std::slice::from_ref(choice), all))
            .collect();
    }
    match part["allOf"].as_array() {
        Some(parts) => merge(parts, all),
        None => vec![part.as_object().cloned().unwrap_or_default()],
    }
}

fn resolve<'a>(part: &'a Value, all: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => {
            let name = reference.strip_prefix(PREFIX).unwrap_or(reference);
            let target = all.get(name);
            resolve(target.expect("a schema of that name: this is a bug"), all)
        }
        None => part,
    }
}

/// An object with the properties of both. The first description counts.
fn join(mut one: Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    one.insert("type".to_owned(), "object".into());
    for (name, value) in other {
        match (one.get_mut(name), value) {
            (Some(Value::Array(required)), Value::Array(more)) => required.extend(more.clone()),
            (Some(Value::Object(properties)), Value::Object(more)) => {
                properties.extend(more.clone());
            }
            (Some(_), _) => {}
            (None, value) => {
                one.insert(name.clone(), value.clone());
            }
        }
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_object_or_one_of_several() {
        let object =
            |name: &str| json!({"type": "object", "required": [name], "properties": {name: {}}});
        let all = json!({
            "A": object("a"),
            "B": {"oneOf": [
                {"allOf": [{"$ref": "#/components/schemas/A"}, object("kind")]},
                object("b"),
            ]},
        });
        let reference = json!({"$ref": "#/components/schemas/B"});
        let schema = json!({"description": "x", "allOf": [reference, object("c")]});
        let found = flat(schema, &all);
        let required = |at: usize| found["oneOf"][at]["required"].clone();
        assert_eq!(required(0), json!(["a", "kind", "c"]));
        assert_eq!(required(1), json!(["b", "c"]));
        assert_eq!(found["description"], "x");
        assert_eq!(
            flat(json!({"items": {"allOf": [object("a")]}}), &all)["items"],
            object("a")
        );
    }
}
