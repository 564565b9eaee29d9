//! A fine-tuned model as a repository of a hub that timm loads by its name: `config.json` in the
//! form of `timm.models.save_for_hf`, and a model card, made of those of the model's bundle.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    recipe::{HeadLayer, PRE_LOGITS, is_linear_head},
    report::{Report, Scores},
    repository::card_value,
};

/// Licenses by the names that a model card has for them. Any other one is `other`, with its name.
const LICENSES: [&str; 24] = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "cc",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
    "openrail",
    "unlicense",
    "wtfpl",
];
/// Largest `config.json` and model card in bytes.
pub const TEXT_BYTES: u64 = 64 << 20;
/// Heading of the part of a bundle's card that says how to load it.
const USE: &str = "\n## Use\n";

/// A model to publish, as rows describe it.
#[derive(Debug)]
pub struct Published<'a> {
    pub model: &'a str,
    /// Where it goes.
    pub repository: &'a str,
    pub branch: &'a str,
    pub license: Option<&'a str>,
    /// The hub's repository that its base model is from.
    pub base_repository: Option<&'a str>,
    pub report: Option<&'a Report>,
}

/// Reads `config.json` and the model card of a bundle whose network timm builds.
///
/// # Errors
/// timm does not build it; a sentence that goes behind the model's name.
pub fn read(config: &[u8], card: &[u8]) -> Result<(Value, String), String> {
    let config = serde_json::from_slice(config)
        .map_err(|error| format!("has a `config.json` that cannot be read: {error}"))?;
    let card = String::from_utf8_lossy(card).into_owned();
    check(&config, &card)?;
    Ok((config, card))
}

fn check(config: &Value, card: &str) -> Result<(), String> {
    let advice = "which timm cannot build; export it as `onnx`, `torchscript` or `zip`";
    let library = card_value(card, "library_name");
    if library.as_deref() != Some("timm") {
        let library = library.as_deref().unwrap_or("another library");
        return Err(format!("is a network of {library}, {advice}"));
    }
    let facts = &config["rehead"];
    match facts["cut"].as_str() {
        Some(PRE_LOGITS) => {}
        Some(stage) => return Err(format!("is cut after stage `{stage}`, {advice}")),
        None => return Err("has no `rehead.cut` in its `config.json`".to_owned()),
    }
    let layers = facts["recipe"]["head"]["layers"].clone();
    let layers: Vec<HeadLayer> = serde_json::from_value(layers)
        .map_err(|error| format!("has a `config.json` that cannot be read: {error}"))?;
    if !is_linear_head(&layers) {
        return Err(format!("has a head of several layers, {advice}"));
    }
    Ok(())
}

impl Published<'_> {
    /// timm's `config.json`: the names of labels and the license are where timm has them.
    pub fn config(&self, bundled: &Value) -> Value {
        let mut config = bundled.as_object().cloned().unwrap_or_default();
        let mut pretrained = match config.remove("pretrained_cfg") {
            Some(Value::Object(pretrained)) => pretrained,
            _ => Map::new(),
        };
        pretrained.insert("custom_load".to_owned(), json!(false));
        pretrained.insert("crop_mode".to_owned(), json!("center"));
        if let Some(license) = self.license {
            pretrained.insert("license".to_owned(), json!(license));
        }
        // A regression has none.
        let labels = pretrained.remove("label_names");
        let labels = labels.filter(|names| names.as_array().is_some_and(|names| !names.is_empty()));
        if let Some(labels) = labels {
            config.insert("label_names".to_owned(), labels);
        }
        config.insert("pretrained_cfg".to_owned(), Value::Object(pretrained));
        Value::Object(config)
    }

    /// The model card: a head that the hub reads, the text of the bundle's card, and how to load
    /// the model from the hub.
    pub fn card(&self, bundled: &str) -> String {
        let body = bundled.strip_prefix("---").unwrap_or(bundled);
        let body = body.split_once("\n---").map_or(bundled, |(_, body)| body);
        let body = body.split(USE).next().unwrap_or_default().trim();
        let mut card = self.head(card_value(bundled, "pipeline_tag").as_deref());
        let place = match self.branch {
            "main" => self.repository.to_owned(),
            branch => format!("{}@{branch}", self.repository),
        };
        let revision = match self.branch {
            "main" => String::new(),
            branch => format!(" --revision {branch}"),
        };
        let _ = write!(
            card,
            "\n{body}\n{USE}\n```python\nimport timm\n\n\
             model = timm.create_model(\"hf-hub:{place}\", pretrained=True).eval()\n\
             config = timm.data.resolve_model_data_config(model)\n\
             transform = timm.data.create_transform(**config, is_training=False)\n\
             labels = model.pretrained_cfg.get(\"label_names\")\n```\n\n\
             As a base model of Rehead, to fine-tune it further:\n\n\
             ```sh\nrehead models add {}{revision}\n```\n\n\
             `preprocess.json` says how an image becomes the input. The image's short side is resized, and its center \
             is cropped.\n",
            self.repository
        );
        card
    }

    /// The YAML before a card. Texts are JSON's, which are YAML, too.
    fn head(&self, pipeline_tag: Option<&str>) -> String {
        let mut head = "---\nlibrary_name: timm\n".to_owned();
        if let Some(license) = self.license {
            let known = license.to_lowercase();
            let _ = match LICENSES.contains(&known.as_str()) {
                true => writeln!(head, "license: {known}"),
                false => writeln!(head, "license: other\nlicense_name: {}", json!(license)),
            };
        }
        let tag = pipeline_tag.unwrap_or("image-classification");
        let _ = writeln!(
            head,
            "pipeline_tag: {tag}\ntags:\n- {tag}\n- timm\n- rehead"
        );
        if let Some(base) = self.base_repository {
            let _ = writeln!(head, "base_model: {base}");
        }
        if let Some(report) = self.report {
            let metrics = metrics(&report.scores);
            let names = metrics.iter().map(|(kind, _)| format!("- {kind}\n"));
            let values = metrics
                .iter()
                .map(|(kind, value)| format!("    - type: {kind}\n      value: {value}\n"));
            let _ = write!(
                head,
                "metrics:\n{}model-index:\n- name: {}\n  results:\n  - task:\n      type: {tag}\n    dataset:\n      \
                 type: imagefolder\n      name: private data\n      split: {}\n    metrics:\n{}",
                Vec::from_iter(names).concat(),
                json!(self.model),
                report.split.as_str(),
                Vec::from_iter(values).concat(),
            );
        }
        head + "---\n"
    }
}

