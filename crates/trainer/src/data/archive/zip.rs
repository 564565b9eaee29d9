//! Zip archives, read by their central directory.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

use ::zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    entry_path::shown,
    error::{ArchiveError, broken, refused},
    spool::{CHUNK_BYTES, Spooler},
};
use crate::data::codes;

/// Bytes at the end that hold the end of the central directory: its record, and a comment of at
/// most 64 KiB.
const TAIL_BYTES: u64 = 22 + (1 << 16) + 20 + 56;
/// The kind of file in a Unix mode.
const FILE_KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Reads all entries into the spooler.
pub(super) fn read(mut file: File, spooler: &mut Spooler) -> Result<(), ArchiveError> {
    spooler.check_count(said_count(&mut file)?)?;
    let unreadable = |error| damaged("", error);
    let file = BufReader::with_capacity(CHUNK_BYTES, file);
    let mut archive = ZipArchive::new(file).map_err(unreadable)?;
    // Overlapping entries make a small zip unpack to petabytes; duplicate names make two readers
    // see different files.
    if archive.has_overlapping_entries().map_err(unreadable)? {
        let message = "entries of the archive overlap; make it again with an ordinary zip program";
        return Err(refused("", codes::CORRUPT_ARCHIVE, message));
    }
    if archive.has_duplicate_names() {
        let message = "the archive holds two files of one path; make it again from a folder";
        return Err(refused("", codes::DUPLICATE_PATH, message));
    }
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(unreadable)?;
        let name = name_bytes(&entry)?;
        let Some(path) = spooler.admit(&name)? else {
            continue;
        };
        check_kind(&path, &entry)?;
        if entry.is_dir() {
            spooler.folder(path);
            continue;
        }
        let said_bytes = entry.size();
        drop(entry);
        let mut content = archive
            .by_index(index)
            .map_err(|error| damaged(&path, error))?;
        spooler.file(path, said_bytes, &mut content)?;
    }
    Ok(())
}

fn check_kind<R: Read>(
    path: &str,
    entry: &::zip::read::ZipFile<'_, R>,
) -> Result<(), ArchiveError> {
    // Some programs omit the kind.
    let kind = entry.unix_mode().unwrap_or(0) & FILE_KIND;
    if !matches!(kind, 0 | REGULAR | FOLDER) {
        let message = "this entry is a link or a special file, so nothing of this archive is used; pack plain files and folders";
        return Err(refused(path, codes::UNSAFE_ENTRY, message));
    }
    if entry.encrypted() {
        let message = "this entry is encrypted; make the archive without a password";
        return Err(refused(path, codes::ENCRYPTED_ARCHIVE, message));
    }
    let known = [CompressionMethod::Stored, CompressionMethod::Deflated];
    if !known.contains(&entry.compression()) {
        return Err(unsupported(path));
    }
    Ok(())
}

/// A name in UTF-8: as it is where it is UTF-8 already, else by the old DOS code page.
fn name_bytes<R: Read>(entry: &::zip::read::ZipFile<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let raw = entry.name_raw();
    if std::str::from_utf8(raw).is_ok() {
        return Ok(raw.to_vec());
    }
    let name = entry.name().map_err(|error| damaged(&shown(raw), error))?;
    Ok(name.into_owned().into_bytes())
}

fn unsupported(path: &str) -> ArchiveError {
    let message = "this entry is compressed by a method other than deflate; make the archive with an ordinary zip program";
    refused(path, codes::UNSUPPORTED_COMPRESSION, message)
}

fn damaged(path: &str, error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) => broken(path, error),
        ZipError::CompressionMethodNotSupported(_) => unsupported(path),
        other => broken(path, std::io::Error::other(other.to_string())),
    }
}

/// The number of entries according to the end records, the largest where they differ. Read before
/// the directory is loaded into memory; the entries themselves are counted again.
fn said_count(file: &mut File) -> std::io::Result<u64> {
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    file.rewind()?;
    let number = |at: usize, bytes: usize| {
        let digits = tail.get(at..at + bytes).unwrap_or_default();
        digits
            .iter()
            .rev()
            .fold(0_u64, |number, &digit| number << 8 | u64::from(digit))
    };
    let counts = tail.windows(4).enumerate().map(|(at, magic)| match magic {
        // The end record, where 0xffff stands for "see the zip64 record".
        b"PK\x05\x06" => [number(at + 8, 2), number(at + 10, 2)]
            .into_iter()
            .filter(|&count| count != 0xffff)
            .max()
            .unwrap_or(0),
        b"PK\x06\x06" => number(at + 24, 8).max(number(at + 32, 8)),
        _ => 0,
    });
    Ok(counts.max().unwrap_or(0))
}
