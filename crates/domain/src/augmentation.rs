//! How training images are altered at random. Fields have the meaning and the defaults of torchvision's transforms of the
//! same names; they are applied in the order of the fields.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is done to a training image, each time anew.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Augmentation {
    /// A random part of the image, resized to the input; `null` takes the crop of the evaluation.
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Probability of a mirror image.
    pub horizontal_flip: f64,
    pub color_jitter: Option<ColorJitter>,
    pub rand_augment: Option<RandAugment>,
    /// Probability that a rectangle of 2 to 33 % of the area becomes the mean color.
    pub random_erasing: f64,
}

/// Bounds of a random part of an image; each is drawn between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RandomResizedCrop {
    /// Its share of the area, uniformly.
    pub scale: [f64; 2],
    /// Its width by its height, uniformly in the logarithm.
    pub aspect_ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self {
            scale: [0.08, 1.0],
            aspect_ratio: [3.0 / 4.0, 4.0 / 3.0],
        }
    }
}

/// How far colors may move, in a random order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ColorJitter {
    /// The factor is drawn from 1 less this to 1 plus this.
    pub brightness: f64,
    /// As `brightness`.
    pub contrast: f64,
    /// As `brightness`.
    pub saturation: f64,
    /// The turn is drawn from less this to plus this, in turns of the color wheel.
    pub hue: f64,
}

impl ColorJitter {
    pub fn acts(&self) -> bool {
        [self.brightness, self.contrast, self.saturation, self.hue]
            .iter()
            .any(|&bound| bound > 0.0)
    }
}

/// Some operations drawn from a list, all of one strength (Cubuk et al. 2020). The list is torchvision's without sharpness:
/// identity, shear, shift and rotation, brightness, color, contrast, posterize, solarize, autocontrast, equalize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RandAugment {
    /// Operations on each image, one after the other.
    pub n_ops: u32,
    /// From 0 to 30, the strongest.
    pub magnitude: u32,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            n_ops: 2,
            magnitude: 9,
        }
    }
}

impl Augmentation {
    /// Whether it ever changes an image.
    pub fn acts(&self) -> bool {
        self.random_resized_crop.is_some()
            || self.horizontal_flip > 0.0
            || self.color_jitter.is_some_and(|jitter| jitter.acts())
            || self.rand_augment.is_some()
            || self.random_erasing > 0.0
    }
}
