//! Encoded images to 8-bit pixels, and these to the square that a network takes.
//!
//! Every format is decoded to its first frame, upright by its EXIF orientation, at 8 bits, in the
//! requested channels: gray (ITU-R 601, as Pillow's `L`), red, green and blue, or these and alpha
//! (255 where the format has none). When alpha is dropped, transparent pixels are drawn on white.
//! Whoever wants sizes gets them in the same pass; most PNGs are then never whole in memory.
//! The decoders are safe Rust, but panics and large allocations on crafted files have been found in
//! all of them: the pixel limit is checked before anything is allocated, panics are caught, text
//! chunks are never asked for.

mod bitmap;
mod png_rows;
mod resize;

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, Limits, RgbImage, RgbaImage,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

pub(super) use self::resize::resize;
pub use self::{
    bitmap::{Bitmap, ImageView},
    resize::{Part, Target, shrunk_size},
};
use self::{png_rows::PngRows, resize::Resize};
use super::{codes, file_kind::FileKind};
use crate::{
    domain::{
        base_model::{Interpolation, Preprocessing},
        problem::Code,
    },
    ticks::tick,
};

/// Bytes a decoder may allocate beside its pixels: color profiles, tables, text that is skipped.
const DECODER_BYTES: u64 = 64 << 20;
/// Bytes a decoder may allocate for each pixel: 16-bit RGBA, twice.
const PIXEL_BYTES: u64 = 16;

/// No camera writes such a JPEG.
const COARSE_LUMA: &str =
    "its luma is coarser than its chroma, which is not read here; save it again as JPEG or PNG";
/// Xcode rewrites the PNGs of an app into a form that only Apple's systems read.
const IOS_PNG: &str = "it is a PNG that Xcode optimized for iOS (CgBI); take the original, or convert it with `pngcrush -revert-iphone-optimizations`";

/// Why bytes are not an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not an image that can be read here; JPEG, PNG, WebP, GIF and BMP can")]
    NotAnImage,
    #[error("the file is empty; replace it")]
    Empty,
    #[error("{0}")]
    OfAnotherKind(FileKind),
    #[error(
        "the image has {width} x {height} pixels, more than {max_pixels} in all; scale it down"
    )]
    TooManyPixels {
        width: u64,
        height: u64,
        max_pixels: u64,
    },
    #[error("the image ends too early: its file was cut off")]
    Truncated,
    #[error("the image cannot be decoded: {0}")]
    Unreadable(String),
}

impl DecodeError {
    /// The code of this problem in a report.
    pub fn code(&self) -> Code {
        match self {
            Self::NotAnImage | Self::Empty | Self::OfAnotherKind(_) => codes::NOT_AN_IMAGE,
            Self::TooManyPixels { .. } => codes::TOO_MANY_PIXELS,
            Self::Truncated => codes::TRUNCATED_IMAGE,
            Self::Unreadable(_) => codes::UNREADABLE_IMAGE,
        }
    }
}

