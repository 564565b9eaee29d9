//! Thumbnails of a data set's images, and the index by which a server finds them
//! (`domain::sample_index`). They are made while an upload is validated, from images that are
//! decoded anyway: the first frame, upright, on white, at most 128 pixels wide and high, as JPEG
//! with nothing of the image's metadata.

use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use image::{ExtendedColorType, ImageFormat, codecs::jpeg::JpegEncoder};
use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{
    batch,
    image::{DecodeError, Target, decode_shrunk},
    pack::Pack,
};
use crate::domain::{
    sample_index::{HASH_BYTES, ImageKind, PATH_BYTES, SampleEntry, THUMBNAIL_SIDE, THUMBNAILS},
    work::DatasetLimits,
};

/// JPEG quality.
const QUALITY: u8 = 75;
/// Bytes that are written to the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A thumbnail in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thumbnail {
    start: u64,
    end: u64,
    hash: [u8; HASH_BYTES],
}

/// The file of thumbnails, which several threads add to. It is deleted unless it is finished.
pub(super) struct Thumbnails {
    inner: Mutex<Inner>,
}

struct Inner {
    out: BufWriter<NamedTempFile>,
    /// Bytes so far.
    bytes: u64,
}

impl Thumbnails {
    /// # Errors
    /// A full or failing disk.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let file = NamedTempFile::new_in(folder)?;
        let inner = Inner {
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            bytes: 0,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Decodes an image, for its width and height, and adds its thumbnail.
    ///
    /// # Errors
    /// A full or failing disk; inside, bytes that are not a usable image.
    pub(super) fn add(
        &self,
        bytes: &[u8],
        max_pixels: u64,
    ) -> io::Result<Result<(u32, u32, Thumbnail), DecodeError>> {
        let small = |size| Target::whole(size, shrunk(size));
        let (size, pixels) = match decode_shrunk(bytes, max_pixels, &small) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error)),
        };
        let jpeg = encode(&pixels, shrunk(size))?;
        let digest: [u8; 32] = Sha256::digest(&jpeg).into();
        let hash = *digest
            .first_chunk()
            .expect("a digest is longer: this is a bug");
        // Whoever panicked was writing; the file is not used then.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.out.write_all(&jpeg)?;
        let start = inner.bytes;
        inner.bytes += jpeg.len() as u64;
        let thumbnail = Thumbnail {
            start,
            end: inner.bytes,
            hash,
        };
        Ok(Ok((size.0, size.1, thumbnail)))
    }

    /// Adds the index of a pack, whose samples have these thumbnails, and gives the file its name
    /// in the folder.
    ///
    /// # Errors
    /// A full or failing disk.
    pub(super) fn finish(
        self,
        pack: &Pack,
        thumbnails: &[Option<Thumbnail>],
        folder: &Path,
    ) -> io::Result<()> {
        let Inner { mut out, bytes } = self
            .inner
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for sample in 0..pack.len() {
            out.write_all(short(pack.path(sample)))?;
        }
        let mut at = bytes;
        for (sample, thumbnail) in thumbnails.iter().enumerate().take(pack.len()) {
            let path = at..at + short(pack.path(sample)).len() as u64;
            at = path.end;
            let (width, height) = pack.size(sample);
            let entry = SampleEntry {
                content: pack.place(sample),
                sha256: pack.sha256(sample),
                thumbnail: thumbnail.map_or(0..0, |one| one.start..one.end),
                thumbnail_hash: thumbnail.map_or([0; HASH_BYTES], |one| one.hash),
                path,
                width,
                height,
                kind: kind_of(pack.bytes(sample)),
            };
            out.write_all(&entry.to_bytes())?;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(folder.join(THUMBNAILS))?;
        Ok(())
    }
}

/// Makes the thumbnails of a pack on `threads` threads.
///
/// # Errors
/// A file that is not a pack; a full or failing disk.
pub fn of_pack(
    input: &Path,
    limits: &DatasetLimits,
    threads: usize,
    folder: &Path,
) -> io::Result<()> {
    let pack = Pack::open(input).map_err(io::Error::other)?;
    let made = Thumbnails::create(folder)?;
    let one = |sample: usize| {
        if sample as u64 >= limits.thumbnails {
            return Ok(None);
        }
        let decoded = made.add(pack.bytes(sample), limits.pixels)?;
        // It could be decoded when the pack was made.
        Ok(decoded.ok().map(|(_, _, thumbnail)| thumbnail))
    };
    let samples = (0..pack.len()).into_par_iter().with_max_len(1);
    let thumbnails: io::Result<Vec<_>> =
        batch::pool(threads).install(|| samples.map(one).collect());
    made.finish(&pack, &thumbnails?, folder)
}

/// The size of a thumbnail: no image is enlarged.
fn shrunk((width, height): (u32, u32)) -> (u32, u32) {
    let scale = f64::from(THUMBNAIL_SIDE) / f64::from(width.max(height));
    if scale >= 1.0 {
        return (width, height);
    }
    let side = |full: u32| ((f64::from(full) * scale).round() as u32).max(1);
    (side(width), side(height))
}

fn encode(rgb: &[u8], (width, height): (u32, u32)) -> io::Result<Vec<u8>> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(jpeg)
}

/// The end of a path that is too long for the index.
fn short(path: &str) -> &[u8] {
    let bytes = path.as_bytes();
    &bytes[bytes.len().saturating_sub(PATH_BYTES as usize)..]
}

fn kind_of(bytes: &[u8]) -> Option<ImageKind> {
    Some(match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => ImageKind::Jpeg,
        ImageFormat::Png => ImageKind::Png,
        ImageFormat::WebP => ImageKind::WebP,
        ImageFormat::Gif => ImageKind::Gif,
        ImageFormat::Bmp => ImageKind::Bmp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_image_is_enlarged_or_loses_a_side() {
        for (size, small) in [
            ((128, 128), (128, 128)),
            ((5, 7), (5, 7)),
            ((1_280, 640), (128, 64)),
            ((640, 1_280), (64, 128)),
            ((10_000, 1), (128, 1)),
            ((129, 129), (128, 128)),
        ] {
            assert_eq!(shrunk(size), small, "{size:?}");
        }
    }

    #[test]
    fn thumbnail_is_a_small_jpeg_without_metadata() {
        let rgb = vec![200; 128 * 96 * 3];
        let jpeg = encode(&rgb, (128, 96)).unwrap();
        let back = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
        assert_eq!((back.width(), back.height()), (128, 96));
        assert!(!jpeg.windows(4).any(|four| four == b"Exif"));
        assert_eq!(kind_of(&jpeg), Some(ImageKind::Jpeg));
    }
}
