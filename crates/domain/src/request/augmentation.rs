//! `augmentation`: how training images are altered, as asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Auto;
use crate::{
    augmentation::{Augmentation, ColorJitter, RandAugment, RandomResizedCrop},
    fields::{Fields, INVALID_VALUE, Read, integer, number, word, wrong_type},
    limits,
};

const NAME: &str = "augmentation";

/// `none`, or what is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RequestedAugmentation {
    Off(AugmentationOff),
    Chosen(ChosenAugmentation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AugmentationOff {
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChosenAugmentation {
    #[serde(flatten)]
    pub augmentation: Augmentation,
    /// Altered views of each training sample whose features are computed ahead while the whole backbone is frozen; an epoch
    /// trains on one of them.
    pub views: Auto<u64>,
}

/// Reads the field of that name.
pub(super) fn augmentation(fields: &Fields<'_>) -> Auto<RequestedAugmentation> {
    if let Some(Value::Object(_)) = fields.get(NAME) {
        let chosen = fields.object(NAME).map(chosen);
        return chosen.map_or(Auto::Auto, |chosen| {
            Auto::Value(RequestedAugmentation::Chosen(chosen))
        });
    }
    let off = |value: &Value| {
        word(&["none"])(value)
            .map(RequestedAugmentation::Off)
            .map_err(|(code, message)| (code, format!("{message}, or an object")))
    };
    fields.auto(NAME, off)
}

fn chosen(fields: Fields<'_>) -> ChosenAugmentation {
    let probability = |name| fields.optional(name, number(0.0..=1.0)).unwrap_or(0.0);
    let augmentation = Augmentation {
        random_resized_crop: fields
            .object("random_resized_crop")
            .map(random_resized_crop),
        horizontal_flip: probability("horizontal_flip"),
        color_jitter: fields.object("color_jitter").map(color_jitter),
        rand_augment: fields.object("rand_augment").map(rand_augment),
        random_erasing: probability("random_erasing"),
    };
    let views = fields.auto("views", integer(limits::VIEWS));
    fields.finish();
    ChosenAugmentation {
        augmentation,
        views,
    }
}

fn random_resized_crop(fields: Fields<'_>) -> RandomResizedCrop {
    let defaults = RandomResizedCrop::default();
    let crop = RandomResizedCrop {
        scale: fields
            .optional("scale", bounds(limits::CROP_SCALE))
            .unwrap_or(defaults.scale),
        aspect_ratio: fields
            .optional("aspect_ratio", bounds(limits::CROP_ASPECT_RATIO))
            .unwrap_or(defaults.aspect_ratio),
    };
    fields.finish();
    crop
}

fn color_jitter(fields: Fields<'_>) -> ColorJitter {
    let factor = |name| {
        fields
            .optional(name, number(limits::COLOR_FACTOR))
            .unwrap_or(0.0)
    };
    let jitter = ColorJitter {
        brightness: factor("brightness"),
        contrast: factor("contrast"),
        saturation: factor("saturation"),
        hue: fields.optional("hue", number(limits::HUE)).unwrap_or(0.0),
    };
    fields.finish();
    jitter
}

fn rand_augment(fields: Fields<'_>) -> RandAugment {
    let defaults = RandAugment::default();
    let whole = |name, range, default| {
        let given = fields.optional(name, integer(range));
        given.map_or(default, |given| given as u32)
    };
    let rand_augment = RandAugment {
        n_ops: whole("n_ops", limits::RAND_AUGMENT_OPS, defaults.n_ops),
        magnitude: whole(
            "magnitude",
            limits::RAND_AUGMENT_MAGNITUDE,
            defaults.magnitude,
        ),
    };
    fields.finish();
    rand_augment
}

/// Reads two numbers within a range, the lower one first.
fn bounds(range: std::ops::RangeInclusive<f64>) -> impl Fn(&Value) -> Read<[f64; 2]> {
    move |value| {
        let Some([low, high]) = value.as_array().map(Vec::as_slice) else {
            let expected = format!("two numbers from {} to {}", range.start(), range.end());
            return Err(wrong_type(&expected, value));
        };
        let read = |(place, value)| {
            number(range.clone())(value)
                .map_err(|(code, message)| (code, format!("[{place}] {message}")))
        };
        let (low, high) = (read((0, low))?, read((1, high))?);
        if low > high {
            let message = format!("must begin with the lower number, not {low}, {high}");
            return Err((INVALID_VALUE, message));
        }
        Ok([low, high])
    }
}
