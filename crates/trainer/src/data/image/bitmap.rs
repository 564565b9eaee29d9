//! Decoded images.

/// An image of 8-bit channels, upright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    pub width: u32,
    pub height: u32,
    /// 1, 3 or 4, as in a `Preprocessing`.
    pub channels: u32,
    /// `height * width * channels` bytes, row by row.
    pub pixels: Vec<u8>,
}

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
