//! From the files of an archive to samples with targets and splits, by the manifest or, without
//! one, by the folders. Pure.

/// A folder per class.
mod folders;
/// Rules for class names.
pub(super) mod names;
mod placed;

pub(super) use self::folders::split_named;
pub use self::{
    folders::read,
    placed::{Layout, Placed, SaidBy},
};

#[cfg(test)]
mod tests;
