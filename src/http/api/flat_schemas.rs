//! Schemas as client generators read them: objects, or one of several. utoipa writes `allOf` for
//! flattened fields and tagged enums, which many generators do not merge.

use std::collections::BTreeMap;

use utoipa::openapi::{
    RefOr,
    schema::{Object, ObjectBuilder, OneOfBuilder, Schema},
};

type Schemas = BTreeMap<String, RefOr<Schema>>;

const PREFIX: &str = "#/components/schemas/";

/// Merges the parts of every `allOf`. Parts that are one of several are merged with each of them.
pub(crate) fn flatten(schemas: &mut Schemas) {
    let all = schemas.clone();
    for schema in schemas.values_mut() {
        if let RefOr::T(parts @ (Schema::AllOf(_) | Schema::OneOf(_))) = schema
            && has_parts(parts)
        {
            *schema = one_of(objects(schema, &all), description(schema));
        }
    }
}

/// Names that nothing refers to in `document`, the whole contract as JSON.
pub(crate) fn unused(schemas: &Schemas, document: &str) -> Vec<String> {
    let is_used = |name: &&String| document.contains(&format!("\"{PREFIX}{name}\""));
    schemas
        .keys()
        .filter(|name| !is_used(name))
        .cloned()
        .collect()
}

/// True for an `allOf`, and for a choice of such.
fn has_parts(schema: &Schema) -> bool {
    let is_all_of = |item: &RefOr<Schema>| matches!(item, RefOr::T(Schema::AllOf(_)));
    match schema {
        Schema::AllOf(_) => true,
        Schema::OneOf(choices) => choices.items.iter().any(is_all_of),
        _ => false,
    }
}

fn description(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::T(Schema::AllOf(parts)) => parts.description.clone(),
        RefOr::T(Schema::OneOf(choices)) => choices.description.clone(),
        _ => None,
    }
}

/// The objects that a schema allows.
fn objects(schema: &RefOr<Schema>, all: &Schemas) -> Vec<Object> {
    let of_each = |items: &[RefOr<Schema>]| -> Vec<Vec<Object>> {
        items.iter().map(|item| objects(item, all)).collect()
    };
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.strip_prefix(PREFIX);
            let target = name.and_then(|name| all.get(name));
            objects(target.expect("a schema of that name: this is a bug"), all)
        }
        RefOr::T(Schema::Object(object)) => vec![object.clone()],
        RefOr::T(Schema::OneOf(choices)) => of_each(&choices.items).concat(),
        RefOr::T(Schema::AllOf(parts)) => {
            let start = vec![ObjectBuilder::new().build()];
            of_each(&parts.items).iter().fold(start, |merged, part| {
                let with = |one: &Object| -> Vec<Object> {
                    part.iter().map(|other| join(one.clone(), other)).collect()
                };
                merged.iter().flat_map(with).collect()
            })
        }
        RefOr::T(_) => Vec::new(),
    }
}

/// An object with the properties of both. The first description counts.
fn join(mut one: Object, other: &Object) -> Object {
    one.required.extend(other.required.iter().cloned());
    let properties = other.properties.iter();
    one.properties
        .extend(properties.map(|(name, schema)| (name.clone(), schema.clone())));
    one.description = one.description.or_else(|| other.description.clone());
    one.additional_properties = one
        .additional_properties
        .or_else(|| other.additional_properties.clone());
    one
}

fn one_of(mut objects: Vec<Object>, description: Option<String>) -> RefOr<Schema> {
    if objects.len() == 1 {
        let mut only = objects.remove(0);
        only.description = description.or(only.description);
        return RefOr::T(Schema::Object(only));
    }
    let mut choices = OneOfBuilder::new().description(description);
    for object in objects {
        choices = choices.item(RefOr::T(Schema::Object(object)));
    }
    RefOr::T(Schema::OneOf(choices.build()))
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::{Ref, schema::AllOfBuilder};

    use super::*;

    #[test]
    fn parts_become_one_object_or_one_of_several() {
        let object = |name: &str| {
            let text = ObjectBuilder::new();
            ObjectBuilder::new().property(name, text).required(name)
        };
        let reference = |name: &str| Ref::new(format!("{PREFIX}{name}"));
        let tagged = AllOfBuilder::new()
            .item(reference("A"))
            .item(object("kind"));
        let choice = OneOfBuilder::new().item(tagged).item(object("b"));
        let whole = AllOfBuilder::new().item(reference("B")).item(object("c"));
        let mut schemas: Schemas = [
            ("A".to_owned(), object("a").into()),
            ("B".to_owned(), choice.into()),
            ("C".to_owned(), whole.description(Some("x")).into()),
        ]
        .into();
        flatten(&mut schemas);
        let found = serde_json::to_value(&schemas["C"]).unwrap();
        let required = |at: usize| found["oneOf"][at]["required"].clone();
        assert_eq!(required(0), serde_json::json!(["a", "kind", "c"]));
        assert_eq!(required(1), serde_json::json!(["b", "c"]));
        assert_eq!(found["description"], "x");
    }
}