impl From<ImageError> for DecodeError {
    fn from(error: ImageError) -> Self {
        match &error {
            ImageError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::Truncated
            }
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// A decoded image in the sizes asked for.
#[derive(Debug)]
pub struct Resized {
    /// The image's own, in pixels.
    pub width: u32,
    pub height: u32,
    /// For each target, `height * width * channels` bytes, row by row.
    pub images: Vec<Vec<u8>>,
}

/// Decodes JPEG, PNG, WebP, GIF (first frame) or BMP, told by content, to 1, 3 or 4 channels, and
/// resizes it to the `targets` of its width and height. Without targets, this only checks it.
///
/// # Errors
/// Bytes that are not a usable image. Nothing is allocated for more than `max_pixels` (width times
/// height).
pub fn decode_resized(
    bytes: &[u8],
    max_pixels: u64,
    (channels, interpolation): (u32, Interpolation),
    targets: &dyn Fn((u32, u32)) -> Vec<Target>,
) -> Result<Resized, DecodeError> {
    let wanted = (Some(channels), interpolation);
    let ((width, height), resizes) = read_resized(bytes, max_pixels, wanted, targets)?;
    let finish = |(target, resize): (Target, Resize)| finished(target, resize, channels);
    Ok(Resized {
        width,
        height,
        images: resizes.into_iter().map(finish).collect(),
    })
}

/// Decodes an image, for its width and height, and shrinks it to the `target` of these: colors on
/// white, `height * width * 3` bytes. It is shrunk in its own channels, since white behind the few
/// pixels that are left is cheaper than behind all of them.
///
/// # Errors
/// As `decode_resized`.
pub fn decode_shrunk(
    bytes: &[u8],
    max_pixels: u64,
    target: &dyn Fn((u32, u32)) -> Target,
) -> Result<((u32, u32), Vec<u8>), DecodeError> {
    let own = (None, Interpolation::Bilinear);
    let (size, resizes) = read_resized(bytes, max_pixels, own, &|size| vec![target(size)])?;
    let finish = |(target, resize): (Target, Resize)| {
        let channels = resize.channels();
        let shrunk = Bitmap {
            width: target.width,
            height: target.height,
            channels,
            pixels: finished(target, resize, channels),
        };
        in_channels(shrunk, 3).pixels
    };
    let images = resizes.into_iter().map(finish);
    Ok((size, images.flatten().collect()))
}

/// The pixels of a resize that has got its whole image.
fn finished(target: Target, resize: Resize, channels: u32) -> Vec<u8> {
    let mut image = vec![0; target.width as usize * target.height as usize * channels as usize];
    resize.finish(&mut image);
    image
}

/// Width and height of an image, and its resizes.
type Read = ((u32, u32), Vec<(Target, Resize)>);

/// Decodes an image into resizes, in a number of channels, or in its own.
fn read_resized(
    bytes: &[u8],
    max_pixels: u64,
    (wanted, interpolation): (Option<u32>, Interpolation),
    targets: &dyn Fn((u32, u32)) -> Vec<Target>,
) -> Result<Read, DecodeError> {
    tick();
    let resizes = |size: (u32, u32), channels: u32| -> Vec<(Target, Resize)> {
        let targets = targets(size).into_iter();
        targets
            .map(|target| (target, Resize::new(size, channels, target, interpolation)))
            .collect()
    };
    // A decoder keeps no state between images, so that a panic leaves nothing inconsistent.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        if let Some(rows) = PngRows::open(bytes, max_pixels, DECODER_BYTES) {
            let (size, channels) = (rows.size(), wanted.unwrap_or(rows.channels()));
            let mut resizes = resizes(size, channels);
            let read = rows.read(|top, strip| {
                if resizes.is_empty() {
                    return strip.pixels;
                }
                let strip = in_channels(strip, channels);
                for (_, resize) in &mut resizes {
                    resize.add(strip.as_view(), top);
                }
                strip.pixels
            });
            if read.is_some() {
                return Ok((size, resizes));
            }
        }
        let decoded = decode_format(bytes, max_pixels)?;
        let channels = wanted.unwrap_or(decoded.0.channels);
        let image = upright(decoded, channels);
        let size = (image.width, image.height);
        let mut resizes = resizes(size, channels);
        for (_, resize) in &mut resizes {
            resize.add(image.as_view(), 0);
        }
        Ok((size, resizes))
    }));
    let panicked = || DecodeError::Unreadable("the decoder gave up on it".to_owned());
    decoded.unwrap_or_else(|_| Err(panicked()))
}

/// Decodes an image and keeps all of its pixels; see `decode_resized`.
///
/// # Errors
/// As `decode_resized`.
pub fn decode(bytes: &[u8], max_pixels: u64, channels: u32) -> Result<Bitmap, DecodeError> {
    let itself = |size| vec![Target::whole(size, size)];
    let form = (channels, Interpolation::Bilinear);
    let decoded = decode_resized(bytes, max_pixels, form, &itself)?;
    Ok(Bitmap {
        width: decoded.width,
        height: decoded.height,
        channels,
        pixels: decoded.images.concat(),
    })
}

/// Decodes an image, then resizes and crops it as timm does at evaluation: `square_bytes` bytes,
/// row by row.
///
/// # Errors
/// As `decode_resized`.
pub fn preprocess(
    bytes: &[u8],
    max_pixels: u64,
    preprocessing: &Preprocessing,
) -> Result<Vec<u8>, DecodeError> {
    let square = |size| vec![Target::square(size, preprocessing)];
    let form = (preprocessing.channels, preprocessing.interpolation);
    let decoded = decode_resized(bytes, max_pixels, form, &square)?;
    Ok(decoded.images.concat())
}

/// A decoded image in the channels of its format, with its orientation.
type Decoded = (Bitmap, Orientation);

fn decode_format(bytes: &[u8], max_pixels: u64) -> Result<Decoded, DecodeError> {
    let no_image = || match FileKind::of(bytes) {
        _ if bytes.is_empty() => DecodeError::Empty,
        Some(kind) => DecodeError::OfAnotherKind(kind),
        None => DecodeError::NotAnImage,
    };
    let format = image::guess_format(bytes).map_err(|_| no_image())?;
    match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, max_pixels),
        ImageFormat::Png => {
            if bytes.get(12..16) == Some(b"CgBI") {
                return Err(DecodeError::Unreadable(IOS_PNG.to_owned()));
            }
            // Color profiles are unpacked before the decoder tells a size, so that the image's own
            // pixels limit them, not the most that any image may have.
            let pixels = png_pixels(bytes, max_pixels)?;
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits(pixels))?;
            decode_with(decoder, max_pixels)
        }
        ImageFormat::WebP => {
            let bytes = whole_chunks(bytes)?;
            decode_with(WebPDecoder::new(Cursor::new(bytes))?, max_pixels)
        }
        ImageFormat::Gif => decode_with(GifDecoder::new(Cursor::new(bytes))?, max_pixels),
        ImageFormat::Bmp => decode_with(BmpDecoder::new(Cursor::new(bytes))?, max_pixels),
        _ => Err(no_image()),
    }
}

