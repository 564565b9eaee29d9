//! One file with the bytes of all entries of an archive, written within limits.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use super::{
    entry_path::check,
    error::{ArchiveError, broken, refused},
    name_encoding,
};
use crate::{
    data::{codes, file_kind::PARQUET},
    domain::{problem::Problem, work::DatasetLimits},
    ticks::tick,
};

/// Unpacked bytes that are exempt from the ratio, so that small archives of simple files pass.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Bytes of a path, on the average over as many entries as an archive may have.
const NAME_BYTES: u64 = 400;
/// Bytes moved at a time.
pub(super) const CHUNK_BYTES: usize = 1 << 16;

/// The contents of an archive.
#[derive(Debug)]
pub struct Spool {
    /// Every file's bytes, back to back, in the archive's order. The file has no name and is
    /// deleted with this value.
    pub bytes: File,
    /// Sorted by path; no two are the same.
    pub entries: Vec<Entry>,
    /// Warnings about the names.
    pub warnings: Vec<Problem>,
    /// Folders that the archive lists by themselves, without a slash at the end; sorted.
    pub folders: Vec<String>,
}

impl Spool {
    /// A single file without a path.
    pub(super) fn single(bytes: File, size: u64) -> Self {
        let path = String::new();
        let entry = Entry {
            path,
            offset: 0,
            size,
        };
        Self {
            bytes,
            entries: vec![entry],
            warnings: Vec::new(),
            folders: Vec::new(),
        }
    }
}

/// One regular file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, with `/`, without `.` and `..`.
    pub path: String,
    /// Where its bytes start in the spool.
    pub offset: u64,
    pub size: u64,
}

/// Receives entries, enforces the limits, and writes their bytes.
pub(in crate::data) struct Spooler<'a> {
    limits: &'a DatasetLimits,
    /// Bytes that may be written in all because of the ratio.
    pub(super) ratio_bytes: u64,
    packed_bytes: u64,
    out: BufWriter<File>,
    written: u64,
    count: u64,
    name_bytes: u64,
    entries: Vec<Entry>,
    folders: Vec<String>,
    chunk: Vec<u8>,
}

