//! Entries of a zip or tar, within limits, into one spool file.
//!
//! No entry ever becomes a file of its own: the bytes of all go back to back into one anonymous file, so there is no
//! path to escape by and no link to follow. Names are checked all the same, and one unsafe entry refuses the whole
//! upload: who sends it did not make a data set. Limits count bytes that were really written, never what a header says.

pub(super) mod entry_path;
mod tar;
mod zip;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use self::entry_path::{check, shown};
use super::codes;
use crate::domain::{
    problem::{Code, Problem},
    work::DatasetLimits,
};

/// Unpacked bytes that no ratio is asked of, so that small archives of simple files pass.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Bytes moved at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// What an archive held.
#[derive(Debug)]
pub struct Spool {
    /// Every file's bytes, back to back, in the archive's order. Has no name: it is gone when this is.
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

/// Why an archive was not unpacked.
#[derive(Debug)]
pub enum ArchiveError {
    /// It is the archive's fault.
    Refused(Problem),
    /// It is this machine's fault.
    Io(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Unpacks `input`, whose format is told by its first bytes, into an anonymous file in `folder`.
///
/// # Errors
/// When it is no archive, an entry is unsafe, a limit is passed, or the disk fails.
pub fn unpack(input: &Path, limits: &DatasetLimits, folder: &Path) -> Result<Spool, ArchiveError> {
    let mut file = File::open(input)?;
    let packed_bytes = file.metadata()?.len();
    let mut start = [0_u8; 512];
    let known = read_up_to(&mut file, &mut start)?;
    let file = File::open(input)?;
    let mut spooler = Spooler::new(limits, packed_bytes, folder)?;
    match &start[..known] {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => zip::read(file, &mut spooler)?,
        [0x1f, 0x8b, ..] => {
            tar::read(
                flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file)),
                &mut spooler,
            )?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => tar::read(zstd::Decoder::new(file)?, &mut spooler)?,
        block if tar::is_header(block) => {
            tar::read(BufReader::with_capacity(CHUNK_BYTES, file), &mut spooler)?
        }
        other => return Err(not_an_archive(other)),
    }
    spooler.finish()
}

/// Reads until the buffer is full or the input ends; says how much there was.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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

fn not_an_archive(start: &[u8]) -> ArchiveError {
    let what = match start {
        [] => "the file is empty",
        [b'7', b'z', 0xbc, 0xaf, ..] => "this is a 7z archive",
        [b'R', b'a', b'r', b'!', ..] => "this is a RAR archive",
        [b'B', b'Z', b'h', ..] => "this is a bzip2 file",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "this is an xz file",
        [0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', ..] => "this is a single image",
        _ => "this is not an archive",
    };
    refused(
        "",
        codes::NOT_AN_ARCHIVE,
        format!(
            "{what}; a data set is a zip, tar, tar.gz or tar.zst with a folder of images per class: \
             `zip -r data.zip cats dogs` makes one"
        ),
    )
}

fn refused(path: impl Into<String>, code: Code, message: impl Into<String>) -> ArchiveError {
    ArchiveError::Refused(Problem::new(path, code, message))
}

/// A read that failed: the disk's fault when the system says so, else the archive's.
fn broken(path: &str, error: io::Error) -> ArchiveError {
    if error.raw_os_error().is_some() {
        return ArchiveError::Io(error);
    }
    refused(
        path,
        codes::CORRUPT_ARCHIVE,
        format!(
            "the archive is damaged or was cut off ({error}); make it again and compare its size after the upload"
        ),
    )
}

/// Takes entries, holds them to the limits, and writes their bytes down.
struct Spooler<'a> {
    limits: &'a DatasetLimits,
    /// Bytes that may be written in all because of the ratio.
    ratio_bytes: u64,
    packed_bytes: u64,
    out: BufWriter<File>,
    written: u64,
    count: u64,
    entries: Vec<Entry>,
    folders: Vec<String>,
    chunk: Vec<u8>,
}

impl<'a> Spooler<'a> {
    fn new(limits: &'a DatasetLimits, packed_bytes: u64, folder: &Path) -> io::Result<Self> {
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

    /// Counts an entry, of whatever kind, and checks its name. `None` when it is to be ignored.
    fn admit(&mut self, name: &[u8]) -> Result<Option<String>, ArchiveError> {
        self.count += 1;
        self.check_count(self.count)?;
        check(name)
    }

    fn check_count(&self, count: u64) -> Result<(), ArchiveError> {
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

    fn folder(&mut self, path: String) {
        if !path.is_empty() {
            self.folders.push(path);
        }
    }

    /// Writes down a file, which must have the size that the archive says.
    fn file(
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

    fn ratio(&self, path: &str, ratio: u64) -> ArchiveError {
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

    fn finish(mut self) -> Result<Spool, ArchiveError> {
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
