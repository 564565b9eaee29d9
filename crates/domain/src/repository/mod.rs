//! Repositories, as the Hugging Face hub, its cache and folders have them: what their files say of
//! a model, and which hold a data set. A sentence about a repository that gives none goes behind
//! its name.

mod datasets;
mod description;
mod shards;
mod timm;
mod transformers;

use serde_json::{Map, Value};

pub use self::{
    datasets::{CONVERTED, DatasetFile, Part, converted_files, dataset_files, no_files},
    description::Description,
    shards::{WeightsFiles, shards, weights_files},
};
use crate::limits::PHRASE_CHARACTERS;

/// The description of a model.
pub const CONFIG: &str = "config.json";
/// How transformers prepares images, beside `CONFIG`.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// The model card, whose head names the license.
pub const CARD: &str = "README.md";
/// Files that the weights of one model may be in at most.
pub const MAX_FILES: usize = 1_000;

/// Reads `CONFIG` and `PREPROCESSOR`.
///
/// # Errors
/// They describe no model that can be used.
pub fn describe(config: &Value, preprocessor: Option<&Value>) -> Result<Description, String> {
    let Some(config) = config.as_object() else {
        return Err(format!("has a `{CONFIG}` that is not an object"));
    };
    let preprocessor = match preprocessor.map(Value::as_object) {
        Some(None) => return Err(format!("has a `{PREPROCESSOR}` that is not an object")),
        given => given.flatten(),
    };
    if runs_code(config) || preprocessor.is_some_and(runs_code) {
        return Err(
            "brings code of its own (`auto_map`), which is never run; give a repository without"
                .to_owned(),
        );
    }
    if config.contains_key("architecture") {
        return timm::describe(config);
    }
    match config.get("model_type").and_then(Value::as_str) {
        Some(model_type) => transformers::describe(model_type, config, preprocessor),
        None => Err(format!(
            "has a `{CONFIG}` without `architecture` and `model_type`; give the repository of an image model of timm or transformers"
        )),
    }
}

/// The head of a card, as the hub tells it in JSON; null where there is none that can be read.
pub fn card_head(card: &str) -> Value {
    let head = card
        .strip_prefix("---")
        .and_then(|rest| rest.split_once("\n---"));
    let read = head.and_then(|(head, _)| serde_yaml_ng::from_str(head).ok());
    read.unwrap_or(Value::Null)
}

/// The license that the head of a model card names.
pub fn license(card: &str) -> Option<String> {
    match card_value(card, "license") {
        Some(other) if other == "other" => card_value(card, "license_name").or(Some(other)),
        license => license,
    }
}

/// A text that the head of a model card has under this name.
pub fn card_value(card: &str, name: &str) -> Option<String> {
    let (head, _) = card.strip_prefix("---")?.split_once("\n---")?;
    let mut lines = head.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let value = value.trim().trim_matches(['"', '\'']);
    let is_short = (1..=PHRASE_CHARACTERS).contains(&value.chars().count());
    is_short.then(|| value.to_owned())
}

fn runs_code(config: &Map<String, Value>) -> bool {
    config.get("auto_map").is_some_and(|map| !map.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configs_say_whose_they_are() {
        let of = |config: Value| describe(&config, None).map(|found| found.architecture);
        let wrapped = json!({"model_type": "timm_wrapper", "architecture": "resnet18"});
        assert_eq!(of(wrapped).unwrap(), "resnet18");
        assert_eq!(of(json!({"model_type": "resnet"})).unwrap(), "resnet50");
        for (config, words) in [
            (
                json!({"model_type": "vit", "auto_map": {"AutoModel": "x.X"}}),
                "code of its own",
            ),
            (json!({"model_type": 7}), "without `architecture`"),
            (json!({"architecture": 7}), "is no name"),
            (json!([1]), "not an object"),
        ] {
            let message = of(config).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        let config = json!({"model_type": "vit", "auto_map": null});
        assert!(describe(&config, None).is_ok());
        let processor = json!({"auto_map": {"AutoImageProcessor": "x.X"}});
        assert!(describe(&config, Some(&processor)).is_err());
        assert!(describe(&config, Some(&json!(1))).is_err());
    }

    #[test]
    fn cards_name_licenses() {
        let of = |card: &str| license(card);
        assert_eq!(
            of("---\nlicense: mit\ntags:\n- x\n---\n# A").as_deref(),
            Some("mit")
        );
        let other = "---\nlicense: other\nlicense_name: \"dino\"\n---\n";
        assert_eq!(of(other).as_deref(), Some("dino"));
        assert_eq!(of("---\nlicense: other\n---\n").as_deref(), Some("other"));
        assert_eq!(of("# A\nlicense: mit\n"), None);
        assert_eq!(of(""), None);
        let long = |length: usize| format!("---\nlicense: {}\n---", "x".repeat(length));
        assert!(of(&long(PHRASE_CHARACTERS)).is_some());
        assert_eq!(of(&long(PHRASE_CHARACTERS + 1)), None);
    }
}
