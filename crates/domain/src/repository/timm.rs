//! timm's `config.json`, as `timm.models.save_for_hf` writes it.

use serde_json::{Map, Value};

use super::description::{Description, numbers, side};
use crate::{
    base_model::{AskedPreprocessing, Interpolation, SourceTask},
    limits::PHRASE_CHARACTERS,
};

pub(super) fn describe(config: &Map<String, Value>) -> Result<Description, String> {
    let name = config.get("architecture").and_then(Value::as_str);
    let Some(architecture) = name.filter(|name| name.len() <= PHRASE_CHARACTERS) else {
        return Err("has a `config.json` whose `architecture` is no name".to_owned());
    };
    let empty = Map::new();
    let pretrained = config.get("pretrained_cfg").and_then(Value::as_object);
    let pretrained = pretrained.unwrap_or(&empty);
    let text = |name: &str| pretrained.get(name).and_then(Value::as_str);
    let input_size = pretrained.get("input_size").and_then(Value::as_array);
    let input = |index: usize| side(input_size.and_then(|sides| sides.get(index)));
    Ok(Description {
        architecture: architecture.to_owned(),
        source_task: SourceTask {
            name: "image classification".to_owned(),
            classes: side(config.get("num_classes")).filter(|classes| *classes > 0),
            dataset: text("tag").and_then(dataset),
        },
        preprocessing: AskedPreprocessing {
            input_size: input(1),
            channels: input(0),
            crop_fraction: pretrained.get("crop_pct").and_then(Value::as_f64),
            interpolation: text("interpolation").and_then(|name| match name {
                "bilinear" => Some(Interpolation::Bilinear),
                "bicubic" => Some(Interpolation::Bicubic),
                _ => None,
            }),
            mean: numbers(pretrained.get("mean")),
            std: numbers(pretrained.get("std")),
        },
        license: text("license").map(str::to_owned),
    })
}

/// The data set that a tag of timm's names last, such as `a1_in1k` or `augreg_in21k_ft_in1k`.
fn dataset(tag: &str) -> Option<String> {
    let last = tag.rsplit('_').next()?;
    let name = match last {
        "in1k" => "ImageNet-1k",
        "in12k" => "ImageNet-12k",
        "in21k" | "in22k" => "ImageNet-21k",
        "lvd142m" => "LVD-142M",
        "lvd1689m" => "LVD-1689M",
        "laion2b" => "LAION-2B",
        "openai" => "OpenAI's pairs of images and texts",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_data_sets() {
        let of = |tag: &str| dataset(tag);
        assert_eq!(of("a1_in1k").as_deref(), Some("ImageNet-1k"));
        assert_eq!(of("augreg_in21k").as_deref(), Some("ImageNet-21k"));
        assert_eq!(of("augreg_in21k_ft_in1k").as_deref(), Some("ImageNet-1k"));
        assert_eq!(of("lvd142m").as_deref(), Some("LVD-142M"));
        assert_eq!(of("mine"), None);
    }
}
