//! `config.json` and `preprocessor_config.json` of transformers: which of timm's networks a
//! configuration is, and how its images are prepared. The networks are in `transformers.json`: by
//! type, the values that tell networks apart, as the configuration has them by default and as each
//! network has others.

use serde_json::{Map, Value};

use super::description::{Description, numbers, shown, side};
use crate::{
    base_model::{AskedPreprocessing, Interpolation, SourceTask},
    problem::quoted,
};

const TYPES: &str = include_str!("transformers.json");
/// Side from which ConvNeXt's images are resized to the input without a crop.
const CONVNEXT_UNCROPPED: u32 = 384;

pub(super) fn describe(
    model_type: &str,
    config: &Map<String, Value>,
    preprocessor: Option<&Map<String, Value>>,
) -> Result<Description, String> {
    // The image tower of a whole CLIP, whose texts are not read.
    let (model_type, config) = match (model_type, config.get("vision_config")) {
        ("clip", Some(Value::Object(vision))) => ("clip_vision_model", vision),
        _ => (model_type, config),
    };
    let architecture = architecture(model_type, config)?;
    let is_classifier = config.get("architectures").is_some_and(|names| {
        let names = names.as_array().into_iter().flatten();
        let mut names = names.filter_map(Value::as_str);
        names.any(|name| name.ends_with("ForImageClassification"))
    });
    let labels = config.get("id2label").and_then(Value::as_object);
    let classes = labels.map(|labels| labels.len() as u32);
    let classes = classes.or_else(|| side(config.get("num_labels")));
    Ok(Description {
        architecture,
        source_task: SourceTask {
            name: match is_classifier {
                true => "image classification".to_owned(),
                false => "image features".to_owned(),
            },
            classes: classes.filter(|_| is_classifier),
            dataset: None,
        },
        preprocessing: match preprocessor {
            Some(preprocessor) => preprocessing(model_type, preprocessor)?,
            None => AskedPreprocessing::default(),
        },
        license: None,
    })
}

/// timm's name of the network that a configuration describes.
fn architecture(model_type: &str, config: &Map<String, Value>) -> Result<String, String> {
    let types: Map<String, Value> =
        serde_json::from_str(TYPES).expect("the networks are JSON: this is a bug");
    let Some(known) = types.get(model_type) else {
        return Err(format!(
            "is a `{}` of transformers, which is not read here; look for the same network under `timm/`",
            quoted(model_type)
        ));
    };
    let fields = |name: &str| known[name].as_object().into_iter().flatten();
    let differing = |network: &Value| {
        fields("defaults").find(|(key, default)| {
            let expected = network.get(key).unwrap_or(default);
            !is_same(config.get(*key).unwrap_or(default), expected)
        })
    };
    let found = fields("networks").find(|(_, network)| differing(network).is_none());
    if let Some((name, _)) = found {
        return Ok(name.clone());
    }
    let names: Vec<&str> = fields("networks").map(|(name, _)| name.as_str()).collect();
    let own = fields("defaults").map(|(key, default)| {
        let value = config.get(key).unwrap_or(default);
        format!("`{key}` {}", shown(value))
    });
    let own: Vec<String> = own.collect();
    Err(format!(
        "is a `{model_type}` of transformers with {}, which is none of {}; give one of these",
        own.join(", "),
        names.join(", ")
    ))
}

/// Equal, also where one is `4` and the other `4.0`.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The steps of an image processor, in our words.
fn preprocessing(
    model_type: &str,
    config: &Map<String, Value>,
) -> Result<AskedPreprocessing, String> {
    let is_on = |name: &str| config.get(name) != Some(&Value::Bool(false));
    let scale = config.get("rescale_factor").and_then(Value::as_f64);
    if !is_on("do_rescale") || scale.is_some_and(|scale| (scale * 255.0 - 1.0).abs() > 1e-3) {
        return Err(
            "has a `preprocessor_config.json` that does not scale pixels by 1/255; give `preprocessing` and the weights instead"
                .to_owned(),
        );
    }
    let resized = square(config.get("size")).filter(|_| is_on("do_resize"));
    let has_crop = is_on("do_center_crop");
    let cropped = square(config.get("crop_size")).filter(|_| has_crop);
    let fraction = config.get("crop_pct").and_then(Value::as_f64);
    let fraction = match (model_type, resized, cropped) {
        ("convnext" | "convnextv2", Some(side), _) if side < CONVNEXT_UNCROPPED => {
            Some(fraction.unwrap_or(224.0 / 256.0))
        }
        (_, Some(resized), Some(cropped)) if cropped < resized => {
            Some(f64::from(cropped) / f64::from(resized))
        }
        (_, Some(_), _) => Some(1.0),
        _ => None,
    };
    let is_normalized = is_on("do_normalize");
    let values = |name: &str, without: f64| match is_normalized {
        true => numbers(config.get(name)),
        false => Some(vec![without; 3]),
    };
    Ok(AskedPreprocessing {
        input_size: cropped.or(resized),
        channels: None,
        crop_fraction: fraction,
        interpolation: match config.get("resample").and_then(Value::as_u64) {
            Some(2) => Some(Interpolation::Bilinear),
            Some(3) => Some(Interpolation::Bicubic),
            _ => None,
        },
        mean: values("image_mean", 0.0),
        std: values("image_std", 1.0),
    })
}

