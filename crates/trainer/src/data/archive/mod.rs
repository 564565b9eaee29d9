//! Entries of a zip or tar, within limits, into one spool file.
//!
//! No entry becomes a file of its own: all bytes go back to back into one anonymous file, so that
//! no path can escape and no link is followed. Names are checked nevertheless, and one unsafe entry
//! refuses the whole upload, which is then not a data set but an attack. Limits count bytes that
//! were written, never a header's claims.

pub(crate) mod directory;
pub(super) mod entry_path;
mod error;
mod metered;
mod name_encoding;
mod spool;
mod tar;
mod zip;

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

pub(super) use self::spool::Spooler;
pub use self::{
    error::ArchiveError,
    spool::{Entry, Spool},
};
use self::{error::refused, spool::CHUNK_BYTES};
use super::{
    codes,
    file_kind::{FileKind, PARQUET},
};
use crate::domain::work::DatasetLimits;

/// Unpacks `input`, whose format is told by its first bytes, into an anonymous file in `folder`. A
/// Parquet file is its own spool.
///
/// # Errors
/// Not an archive, an unsafe entry, an exceeded limit, or a failing disk.
pub fn unpack(input: &Path, limits: &DatasetLimits, folder: &Path) -> Result<Spool, ArchiveError> {
    let file = File::open(input)?;
    let packed_bytes = file.metadata()?.len();
    let mut start = Vec::new();
    file.take(tar::BLOCK_BYTES).read_to_end(&mut start)?;
    let file = File::open(input)?;
    if start.starts_with(PARQUET) {
        return Ok(Spool::single(file, packed_bytes));
    }
    let mut spooler = Spooler::new(limits, packed_bytes, folder)?;
    match &start[..] {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => zip::read(file, &mut spooler)?,
        [0x1f, 0x8b, ..] => {
            let file = BufReader::with_capacity(CHUNK_BYTES, file);
            tar::read(flate2::bufread::MultiGzDecoder::new(file), &mut spooler)?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => tar::read(zstd::Decoder::new(file)?, &mut spooler)?,
        block if tar::is_header(block) => {
            tar::read(BufReader::with_capacity(CHUNK_BYTES, file), &mut spooler)?
        }
        other => return Err(not_an_archive(other)),
    }
    spooler.finish()
}

fn not_an_archive(start: &[u8]) -> ArchiveError {
    let what = match (start, FileKind::of(start)) {
        ([], _) => "the file is empty".to_owned(),
        (_, Some(kind)) => kind.to_string(),
        ([0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', ..], _) => {
            "this is a single image".to_owned()
        }
        _ => "this is not an archive".to_owned(),
    };
    let message = format!(
        "{what}; a data set is a zip, tar, tar.gz or tar.zst with a folder of images per class, or a Parquet \
         file: `zip -r data.zip cats dogs` makes one"
    );
    refused("", codes::NOT_AN_ARCHIVE, message)
}
