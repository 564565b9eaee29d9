//! From the files of an archive to samples: what each one's target and split are, as a manifest
//! says, or as the folders say where there is none. Pure.

/// A folder per class.
mod folders;
/// What a class may be called.
pub(super) mod names;
mod placed;

pub(super) use self::folders::split_named;
pub use self::{
    folders::read,
    placed::{Layout, Placed, SaidBy},
};

#[cfg(test)]
mod tests;