/// The side of a square: `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`.
fn square(size: Option<&Value>) -> Option<u32> {
    let size = size?;
    side(Some(size))
        .or_else(|| side(size.get("shortest_edge")))
        .or_else(|| side(size.get("height")).filter(|_| size.get("height") == size.get("width")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(config: &Value, preprocessor: Option<&Value>) -> Result<Description, String> {
        let model_type = config["model_type"].as_str().unwrap();
        let preprocessor = preprocessor.and_then(Value::as_object);
        describe(model_type, config.as_object().unwrap(), preprocessor)
    }

    #[test]
    fn networks_are_told_by_their_numbers() {
        for (config, name) in [
            (json!({"model_type": "resnet"}), "resnet50"),
            (
                json!({"model_type": "resnet", "depths": [3, 4, 23, 3], "num_channels": 3}),
                "resnet101",
            ),
            (
                json!({"model_type": "vit", "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}),
                "vit_small_patch16_224",
            ),
            (
                json!({"model_type": "dinov2", "mlp_ratio": 4.0}),
                "vit_base_patch14_dinov2",
            ),
            (
                json!({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config": {}}),
                "vit_base_patch32_clip_224",
            ),
        ] {
            assert_eq!(described(&config, None).unwrap().architecture, name);
        }
    }

    #[test]
    fn configs_that_give_no_network_say_why() {
        for (config, words) in [
            (
                json!({"model_type": "resnet", "depths": [3, 4, 6, 4]}),
                "`depths` [3,4,6,4]",
            ),
            (
                json!({"model_type": "vit", "hidden_act": "gelu_new"}),
                "none of vit_tiny",
            ),
            (json!({"model_type": "bert"}), "is a `bert` of transformers"),
        ] {
            let message = described(&config, None).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        let scaled = json!({"rescale_factor": 0.00784});
        let message = described(&json!({"model_type": "vit"}), Some(&scaled)).unwrap_err();
        assert!(message.contains("1/255"), "{message}");
    }

    #[test]
    fn preprocessors_become_preprocessing() {
        let of = |model_type: &str, preprocessor: Value| {
            let config = json!({"model_type": model_type});
            let found = described(&config, Some(&preprocessor))
                .unwrap()
                .preprocessing;
            (found.input_size, found.crop_fraction)
        };
        let edge = |side: u32| json!({"size": {"shortest_edge": side}, "crop_pct": 0.875});
        assert_eq!(of("convnext", edge(224)), (Some(224), Some(0.875)));
        assert_eq!(of("convnext", edge(384)), (Some(384), Some(1.0)));
        let square = json!({"size": {"height": 384, "width": 384}});
        assert_eq!(of("vit", square), (Some(384), Some(1.0)));
        let cropped = json!({"size": 256, "crop_size": {"height": 224, "width": 224}});
        assert_eq!(of("vit", cropped), (Some(224), Some(0.875)));
        let off = json!({"size": 256, "crop_size": 224, "do_center_crop": false});
        assert_eq!(of("vit", off), (Some(256), Some(1.0)));
        assert_eq!(of("vit", json!({})), (None, None));

        let preprocessor =
            json!({"resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]});
        let config = json!({
            "model_type": "vit", "architectures": ["ViTForImageClassification"],
            "id2label": {"0": "cat", "1": "dog", "2": "horse"},
        });
        let found = described(&config, Some(&preprocessor)).unwrap();
        assert_eq!(found.source_task.classes, Some(3));
        let found = found.preprocessing;
        assert_eq!(found.interpolation, Some(Interpolation::Bicubic));
        assert_eq!(found.mean, Some(vec![0.5, 0.4, 0.3]));
        assert_eq!(found.std, Some(vec![0.1, 0.2, 0.3]));
        let off = json!({"do_normalize": false});
        let found = described(&config, Some(&off)).unwrap().preprocessing;
        assert_eq!(
            (found.mean, found.std),
            (Some(vec![0.0; 3]), Some(vec![1.0; 3]))
        );
    }
}
