//! Random changes of training images. Fields have the meaning and the defaults of torchvision's
//! transforms of the same names; they are applied in the order of the fields.

use crate::{
    limits,
    options::{Group, Or, defaults, options},
    rules::{Bounds, Integer, number, share},
};

options! {
    /// Random changes of a training image, drawn anew each time.
    #[derive(Default)]
    pub struct Augmentation {
        /// A random part of the image, resized to the input; without it, the crop of the
        /// evaluation.
        random_resized_crop: Option<RandomResizedCrop> = Group,
        /// Probability of mirroring the image.
        horizontal_flip: f64 = Or(0.0, share()),
        color_jitter: Option<ColorJitter> = Group,
        rand_augment: Option<RandAugment> = Group,
        /// Probability that a rectangle of 2 to 33 % of the area is filled with the mean color.
        random_erasing: f64 = Or(0.0, share()),
    }
}

options! {
    /// The part of the image that is kept; area and aspect ratio are drawn between these bounds.
    #[derive(Copy)]
    pub struct RandomResizedCrop {
        /// Least and largest share of the area, drawn uniformly.
        scale: [f64; 2] = Or([0.08, 1.0], Bounds(limits::CROP_SCALE)),
        /// Least and largest width divided by height, drawn uniformly in the logarithm.
        aspect_ratio: [f64; 2] = Or([3.0 / 4.0, 4.0 / 3.0], Bounds(limits::CROP_ASPECT_RATIO)),
    }
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        defaults()
    }
}

options! {
    /// How far colors may change, in a random order.
    #[derive(Copy, Default)]
    pub struct ColorJitter {
        /// The factor is drawn from 1 - `brightness` to 1 + `brightness`.
        brightness: f64 = Or(0.0, number(limits::COLOR_FACTOR)),
        /// As `brightness`.
        contrast: f64 = Or(0.0, number(limits::COLOR_FACTOR)),
        /// As `brightness`.
        saturation: f64 = Or(0.0, number(limits::COLOR_FACTOR)),
        /// The shift is drawn from -`hue` to `hue`, in turns of the color wheel.
        hue: f64 = Or(0.0, number(limits::HUE)),
    }
}

impl ColorJitter {
    /// True when it can change an image.
    pub fn acts(&self) -> bool {
        [self.brightness, self.contrast, self.saturation, self.hue]
            .iter()
            .any(|&bound| bound > 0.0)
    }
}

options! {
    /// Some operations drawn from a list, all of one strength (Cubuk et al. 2020). The list is
    /// torchvision's without sharpness: identity, shear, shift and rotation, brightness, color,
    /// contrast, posterize, solarize, autocontrast, equalize.
    #[derive(Copy, Eq)]
    pub struct RandAugment {
        /// Operations on each image, one after the other.
        n_ops: u32 = Or(2, Integer(limits::RAND_AUGMENT_OPS)),
        /// Strength, from 0 to 30.
        magnitude: u32 = Or(9, Integer(limits::RAND_AUGMENT_MAGNITUDE)),
    }
}

impl Default for RandAugment {
    fn default() -> Self {
        defaults()
    }
}

impl Augmentation {
    /// True when it can change an image.
    pub fn acts(&self) -> bool {
        self.random_resized_crop.is_some()
            || self.horizontal_flip > 0.0
            || self.color_jitter.is_some_and(|jitter| jitter.acts())
            || self.rand_augment.is_some()
            || self.random_erasing > 0.0
    }
}
