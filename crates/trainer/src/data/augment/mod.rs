//! Random augmentation of training images, as torchvision's transforms do: `RandomResizedCrop`,
//! `RandomHorizontalFlip`, `ColorJitter`, `RandAugment`, `RandomErasing`, in this order, on bytes.
//! All random choices for an image follow from one key. Gray images keep hue and saturation, as in
//! torchvision; alpha moves with its pixel and is not changed by operations on color.

mod color;
mod rand_augment;
mod regions;
mod warp;

use super::{
    image::{ImageView, Target, resize},
    random::Random,
};
use crate::domain::{augmentation::Augmentation, base_model::Preprocessing};

/// Version of the augmented images, part of their cache key: raise it when the image of a key
/// changes.
pub const VERSION: u32 = 1;

/// Short side of the images that are cropped, in sides of the input. Crops smaller than the inverse
/// square of this share of the area are enlarged, as crops of any small image are.
const CANVAS: f64 = 1.5;

/// Alters images for one model.
#[derive(Debug, Clone)]
pub struct Augmenter {
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    /// Value of pixels outside the image: the mean of each channel, which is 0 after normalization.
    fill: Vec<u8>,
}

impl Augmenter {
    pub fn new(augmentation: &Augmentation, preprocessing: &Preprocessing) -> Self {
        Self {
            augmentation: augmentation.clone(),
            fill: preprocessing
                .mean
                .iter()
                .map(|mean| (mean * 255.0).round().clamp(0.0, 255.0) as u8)
                .collect(),
            preprocessing: preprocessing.clone(),
        }
    }

    /// Short side of the images to crop from; `None` where evaluation images are altered.
    pub fn canvas(&self) -> Option<u32> {
        let side = f64::from(self.preprocessing.input_size);
        let crops = self.augmentation.random_resized_crop.is_some();
        crops.then(|| (side * CANVAS).round() as u32)
    }

    /// A view of a whole image, into a square of the input. The image has its channels.
    pub fn view(&self, image: ImageView<'_>, key: u64, square: &mut [u8]) {
        let size = (image.width, image.height);
        let target = self.target(size, key);
        resize(image, target, self.preprocessing.interpolation, square);
        self.view_of_target(size, key, square);
    }

    /// The square of an image of this size that `view` alters.
    pub fn target(&self, size: (u32, u32), key: u64) -> Target {
        self.draw_target(size, &mut Random::new(key))
    }

    /// As `view`, from the `target` of an image of this size.
    pub fn view_of_target(&self, size: (u32, u32), key: u64, square: &mut [u8]) {
        let mut random = Random::new(key);
        self.draw_target(size, &mut random);
        self.alter(square, &mut random);
    }

    fn draw_target(&self, size: (u32, u32), random: &mut Random) -> Target {
        match &self.augmentation.random_resized_crop {
            None => Target::square(size, &self.preprocessing),
            Some(crop) => Target {
                part: regions::crop(size.0, size.1, crop, random),
                width: self.preprocessing.input_size,
                height: self.preprocessing.input_size,
            },
        }
    }

    /// As `view`, from an evaluation image, without cropping.
    pub fn view_of_square(&self, key: u64, square: &mut [u8]) {
        self.alter(square, &mut Random::new(key));
    }

    /// All operations but the crop.
    fn alter(&self, square: &mut [u8], random: &mut Random) {
        match self.preprocessing.channels {
            1 => self.alter_pixels::<1>(square, random),
            4 => self.alter_pixels::<4>(square, random),
            _ => self.alter_pixels::<3>(square, random),
        }
    }

    fn alter_pixels<const C: usize>(&self, square: &mut [u8], random: &mut Random) {
        let fill: [u8; C] = std::array::from_fn(|channel| self.fill[channel]);
        let side = self.preprocessing.input_size as usize;
        let wanted = &self.augmentation;
        let (pixels, _) = square.as_chunks_mut::<C>();
        if wanted.horizontal_flip > 0.0 && random.chance(wanted.horizontal_flip) {
            warp::flip(pixels, side);
        }
        if let Some(jitter) = &wanted.color_jitter {
            color::jitter(pixels, jitter, random);
        }
        if let Some(rand_augment) = wanted.rand_augment {
            rand_augment::apply(pixels, side, rand_augment, fill, random);
        }
        if wanted.random_erasing > 0.0 && random.chance(wanted.random_erasing) {
            regions::erase(pixels, side, fill, random);
        }
    }
}

#[cfg(test)]
mod tests;
