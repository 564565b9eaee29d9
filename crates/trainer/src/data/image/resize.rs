//! Resizing.

use std::{cell::RefCell, error::Error, ops::Range};

use fast_image_resize::{
    FilterType, MulDiv, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};

use super::bitmap::ImageView;
use crate::domain::base_model::{Interpolation, Preprocessing};

/// A part of an image, in pixels; its edges may lie inside pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// A part of an image, and the size in pixels that it is resized to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    pub part: Part,
    pub width: u32,
    pub height: u32,
}

impl Target {
    /// The square that timm shows a network at evaluation.
    ///
    /// timm's `transforms_imagenet_eval`: the shorter side becomes `floor(input_size /
    /// crop_fraction)`, the longer one keeps the shape, rounded down; the crop's corner is at half
    /// the rest, rounded to even (torchvision's `Resize` and `CenterCrop`). Only what the crop
    /// shows is computed.
    pub fn square((width, height): (u32, u32), preprocessing: &Preprocessing) -> Self {
        let side = preprocessing.input_size;
        let short = (f64::from(side) / preprocessing.crop_fraction)
            .floor()
            .max(f64::from(side));
        let (width, height) = (f64::from(width), f64::from(height));
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
        Self {
            part: Part {
                left,
                top,
                width: shown_width,
                height: shown_height,
            },
            width: side,
            height: side,
        }
    }

    /// A whole image in another size.
    pub fn whole((width, height): (u32, u32), size: (u32, u32)) -> Self {
        let part = Part {
            left: 0.0,
            top: 0.0,
            width: f64::from(width),
            height: f64::from(height),
        };
        Self {
            part,
            width: size.0,
            height: size.1,
        }
    }

    /// True if it changes nothing in an image of this size.
    fn is_identity(&self, image: (u32, u32)) -> bool {
        *self == Self::whole(image, image)
    }
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

/// Resizes a part of an image to `height * width * channels` bytes, antialiased. Colors are
/// weighted by alpha, as in Pillow.
pub(in crate::data) fn resize(
    image: ImageView<'_>,
    target: Target,
    interpolation: Interpolation,
    into: &mut [u8],
) {
    let size = (image.width, image.height);
    let mut resize = Resize::new(size, image.channels, target, interpolation);
    resize.add(image, 0);
    resize.finish(into);
}

/// A resize that gets its image in strips of rows, from the top.
///
/// Rows first and then columns, as Pillow does: each pass rounds to whole levels, and the order
/// changes EfficientNet-Lite0's logits by 0.1 %. The first pass takes each row by itself, so that
/// the strips' height changes nothing.
#[derive(Debug)]
pub(super) struct Resize {
    target: Target,
    filter: FilterType,
    pixel: PixelType,
    is_identity: bool,
    /// Rows of the image that contribute to the new ones, and one more at each end.
    rows: Range<u32>,
    /// These in their new width, as many as have come.
    narrowed: Vec<u8>,
}

/// Buffers that a thread uses again for each strip.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    /// Colors of a strip, multiplied by alpha.
    weighed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Resize {
    /// For an image of this width and height.
    pub(super) fn new(
        size: (u32, u32),
        channels: u32,
        target: Target,
        interpolation: Interpolation,
    ) -> Self {
        let (filter, support) = match interpolation {
            Interpolation::Bilinear => (FilterType::Bilinear, 1.0),
            // Pillow's bicubic has a = -0.5: Catmull and Rom's.
            Interpolation::Bicubic => (FilterType::CatmullRom, 2.0),
        };
        let pixel = match channels {
            1 => PixelType::U8,
            4 => PixelType::U8x4,
            _ => PixelType::U8x3,
        };
        let part = target.part;
        let reach = support * (part.height / f64::from(target.height)).max(1.0) + 1.0;
        let first = (part.top - reach).floor().max(0.0) as u32;
        let end = (part.top + part.height + reach).ceil() as u32;
        Self {
            target,
            filter,
            pixel,
            is_identity: target.is_identity(size),
            rows: first..end.min(size.1),
            narrowed: Vec::new(),
        }
    }

    /// Channels of the image, 1, 3 or 4.
    pub(super) fn channels(&self) -> u32 {
        match self.pixel {
            PixelType::U8 => 1,
            PixelType::U8x4 => 4,
            _ => 3,
        }
    }

    /// Takes the rows from `top` on.
    pub(super) fn add(&mut self, strip: ImageView<'_>, top: u32) {
        let added = SCRATCH.with_borrow_mut(|scratch| self.narrow(scratch, strip, top));
        added.expect("parts lie inside images that have a byte for each channel: this is a bug");
    }

    /// Writes the new image, `height * width * channels` bytes, once all rows have come.
    pub(super) fn finish(self, into: &mut [u8]) {
        if self.is_identity {
            into.copy_from_slice(&self.narrowed);
            return;
        }
        let resized = SCRATCH.with_borrow_mut(|scratch| self.shorten(scratch, into));
        resized.expect("all rows have come: this is a bug");
    }

    fn options(&self) -> ResizeOptions {
        ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(self.filter))
            .use_alpha(false)
    }

    fn narrow(
        &mut self,
        scratch: &mut Scratch,
        strip: ImageView<'_>,
        top: u32,
    ) -> Result<(), Box<dyn Error>> {
        let first = self.rows.start.max(top);
        let end = self.rows.end.min(top + strip.height);
        if first >= end {
            return Ok(());
        }
        let line = strip.width as usize * strip.channels as usize;
        let bytes = (first - top) as usize * line..(end - top) as usize * line;
        let pixels = &strip.pixels[bytes];
        if self.is_identity {
            self.narrowed.extend_from_slice(pixels);
            return Ok(());
        }
        let (width, rows) = (strip.width, end - first);
        let mut source = ImageRef::new(width, rows, pixels, self.pixel)?;
        if self.pixel == PixelType::U8x4 {
            scratch.weighed.resize(pixels.len(), 0);
            let mut target = Image::from_slice_u8(width, rows, &mut scratch.weighed, self.pixel)?;
            MulDiv::new().multiply_alpha(&source, &mut target)?;
            source = ImageRef::new(width, rows, &scratch.weighed, self.pixel)?;
        }
        let part = self.target.part;
        let options = self.options();
        let shown = options.crop(part.left, 0.0, part.width, f64::from(rows));
        let known = self.narrowed.len();
        let more = self.target.width as usize * rows as usize * strip.channels as usize;
        self.narrowed.resize(known + more, 0);
        let new = &mut self.narrowed[known..];
        let mut target = Image::from_slice_u8(self.target.width, rows, new, self.pixel)?;
        scratch.resizer.resize(&source, &mut target, &shown)?;
        Ok(())
    }

    fn shorten(mut self, scratch: &mut Scratch, into: &mut [u8]) -> Result<(), Box<dyn Error>> {
        let Target {
            part,
            width,
            height,
        } = self.target;
        let rows = self.rows.len() as u32;
        let options = self.options();
        let source = Image::from_slice_u8(width, rows, &mut self.narrowed, self.pixel)?;
        let mut target = Image::from_slice_u8(width, height, into, self.pixel)?;
        let top = part.top - f64::from(self.rows.start);
        let shown = options.crop(0.0, top, f64::from(width), part.height);
        scratch.resizer.resize(&source, &mut target, &shown)?;
        if self.pixel == PixelType::U8x4 {
            MulDiv::new().divide_alpha_inplace(&mut target)?;
        }
        Ok(())
    }
}
