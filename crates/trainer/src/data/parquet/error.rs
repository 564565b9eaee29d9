//! Why a Parquet file is not read.

use std::any::Any;

use ::parquet::errors::ParquetError;

use crate::{
    data::{archive::ArchiveError, codes},
    domain::problem::Code,
};

/// Why the reading of a file ended.
pub(super) enum Unread {
    /// A problem of this file: code and message.
    Problem(Code, String),
    /// The limits of the whole upload, or this machine.
    Archive(ArchiveError),
}

/// The file asks for more than a limit, or for something that is not read here: said by the reader
/// of pages through the crate's own errors.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn error(code: Code, message: String) -> ParquetError {
        ParquetError::External(Box::new(Self { code, message }))
    }
}

impl From<ParquetError> for Unread {
    fn from(error: ParquetError) -> Self {
        if let ParquetError::External(inner) = &error
            && let Some(Refused { code, message }) = inner.downcast_ref()
        {
            return Self::Problem(code, message.clone());
        }
        damaged(&error.to_string())
    }
}

impl From<ArchiveError> for Unread {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// The file contradicts itself.
pub(super) fn damaged(why: &str) -> Unread {
    // The crate's messages may repeat what it found.
    let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
    let message = format!(
        "this Parquet file is damaged or was cut off ({why}); write it again and compare its size after the upload"
    );
    Unread::Problem(codes::CORRUPT_PARQUET, message)
}

/// The crate gave up by a panic, as it does on some damaged files.
pub(super) fn panicked(payload: &(dyn Any + Send)) -> Unread {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    damaged(text.unwrap_or("its contents contradict each other"))
}