/// The main scores of a task, under the hub's names.
fn metrics(scores: &Scores) -> Vec<(&'static str, f64)> {
    let metrics = match scores {
        Scores::SingleLabelClassification(scores) => vec![
            ("accuracy", Some(scores.accuracy)),
            ("f1", Some(scores.macro_f1)),
            ("roc_auc", scores.roc_auc),
        ],
        Scores::MultiLabelClassification(scores) => vec![
            ("mean_average_precision", scores.mean_average_precision),
            ("f1", scores.macro_f1),
            ("roc_auc", scores.roc_auc),
        ],
        Scores::Regression(scores) => vec![
            ("mae", Some(scores.mae)),
            ("rmse", Some(scores.rmse)),
            ("r_squared", scores.r2),
        ],
    };
    let finite = metrics.into_iter();
    let finite = finite.filter_map(|(kind, value)| Some((kind, value.filter(|v| v.is_finite())?)));
    finite.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{describe, license};

    const CARD: &str = "---\nlibrary_name: timm\npipeline_tag: image-classification\n---\n\n# ft:a:b:1\n\nAccuracy.\n\n## Use\n\nold\n";

    fn config() -> Value {
        json!({
            "architecture": "resnet18", "model_args": {"in_chans": 1}, "num_classes": 2, "num_features": 512,
            "pretrained_cfg": {
                "tag": "ft:a:b:1", "input_size": [1, 64, 64], "crop_pct": 0.9, "interpolation": "bilinear",
                "mean": [0.5], "std": [0.25], "num_classes": 2, "classifier": "fc", "label_names": ["cat", "dog"],
            },
            "rehead": {"cut": "pre_logits", "recipe": {"head": {"layers": [{"dropout": 0.2}]}}},
        })
    }

    fn published() -> Published<'static> {
        Published {
            model: "ft:a:b:1",
            repository: "org/pets",
            branch: "main",
            license: Some("Apache-2.0"),
            base_repository: Some("timm/resnet18.a1_in1k"),
            report: None,
        }
    }

    #[test]
    fn what_timm_cannot_build_is_told_with_its_reason() {
        assert_eq!(check(&config(), CARD), Ok(()));
        let with = |pointer: &str, value: Value| {
            let mut config = config();
            *config.pointer_mut(pointer).unwrap() = value;
            check(&config, CARD).unwrap_err()
        };
        assert!(with("/rehead/cut", json!("layer3")).contains("cut after stage `layer3`"));
        let layers = json!([{"linear": 64}, "gelu"]);
        let message = with("/rehead/recipe/head/layers", layers);
        assert!(message.contains("head of several layers"), "{message}");
        let message = with("/rehead/recipe/head/layers", json!([7]));
        assert!(message.contains("cannot be read"), "{message}");
        let torchvision = CARD.replace("timm", "torchvision");
        let message = check(&config(), &torchvision).unwrap_err();
        assert!(message.contains("network of torchvision"), "{message}");
    }

    /// A published model reads back as a base model.
    #[test]
    fn a_published_config_is_timms() {
        let config = published().config(&config());
        assert_eq!(config["label_names"], json!(["cat", "dog"]));
        let pretrained = &config["pretrained_cfg"];
        assert!(pretrained.get("label_names").is_none());
        assert_eq!(pretrained["crop_mode"], "center");
        let found = describe(&config, None).unwrap();
        assert_eq!(found.architecture, "resnet18");
        assert_eq!(found.source_task.classes, Some(2));
        assert_eq!(found.license.as_deref(), Some("Apache-2.0"));
        let asked = found.preprocessing;
        assert_eq!((asked.channels, asked.input_size), (Some(1), Some(64)));
    }

    #[test]
    fn a_card_has_a_head_and_says_how_to_load_it() {
        let card = published().card(CARD);
        for line in [
            "license: apache-2.0",
            "pipeline_tag: image-classification",
            "base_model: timm/resnet18.a1_in1k",
            "# ft:a:b:1",
            "timm.create_model(\"hf-hub:org/pets\"",
            "rehead models add org/pets\n",
        ] {
            assert!(card.contains(line), "{line}: {card}");
        }
        assert!(!card.contains("old"), "{card}");
        let other = Published {
            license: Some("My \"own\": licence"),
            branch: "v2",
            ..published()
        };
        let card = other.card(CARD);
        assert!(
            card.contains("license: other\nlicense_name: \"My \\\"own\\\": licence\"\n"),
            "{card}"
        );
        assert!(
            card.contains("hf-hub:org/pets@v2") && card.contains("--revision v2"),
            "{card}"
        );
        assert!(license(&card).unwrap().starts_with("My"));
    }
}