fn limits(pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(
        pixels
            .saturating_mul(PIXEL_BYTES)
            .saturating_add(DECODER_BYTES),
    );
    limits
}

/// The number of pixels.
fn check_pixels(width: u64, height: u64, max_pixels: u64) -> Result<u64, DecodeError> {
    match width.checked_mul(height) {
        Some(0) => Err(DecodeError::Unreadable("it has no pixels".to_owned())),
        Some(pixels) if pixels <= max_pixels => Ok(pixels),
        _ => Err(DecodeError::TooManyPixels {
            width,
            height,
            max_pixels,
        }),
    }
}

/// The number of pixels by the first chunk: the decoder's own error for the widest images is
/// unclear.
fn png_pixels(bytes: &[u8], max_pixels: u64) -> Result<u64, DecodeError> {
    let side = |at: usize| {
        let digits = bytes.get(at..).and_then(|rest| rest.first_chunk());
        digits
            .map(|&digits| u64::from(u32::from_be_bytes(digits)))
            .ok_or(DecodeError::Truncated)
    };
    check_pixels(side(16)?, side(20)?, max_pixels)
}

/// An extended WebP without what lies behind it, if its chunks lie within it: for metadata the
/// decoder allocates whatever size they claim (WebP Container Specification, RIFF file format).
fn whole_chunks(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.get(12..16) != Some(b"VP8X") {
        return Ok(bytes);
    }
    let size = |bytes: &[u8], at: usize| {
        let digits = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*digits) as usize)
    };
    let end = size(bytes, 4).map_or(0, |size| 8 + size);
    let bytes = &bytes[..end.min(bytes.len())];
    let mut at = 12;
    while let Some(size) = size(bytes, at + 4) {
        let end = at + 8 + size;
        if end > bytes.len() {
            return Err(DecodeError::Truncated);
        }
        // Chunks begin at even places.
        at = end + size % 2;
    }
    Ok(bytes)
}

fn decode_jpeg(bytes: &[u8], max_pixels: u64) -> Result<Decoded, DecodeError> {
    let unreadable = |error: zune_jpeg::errors::DecodeErrors| {
        if is_cut_off(bytes) {
            DecodeError::Truncated
        } else {
            DecodeError::Unreadable(error.to_string())
        }
    };
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(unreadable)?;
    let (width, height) = decoder
        .dimensions()
        .expect("the headers are decoded: this is a bug");
    check_pixels(width as u64, height as u64, max_pixels)?;
    if has_coarse_luma(bytes) {
        return Err(DecodeError::Unreadable(COARSE_LUMA.to_owned()));
    }
    // The decoder fills missing parts with gray without an error.
    if is_cut_off(bytes) {
        return Err(DecodeError::Truncated);
    }
    let is_gray = matches!(decoder.input_colorspace(), Some(ColorSpace::Luma));
    let (channels, colors) = if is_gray {
        (1, ColorSpace::Luma)
    } else {
        (3, ColorSpace::RGB)
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colors));
    let mut pixels = vec![0; width * height * channels];
    decoder.decode_into(&mut pixels).map_err(unreadable)?;
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif));
    let bitmap = Bitmap {
        width: width as u32,
        height: height as u32,
        channels: channels as u32,
        pixels,
    };
    Ok((bitmap, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// True when a JPEG has fewer samples of its first component, the luma, than of another, which the
/// decoder takes for noise (ITU T.81, B.2.2).
fn has_coarse_luma(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == 0xff {
            at += 1;
            continue;
        }
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        match marker {
            0xda => return false,
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf => {
                // Precision, height, width and the number of components come first.
                let components = bytes.get(at + 10..end).unwrap_or_default();
                let factors = components
                    .chunks_exact(3)
                    .map(|component| (component[1] >> 4, component[1] & 15));
                let Some((wide, high)) = factors.clone().next() else {
                    return false;
                };
                return factors.clone().any(|(h, v)| h > wide || v > high);
            }
            _ => {}
        }
        at = end;
    }
    false
}

/// True when a JPEG ends before its end-of-image marker. Bytes behind that marker say nothing:
/// motion photos have a film there, and makers their own data.
fn is_cut_off(bytes: &[u8]) -> bool {
    // Where nothing lies behind the end, it is found at once: in scan data, `ff` is never followed
    // by `d9` (ITU T.81, B.1.1.5), and thumbnails lie before the first scan.
    let end = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    let behind = end.map(|end| &bytes[end..]);
    let is_last = |behind: &[u8]| !behind.windows(2).any(|pair| pair == [0xff, 0xda]);
    !behind.is_some_and(is_last) && !has_end(bytes)
}

/// True when the end-of-image marker follows from segment to segment and scan to scan (ITU T.81,
/// B.1.1.2 and B.2.1).
fn has_end(bytes: &[u8]) -> bool {
    // The marker of the start of the image has no segment.
    let mut at = 2;
    loop {
        let Some(found) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|&byte| byte == 0xff))
        else {
            return false;
        };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // A segment with its length, such as a table or the head of a scan.
            Some(0xc0..=0xcf | 0xda..=0xfe) => {
                let Some(length) = bytes.get(at + 1..at + 3) else {
                    return false;
                };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
            // A fill byte may begin a marker itself.
            Some(0xff) => {}
            // A byte of a scan (`ff 00`), or a marker without a segment.
            Some(_) => at += 1,
        }
    }
}