impl<'a> Spooler<'a> {
    pub(in crate::data) fn new(
        limits: &'a DatasetLimits,
        packed_bytes: u64,
        folder: &Path,
    ) -> io::Result<Self> {
        Ok(Self {
            limits,
            ratio_bytes: RATIO_FREE_BYTES.saturating_add(packed_bytes.saturating_mul(limits.ratio)),
            packed_bytes,
            out: BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?),
            written: 0,
            count: 0,
            name_bytes: 0,
            entries: Vec::new(),
            folders: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Counts an entry of any kind and checks its name. `None` when it is ignored.
    pub(in crate::data) fn admit(&mut self, name: &[u8]) -> Result<Option<String>, ArchiveError> {
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(self.too_many());
        }
        self.name_bytes += name.len() as u64;
        if self.name_bytes > self.limits.entries.saturating_mul(NAME_BYTES) {
            return Err(self.long_names());
        }
        if std::str::from_utf8(name).is_err() {
            // All names together tell their encoding.
            return Ok(Some(name_encoding::waiting(name)));
        }
        check(name)
    }

    pub(super) fn max_entries(&self) -> u64 {
        self.limits.entries
    }

    /// The error of an archive with too many entries.
    pub(super) fn too_many(&self) -> ArchiveError {
        let limit = self.limits.entries;
        let message = format!(
            "the archive has more than {limit} entries; split the data set, or leave out what is not needed"
        );
        refused("", codes::ARCHIVE_TOO_LARGE, message)
    }

    /// The error of an archive whose names, which are held in memory, come to too many bytes.
    pub(super) fn long_names(&self) -> ArchiveError {
        let message = format!(
            "the paths in the archive have more than {NAME_BYTES} bytes on the average; shorten them"
        );
        refused("", codes::ARCHIVE_TOO_LARGE, message)
    }

    pub(super) fn folder(&mut self, path: String) {
        if !path.is_empty() {
            self.folders.push(path);
        }
    }

    /// Writes a file, whose size must be the one in the archive's directory.
    pub(in crate::data) fn file(
        &mut self,
        path: String,
        said_bytes: u64,
        content: &mut impl Read,
    ) -> Result<(), ArchiveError> {
        let offset = self.written;
        let mut most = self.limits.entry_bytes;
        loop {
            let count = match content.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&path, error)),
            };
            tick();
            // One image is decoded at a time, and one page of a Parquet file.
            if self.written == offset && self.chunk[..count].starts_with(PARQUET) {
                most = self.limits.unpacked_bytes;
            }
            self.written += count as u64;
            self.check_bytes(&path, self.written - offset, most)?;
            self.out.write_all(&self.chunk[..count])?;
        }
        let size = self.written - offset;
        if size != said_bytes {
            let message = format!(
                "the archive says that this entry has {said_bytes} bytes, but it has {size}; make the archive again"
            );
            return Err(refused(path, codes::CORRUPT_ARCHIVE, message));
        }
        self.entries.push(Entry { path, offset, size });
        Ok(())
    }

    fn check_bytes(
        &self,
        path: &str,
        entry_bytes: u64,
        most_entry: u64,
    ) -> Result<(), ArchiveError> {
        let most = self.limits.unpacked_bytes;
        if entry_bytes > most_entry {
            let message = format!(
                "this entry unpacks to more than {most_entry} bytes; leave it out, or make it smaller"
            );
            return Err(refused(path, codes::ARCHIVE_TOO_LARGE, message));
        }
        if self.written > most {
            let message = format!(
                "the archive unpacks to more than {most} bytes; split the data set, or scale the images down"
            );
            return Err(refused("", codes::ARCHIVE_TOO_LARGE, message));
        }
        if self.written > self.ratio_bytes {
            return Err(self.ratio(path));
        }
        Ok(())
    }

    /// The error of an archive that unpacks to too many times its size.
    pub(super) fn ratio(&self, path: &str) -> ArchiveError {
        let (packed, ratio) = (self.packed_bytes, self.limits.ratio);
        let message = format!(
            "the archive of {packed} bytes unpacks to more than {ratio} times its size, as only an archive made to fill \
             disks does; images hardly shrink: pack them as they are"
        );
        refused(path, codes::ARCHIVE_RATIO, message)
    }

    pub(in crate::data) fn finish(mut self) -> Result<Spool, ArchiveError> {
        self.out.flush()?;
        let warnings = self.decode_names()?;
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let twice = |pair: &&[Entry]| pair[0].path == pair[1].path;
        if let Some(twice) = self.entries.windows(2).find(twice) {
            let message = "the archive holds two files of this path; make it again from a folder";
            return Err(refused(&twice[0].path, codes::DUPLICATE_PATH, message));
        }
        self.folders.sort();
        self.folders.dedup();
        let bytes = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Spool {
            bytes,
            entries: self.entries,
            warnings,
            folders: self.folders,
        })
    }

    /// Decodes the names that are not UTF-8, and checks them as the others were.
    fn decode_names(&mut self) -> Result<Vec<Problem>, ArchiveError> {
        let files = self.entries.iter_mut().map(|entry| &mut entry.path);
        let Some(warning) = name_encoding::decode(files.chain(&mut self.folders))? else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::with_capacity(self.entries.len());
        for mut entry in self.entries.drain(..) {
            if let Some(path) = check(entry.path.as_bytes())? {
                entry.path = path;
                entries.push(entry);
            }
        }
        self.entries = entries;
        let folders = self.folders.iter().map(|folder| check(folder.as_bytes()));
        let folders = folders.filter_map(Result::transpose);
        self.folders = folders.collect::<Result<_, _>>()?;
        Ok(vec![warning])
    }
}
