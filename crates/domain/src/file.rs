//! Uploaded files and what validation found in them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A data set: validated by a worker as soon as it is uploaded.
    FineTune,
    /// Weights of a base model: validated when `POST /v1/base_models` names them.
    Weights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// Stored; a data set's validation has not ended yet.
    Uploaded,
    /// Usable.
    Processed,
    /// Not usable; the report says why.
    Error,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Test,
}

/// What validation found in a data set. Small: a file object carries it as `dataset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// `image`; text will follow.
    pub modality: String,
    /// `single_label_classification`.
    pub task: String,
    /// In label order: a class's place here is its label for ever.
    pub classes: Vec<Class>,
    /// Usable samples in all.
    pub samples: u64,
    pub splits: SplitSizes,
    /// Where the split came from: `folders` of the archive, or a `hash` of each sample's bytes.
    pub split_by: String,
    /// Entries that could not be used; the report names each.
    pub unusable: u64,
    /// Samples whose bytes occur more than once; all copies are kept on one side of the split.
    pub duplicates: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Class {
    pub name: String,
    pub train: u64,
    pub validation: u64,
    pub test: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SplitSizes {
    pub train: u64,
    pub validation: u64,
    pub test: u64,
}

impl SplitSizes {
    pub fn of(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.train,
            Split::Validation => self.validation,
            Split::Test => self.test,
        }
    }

    pub fn of_mut(&mut self, split: Split) -> &mut u64 {
        match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
            Split::Test => &mut self.test,
        }
    }
}

/// Everything validation has to say: `GET /v1/files/{id}/report`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileReport {
    /// `null` when the file cannot be used at all.
    pub dataset: Option<Dataset>,
    /// Why the file cannot be used; empty when it can.
    pub errors: Vec<Problem>,
    /// What was left out or looks wrong, though the file can be used. At most `config.report_problems`.
    pub warnings: Vec<Problem>,
    /// Warnings beyond those listed.
    pub warnings_omitted: u64,
}
