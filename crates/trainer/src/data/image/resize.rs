//! Resizing.

use std::{cell::RefCell, error::Error};

use fast_image_resize::{
    FilterType, MulDiv, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};

use super::bitmap::Bitmap;
use crate::domain::base_model::{Interpolation, Preprocessing};

/// A `Bitmap` with borrowed pixels.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    pub width: u32,
    pub height: u32,
    pub channels: u32,
    pub pixels: &'a [u8],
}

impl Bitmap {
    pub fn as_view(&self) -> ImageView<'_> {
        ImageView {
            width: self.width,
            height: self.height,
            channels: self.channels,
            pixels: &self.pixels,
        }
    }
}

/// A part of an image, in pixels; its edges may lie inside pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// Resizes and crops as timm does at evaluation: `square_bytes` bytes, row by row. The image has
/// the input's channels.
pub fn preprocess(image: &Bitmap, preprocessing: &Preprocessing) -> Vec<u8> {
    let mut square = vec![0; preprocessing.square_bytes()];
    preprocess_into(image.as_view(), preprocessing, &mut square);
    square
}

/// As `preprocess`, into a slice of exactly that size.
///
/// timm's `transforms_imagenet_eval`: the shorter side becomes `floor(input_size / crop_fraction)`,
/// the longer one keeps the shape, rounded down; the crop's corner is at half the rest, rounded to
/// even (torchvision's `Resize` and `CenterCrop`). Only what the crop shows is computed.
pub(in crate::data) fn preprocess_into(
    image: ImageView<'_>,
    preprocessing: &Preprocessing,
    square: &mut [u8],
) {
    let side = preprocessing.input_size;
    let short = (f64::from(side) / preprocessing.crop_fraction)
        .floor()
        .max(f64::from(side));
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let (resized_width, resized_height) = if width <= height {
        (short, (short * height / width).floor())
    } else {
        ((short * width / height).floor(), short)
    };
    // The part of the image that the crop shows, in its own pixels.
    let shown = |full: f64, resized: f64| {
        let scale = full / resized;
        let start = ((resized - f64::from(side)) / 2.0).round_ties_even() * scale;
        (start, (f64::from(side) * scale).min(full - start))
    };
    let (left, shown_width) = shown(width, resized_width);
    let (top, shown_height) = shown(height, resized_height);
    let part = Part {
        left,
        top,
        width: shown_width,
        height: shown_height,
    };
    let filter = preprocessing.interpolation;
    resize_part(image, part, filter, (side, side, square));
}

/// Resizes a part of an image into a slice of `width * height * channels` bytes, antialiased.
/// Colors are weighted by alpha, as in Pillow.
pub(in crate::data) fn resize_part(
    image: ImageView<'_>,
    part: Part,
    interpolation: Interpolation,
    into: (u32, u32, &mut [u8]),
) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch
            .resize(image, part, interpolation, into)
            .expect("parts lie inside images that have a byte for each channel: this is a bug");
    });
}

/// A thread's buffers for resizing.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    /// Colors multiplied by alpha, of the whole image.
    weighed: Vec<u8>,
    /// Rows in their new width.
    narrowed: Vec<u8>,
}

impl Scratch {
    /// Rows first and then columns, as Pillow does: each pass rounds to whole levels, and the order
    /// changes EfficientNet-Lite0's logits by 0.1 %.
    fn resize(
        &mut self,
        image: ImageView<'_>,
        part: Part,
        interpolation: Interpolation,
        (width, height, into): (u32, u32, &mut [u8]),
    ) -> Result<(), Box<dyn Error>> {
        let (filter, support) = match interpolation {
            Interpolation::Bilinear => (FilterType::Bilinear, 1.0),
            // Pillow's bicubic has a = -0.5: Catmull and Rom's.
            Interpolation::Bicubic => (FilterType::CatmullRom, 2.0),
        };
        let pixel = match image.channels {
            1 => PixelType::U8,
            4 => PixelType::U8x4,
            _ => PixelType::U8x3,
        };
        let mut source = ImageRef::new(image.width, image.height, image.pixels, pixel)?;
        if pixel == PixelType::U8x4 {
            self.weighed.resize(image.pixels.len(), 0);
            let (width, height) = (image.width, image.height);
            let mut target = Image::from_slice_u8(width, height, &mut self.weighed, pixel)?;
            MulDiv::new().multiply_alpha(&source, &mut target)?;
            source = ImageRef::new(width, height, &self.weighed, pixel)?;
        }

        // The rows that contribute to the new ones, and one more.
        let reach = support * (part.height / f64::from(height)).max(1.0) + 1.0;
        let first = (part.top - reach).floor().max(0.0);
        let end = (part.top + part.height + reach).ceil();
        let rows = end.min(f64::from(image.height)) - first;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .use_alpha(false);

        let bytes = width as usize * rows as usize * image.channels as usize;
        self.narrowed.resize(bytes, 0);
        let mut target = Image::from_slice_u8(width, rows as u32, &mut self.narrowed, pixel)?;
        let shown = options.crop(part.left, first, part.width, rows);
        self.resizer.resize(&source, &mut target, &shown)?;

        let source = ImageRef::new(width, rows as u32, &self.narrowed, pixel)?;
        let mut target = Image::from_slice_u8(width, height, into, pixel)?;
        let shown = options.crop(0.0, part.top - first, f64::from(width), part.height);
        self.resizer.resize(&source, &mut target, &shown)?;
        if pixel == PixelType::U8x4 {
            MulDiv::new().divide_alpha_inplace(&mut target)?;
        }
        Ok(())
    }
}

/// A whole image in another size, row by row.
pub fn shrink(
    image: &Bitmap,
    (width, height): (u32, u32),
    interpolation: Interpolation,
) -> Vec<u8> {
    if (width, height) == (image.width, image.height) {
        return image.pixels.clone();
    }
    let mut shrunk = vec![0; width as usize * height as usize * image.channels as usize];
    let whole = Part {
        left: 0.0,
        top: 0.0,
        width: f64::from(image.width),
        height: f64::from(image.height),
    };
    let into = (width, height, &mut shrunk[..]);
    resize_part(image.as_view(), whole, interpolation, into);
    shrunk
}

/// Width and height of an image whose shorter side is at most `short`. An aspect ratio above four
/// gives as many pixels as a ratio of four. No image is enlarged.
pub fn shrunk_size(width: u32, height: u32, short: u32) -> (u32, u32) {
    let (full_width, full_height, short) = (f64::from(width), f64::from(height), f64::from(short));
    let by_side = short / full_width.min(full_height);
    let by_pixels = 2.0 * short / (full_width * full_height).sqrt();
    let scale = by_side.min(by_pixels);
    if scale >= 1.0 {
        return (width, height);
    }
    let scaled = |side: f64| ((side * scale).round() as u32).max(1);
    (scaled(full_width), scaled(full_height))
}
