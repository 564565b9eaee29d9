//! One file with the bytes of all entries of an archive, written within limits.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use super::{
    entry_path::check,
    error::{ArchiveError, broken, refused},
};
use crate::{data::codes, domain::work::DatasetLimits};

/// Unpacked bytes that are exempt from the ratio, so that small archives of simple files pass.
const RATIO_FREE_BYTES: u64 = 1 << 20;
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
    /// Folders that the archive lists by themselves, without a slash at the end; sorted.
    pub folders: Vec<String>,
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

/// Reads until the buffer is full or the input ends; returns the number of bytes.
pub(super) fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut known = 0;
    while known < buffer.len() {
        match input.read(&mut buffer[known..]) {
            Ok(0) => break,
            Ok(count) => known += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// Receives entries, enforces the limits, and writes their bytes.
pub(super) struct Spooler<'a> {
    pub(super) limits: &'a DatasetLimits,
    /// Bytes that may be written in all because of the ratio.
    pub(super) ratio_bytes: u64,
    packed_bytes: u64,
    out: BufWriter<File>,
    written: u64,
    count: u64,
    entries: Vec<Entry>,
    folders: Vec<String>,
    chunk: Vec<u8>,
}

impl<'a> Spooler<'a> {
    pub(super) fn new(
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
            entries: Vec::new(),
            folders: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Counts an entry of any kind and checks its name. `None` when it is ignored.
    pub(super) fn admit(&mut self, name: &[u8]) -> Result<Option<String>, ArchiveError> {
        self.count += 1;
        self.check_count(self.count)?;
        check(name)
    }

    pub(super) fn check_count(&self, count: u64) -> Result<(), ArchiveError> {
        let limit = self.limits.entries;
        if count <= limit {
            return Ok(());
        }
        Err(refused(
            "",
            codes::ARCHIVE_TOO_LARGE,
            format!(
                "the archive has more than {limit} entries; split the data set, or leave out what is not needed"
            ),
        ))
    }

    pub(super) fn folder(&mut self, path: String) {
        if !path.is_empty() {
            self.folders.push(path);
        }
    }

    /// Writes a file, whose size must be the one in the archive's directory.
    pub(super) fn file(
        &mut self,
        path: String,
        said_bytes: u64,
        content: &mut impl Read,
    ) -> Result<(), ArchiveError> {
        let offset = self.written;
        loop {
            let count = match content.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&path, error)),
            };
            self.written += count as u64;
            self.check_bytes(&path, self.written - offset)?;
            self.out.write_all(&self.chunk[..count])?;
        }
        let size = self.written - offset;
        if size != said_bytes {
            return Err(refused(
                path,
                codes::CORRUPT_ARCHIVE,
                format!(
                    "the archive says that this entry has {said_bytes} bytes, but it has {size}; make the archive again"
                ),
            ));
        }
        self.entries.push(Entry { path, offset, size });
        Ok(())
    }

    fn check_bytes(&self, path: &str, entry_bytes: u64) -> Result<(), ArchiveError> {
        let DatasetLimits {
            unpacked_bytes,
            entry_bytes: entry_limit,
            ratio,
            ..
        } = *self.limits;
        if entry_bytes > entry_limit {
            let message = format!(
                "this entry unpacks to more than {entry_limit} bytes; leave it out, or make it smaller"
            );
            return Err(refused(path, codes::ARCHIVE_TOO_LARGE, message));
        }
        if self.written > unpacked_bytes {
            let message = format!(
                "the archive unpacks to more than {unpacked_bytes} bytes; split the data set, or scale the images down"
            );
            return Err(refused("", codes::ARCHIVE_TOO_LARGE, message));
        }
        if self.written > self.ratio_bytes {
            return Err(self.ratio(path, ratio));
        }
        Ok(())
    }

    pub(super) fn ratio(&self, path: &str, ratio: u64) -> ArchiveError {
        let packed = self.packed_bytes;
        refused(
            path,
            codes::ARCHIVE_RATIO,
            format!(
                "the archive of {packed} bytes unpacks to more than {ratio} times its size, as only an archive made to \
                 fill disks does; images hardly shrink: pack them as they are"
            ),
        )
    }

    pub(super) fn finish(mut self) -> Result<Spool, ArchiveError> {
        self.out.flush()?;
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(twice) = self
            .entries
            .windows(2)
            .find(|pair| pair[0].path == pair[1].path)
        {
            return Err(refused(
                twice[0].path.clone(),
                codes::DUPLICATE_PATH,
                "the archive holds two files of this path; make it again from a folder",
            ));
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
            folders: self.folders,
        })
    }
}