fn decode_with(mut decoder: impl ImageDecoder, max_pixels: u64) -> Result<Decoded, DecodeError> {
    let (width, height) = decoder.dimensions();
    let pixels = check_pixels(width.into(), height.into(), max_pixels)?;
    decoder.set_limits(limits(pixels))?;
    let orientation = decoder.orientation()?;
    let (channels, pixels) = match DynamicImage::from_decoder(decoder)? {
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        image if image.color().has_alpha() => (4, image.into_rgba8().into_raw()),
        image => (3, image.into_rgb8().into_raw()),
    };
    let bitmap = Bitmap {
        width,
        height,
        channels,
        pixels,
    };
    Ok((bitmap, orientation))
}

/// The same image in another number of channels.
fn in_channels(bitmap: Bitmap, channels: u32) -> Bitmap {
    let pixels = match (bitmap.channels, channels) {
        (found, wanted) if found == wanted => return bitmap,
        (1, 3) => gray_to_rgb(&bitmap.pixels),
        (1, _) => opaque(&gray_to_rgb(&bitmap.pixels)),
        (4, 3) => on_white(bitmap.pixels),
        (4, _) => gray(&on_white(bitmap.pixels)),
        (_, 4) => opaque(&bitmap.pixels),
        (..) => gray(&bitmap.pixels),
    };
    Bitmap {
        channels,
        pixels,
        ..bitmap
    }
}

/// ITU-R 601 in Pillow's integer arithmetic: gray stays unchanged.
fn gray(rgb: &[u8]) -> Vec<u8> {
    let (rgb, _) = rgb.as_chunks::<3>();
    let pixels = rgb.iter().map(|pixel| {
        let [red, green, blue] = pixel.map(u32::from);
        ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
    });
    pixels.collect()
}

fn opaque(rgb: &[u8]) -> Vec<u8> {
    let (rgb, _) = rgb.as_chunks::<3>();
    rgb.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect()
}

/// RGBA over white, as RGB in the same memory: a large image has no room for both.
fn on_white(mut pixels: Vec<u8>) -> Vec<u8> {
    let over = |color: u8, alpha: u8| {
        let (color, alpha) = (u32::from(color), u32::from(alpha));
        ((color * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let count = pixels.len() / 4;
    for place in 0..count {
        let Some(&[r, g, b, alpha]) = pixels[4 * place..].first_chunk() else {
            break;
        };
        // Most pixels of drawings are opaque or not there.
        let color = match alpha {
            255 => [r, g, b],
            0 => [255; 3],
            _ => [over(r, alpha), over(g, alpha), over(b, alpha)],
        };
        if let Some(to) = pixels[3 * place..].first_chunk_mut() {
            *to = color;
        }
    }
    pixels.truncate(3 * count);
    pixels
}

fn gray_to_rgb(gray: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; gray.len() * 3];
    for (to, &gray) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(gray) {
        *to = [gray; 3];
    }
    rgb
}

/// The decoded image, in this number of channels and upright.
fn upright((bitmap, orientation): Decoded, channels: u32) -> Bitmap {
    let bitmap = in_channels(bitmap, channels);
    if orientation == Orientation::NoTransforms {
        return bitmap;
    }
    let (width, height, pixels) = (bitmap.width, bitmap.height, bitmap.pixels);
    let image = match channels {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
        4 => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
    };
    let mut image = image.expect("the size is the image's: this is a bug");
    image.apply_orientation(orientation);
    Bitmap {
        width: image.width(),
        height: image.height(),
        channels,
        pixels: image.into_bytes(),
    }
}

#[cfg(test)]
mod tests;
