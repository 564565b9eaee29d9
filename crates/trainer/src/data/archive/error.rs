//! Why an archive was not unpacked.

use std::io;

use crate::{
    data::codes,
    domain::problem::{Code, Problem},
};

/// Why an archive was not unpacked: its own fault, or this machine's.
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

pub(super) fn refused(
    path: impl Into<String>,
    code: Code,
    message: impl Into<String>,
) -> ArchiveError {
    ArchiveError::Refused(Problem::new(path, code, message))
}

/// A read that failed: the disk's fault when the system says so, else the archive's.
pub(super) fn broken(path: &str, error: io::Error) -> ArchiveError {
    if error.raw_os_error().is_some() {
        return ArchiveError::Io(error);
    }
    let message = format!(
        "the archive is damaged or was cut off ({error}); make it again and compare its size after the upload"
    );
    refused(path, codes::CORRUPT_ARCHIVE, message)
}
