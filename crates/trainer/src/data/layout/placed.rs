//! Files of an archive with their targets and splits.

use crate::{
    data::target::Target,
    domain::{file::Split, recipe::Task},
};

/// How an archive's files are arranged.
#[derive(Debug, PartialEq)]
pub struct Layout {
    pub task: Task,
    /// Sorted by their bytes; a class's index is its label. Empty in regression.
    pub classes: Vec<String>,
    /// Files with a target, in the order of the entries.
    pub files: Vec<Placed>,
    /// Indices of entries that have none, and are no manifest.
    pub outside: Vec<usize>,
    /// The source of classes and splits.
    pub said_by: SaidBy,
}

/// Where targets and splits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    Folders,
    Manifest,
}

/// A file with a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Index of the entry.
    pub entry: usize,
    pub target: Target,
    /// Where the archive has split folders, or the manifest a split column.
    pub split: Option<Split>,
}
