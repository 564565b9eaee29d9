//! Zip archives, read by their central directory.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

use ::zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    directory::{self, DirectoryError},
    entry_path::shown,
    error::{ArchiveError, broken, refused},
    spool::{CHUNK_BYTES, Spooler},
};
use crate::data::codes;

/// The kind of file in a Unix mode.
const FILE_KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Reads all entries into the spooler.
pub(super) fn read(file: File, spooler: &mut Spooler) -> Result<(), ArchiveError> {
    let unreadable = |error| damaged("", error);
    let file = BufReader::with_capacity(CHUNK_BYTES, file);
    let opened = directory::open(file, spooler.max_entries());
    let mut archive = opened.map_err(|error| match error {
        DirectoryError::TooManyEntries => spooler.too_many(),
        DirectoryError::TooLong => spooler.long_names(),
        DirectoryError::Unreadable(error) => unreadable(error),
    })?;
    // Overlapping entries make a small zip unpack to petabytes; duplicate names make two readers
    // see different files.
    if archive.has_overlapping_entries().map_err(unreadable)? {
        let message = "entries of the archive overlap; make it again with an ordinary zip program";
        return Err(refused("", codes::CORRUPT_ARCHIVE, message));
    }
    if archive.has_duplicate_names() {
        let start = archive.central_directory_start();
        let mut file = archive.into_inner();
        check_repeated(&mut file, start)?;
        archive = ZipArchive::new(file).map_err(unreadable)?;
    }
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(unreadable)?;
        let name = entry.name_raw().to_vec();
        let Some(path) = spooler.admit(&name)? else {
            continue;
        };
        check_kind(&path, &entry)?;
        // A backslash may be the second half of a character.
        let is_utf8 = std::str::from_utf8(&name).is_ok();
        if name.ends_with(b"/") || (is_utf8 && entry.is_dir()) {
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

/// Looks for the names that the directory at `start` has more than once, of which the reader shows
/// one. A folder may be listed twice.
///
/// # Errors
/// Two files have one path.
fn check_repeated(file: &mut (impl Read + Seek), start: u64) -> Result<(), ArchiveError> {
    const HEADER: &[u8; 4] = b"PK\x01\x02";
    file.seek(SeekFrom::Start(start))?;
    let mut seen = BTreeSet::new();
    let mut header = [0; 46];
    while file.read_exact(&mut header).is_ok() && header.starts_with(HEADER) {
        let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let mut name = vec![0; usize::from(length(28))];
        file.read_exact(&mut name)
            .map_err(|error| broken("", error))?;
        let skipped = i64::from(length(30)) + i64::from(length(32));
        file.seek(SeekFrom::Current(skipped))?;
        let is_folder = name.ends_with(b"/") || name.ends_with(b"\\");
        let shown = shown(&name);
        if !seen.insert(name) && !is_folder {
            let message = "the archive holds two files of this path; make it again from a folder";
            return Err(refused(shown, codes::DUPLICATE_PATH, message));
        }
    }
    file.rewind()?;
    Ok(())
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
