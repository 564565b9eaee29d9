//! Reads the files of `torch.save(model.state_dict())`, both the zip container of torch 1.6 and
//! later and the format before it. It can produce tensors and nothing else (`pickle`); libtorch's
//! own reader never sees the bytes. Which of the two formats a file has is told by its content. All
//! sizes are checked against the file's own length.

mod archive;
mod legacy;
mod pickle;
mod saved;

use super::weights::{Tensors, WeightsError};

/// True when these bytes begin like a zip file or a pickle.
pub(super) fn is_pth(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC) || matches!(bytes, [0x80, 2..=5, ..])
}

/// The tensors of a file's bytes, contiguous.
///
/// # Errors
/// A file that is not a state dict, with the name that its pickle refers to; sizes that do not
/// match the file.
pub fn parse(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let saved = if bytes.starts_with(archive::MAGIC) {
        archive::open(bytes)?
    } else {
        legacy::open(bytes)?
    };
    saved.tensors(bytes.len() as u64)
}
