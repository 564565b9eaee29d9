//! The index of a data set's samples, by which a server finds a sample's thumbnail and its bytes
//! without reading the pack: one record of fixed size for each sample.
//!
//! A file `thumbnails` has the thumbnails back to back, in no order, then the paths, then the
//! records in the order of the samples. Everything is little endian. A child process writes it, so
//! a reader checks each place against the sizes that it knows.

use std::ops::Range;

/// File name beside the pack.
pub const THUMBNAILS: &str = "thumbnails";
/// Bytes of a record.
pub const RECORD_BYTES: usize = 104;
/// Longest side of a thumbnail in pixels.
pub const THUMBNAIL_SIDE: u32 = 128;
/// Most bytes of a thumbnail: its pixels.
pub const THUMBNAIL_BYTES: u64 = (THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3) as u64;
/// Most bytes of a path.
pub const PATH_BYTES: u64 = 64 << 10;
/// Bytes of the SHA-256 of a thumbnail that are stored.
pub const HASH_BYTES: usize = 16;

/// The format that an image was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
}

impl ImageKind {
    const ALL: [Self; 5] = [Self::Jpeg, Self::Png, Self::WebP, Self::Gif, Self::Bmp];

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
        }
    }
}

/// The record of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleEntry {
    /// Its bytes in the pack.
    pub content: Range<u64>,
    /// SHA-256 of these.
    pub sha256: [u8; 32],
    /// Its thumbnail; empty without one.
    pub thumbnail: Range<u64>,
    /// The first bytes of the SHA-256 of that.
    pub thumbnail_hash: [u8; HASH_BYTES],
    /// Its path in the upload.
    pub path: Range<u64>,
    /// In pixels, upright.
    pub width: u32,
    pub height: u32,
    /// `None` for a format that has no code.
    pub kind: Option<ImageKind>,
}

impl SampleEntry {
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let size = |range: &Range<u64>| (range.end - range.start) as u32;
        let kind = |kind| ImageKind::ALL.iter().position(|&one| one == kind);
        let code = self.kind.and_then(kind).map_or(0, |at| at as u8 + 1);
        let fields: [&[u8]; 10] = [
            &self.content.start.to_le_bytes(),
            &(self.content.end - self.content.start).to_le_bytes(),
            &self.sha256,
            &self.thumbnail.start.to_le_bytes(),
            &size(&self.thumbnail).to_le_bytes(),
            &size(&self.path).to_le_bytes(),
            &self.path.start.to_le_bytes(),
            &self.width.to_le_bytes(),
            &self.height.to_le_bytes(),
            &self.thumbnail_hash,
        ];
        let mut record = [0; RECORD_BYTES];
        let mut at = 0;
        for field in fields {
            record[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        record[at] = code;
        record
    }

    /// The record of a sample of a pack of `pack_bytes`, in a file whose records begin at
    /// `records`. `None`: it points outside of them.
    pub fn read(record: &[u8; RECORD_BYTES], pack_bytes: u64, records: u64) -> Option<Self> {
        let mut rest = &record[..];
        let content = place(number(&mut rest)?, number(&mut rest)?, pack_bytes)?;
        let sha256 = take(&mut rest)?;
        let start = number(&mut rest)?;
        let size = small(&mut rest)?;
        let path_size = small(&mut rest)?;
        let entry = Self {
            content,
            sha256,
            thumbnail: place(start, size.into(), records)?,
            path: place(number(&mut rest)?, path_size.into(), records)?,
            width: small(&mut rest)?,
            height: small(&mut rest)?,
            thumbnail_hash: take(&mut rest)?,
            kind: rest
                .first()
                .and_then(|code| ImageKind::ALL.get(usize::from(*code).checked_sub(1)?))
                .copied(),
        };
        let fits = u64::from(size) <= THUMBNAIL_BYTES && u64::from(path_size) <= PATH_BYTES;
        fits.then_some(entry)
    }
}

/// The place of `size` bytes, if they end before `end`.
fn place(start: u64, size: u64, end: u64) -> Option<Range<u64>> {
    let range = start..start.checked_add(size)?;
    (range.end <= end).then_some(range)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn small(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> SampleEntry {
        SampleEntry {
            content: 1_000..6_000_000_000,
            sha256: [7; 32],
            thumbnail: 5_000_000_000..5_000_002_800,
            thumbnail_hash: [9; HASH_BYTES],
            path: 40..55,
            width: 640,
            height: 480,
            kind: Some(ImageKind::WebP),
        }
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        for kind in [None, Some(ImageKind::Jpeg), Some(ImageKind::Bmp)] {
            let entry = SampleEntry { kind, ..entry() };
            let read = SampleEntry::read(&entry.to_bytes(), 6_000_000_000, 5_000_002_800);
            assert_eq!(read, Some(entry));
        }
    }

    #[test]
    fn record_that_points_outside_is_refused() {
        let record = entry().to_bytes();
        assert_eq!(SampleEntry::read(&record, 5_999_999_999, u64::MAX), None);
        assert_eq!(SampleEntry::read(&record, u64::MAX, 5_000_002_799), None);
        let large = SampleEntry {
            thumbnail: 0..THUMBNAIL_BYTES + 1,
            ..entry()
        };
        assert_eq!(
            SampleEntry::read(&large.to_bytes(), u64::MAX, u64::MAX),
            None
        );
        let mut record = entry().to_bytes();
        record[..16].fill(0xff);
        assert_eq!(SampleEntry::read(&record, u64::MAX, u64::MAX), None);
        assert_eq!(
            SampleEntry::read(&[0xff; RECORD_BYTES], u64::MAX, u64::MAX),
            None
        );
    }
}
