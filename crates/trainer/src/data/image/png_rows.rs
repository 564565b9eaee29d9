//! PNGs row by row: of a drawing of a hundred megapixels, a strip is in memory at a time.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, Decoder, Limits, Reader, Transformations};

use super::bitmap::Bitmap;

/// Pixels of a strip in bytes, at least one row: in a core's own cache they stay until they have
/// been resized.
const STRIP_BYTES: usize = 256 << 10;

/// A PNG whose rows lie in their order and have 8 bits a channel.
pub(super) struct PngRows<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    /// 1 to 4; of 2, the second is alpha.
    channels: u32,
}

impl<'a> PngRows<'a> {
    /// `None` for everything else, which is then read as a whole: other formats, interlaced or
    /// rotated images, 16 bits a channel, too many pixels, damage. Beside the strip, the decoder
    /// allocates `max_bytes` at most.
    pub(super) fn open(bytes: &'a [u8], max_pixels: u64, max_bytes: u64) -> Option<Self> {
        if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return None;
        }
        let limits = Limits {
            bytes: max_bytes as usize,
        };
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_transformations(Transformations::EXPAND);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let reader = decoder.read_info().ok()?;
        let info = reader.info();
        let pixels = u64::from(info.width) * u64::from(info.height);
        let exif = info.exif_metadata.as_deref();
        let orientation = exif.and_then(Orientation::from_exif_chunk);
        let is_upright = orientation.is_none_or(|found| found == Orientation::NoTransforms);
        let is_plain = pixels <= max_pixels && !info.interlaced && is_upright;
        let channels = match reader.output_color_type() {
            (ColorType::Grayscale, BitDepth::Eight) => 1,
            (ColorType::GrayscaleAlpha, BitDepth::Eight) => 2,
            (ColorType::Rgb, BitDepth::Eight) => 3,
            (ColorType::Rgba, BitDepth::Eight) => 4,
            _ => return None,
        };
        is_plain.then_some(Self { reader, channels })
    }

    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        self.reader.info().size()
    }

    /// Channels of the strips.
    pub(super) fn channels(&self) -> u32 {
        match self.channels {
            2 => 4,
            channels => channels,
        }
    }

    /// Hands over strips of the image in 1, 3 or 4 channels, each with the number of its first row,
    /// and takes their memory back. `None` if the image is damaged.
    pub(super) fn read(mut self, mut take: impl FnMut(u32, Bitmap) -> Vec<u8>) -> Option<()> {
        let (width, height) = self.size();
        let line = self.reader.output_line_size(width)?;
        let most = (STRIP_BYTES / line.max(1)).max(1);
        let mut pixels = Vec::new();
        for top in (0..height).step_by(most) {
            let rows = most.min((height - top) as usize);
            pixels.resize(rows * line, 0);
            for row in pixels.chunks_exact_mut(line) {
                self.reader.read_row(row).ok()??;
            }
            let (channels, strip) = match self.channels {
                2 => (4, with_colors(&pixels)),
                channels => (channels, pixels),
            };
            let strip = Bitmap {
                width,
                height: rows as u32,
                channels,
                pixels: strip,
            };
            pixels = take(top, strip);
        }
        self.reader.finish().ok()
    }
}

/// Gray and alpha as colors and alpha.
fn with_colors(gray: &[u8]) -> Vec<u8> {
    let (gray, _) = gray.as_chunks::<2>();
    gray.iter().flat_map(|&[y, a]| [y, y, y, a]).collect()
}
