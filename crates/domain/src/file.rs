//! Uploaded files, and the results of their validation.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{codes, input::Modality, limits, problem::Problem, recipe::Task, words};

words! {
    /// The purpose of a file.
    pub enum Purpose {
        /// A data set: validated by a worker as soon as it is uploaded.
        FineTune = "fine-tune",
        /// Weights of a base model: validated when `POST /v1/base_models` names them.
        Weights = "weights",
        /// Metrics of a job that succeeded, as CSV; the job makes it.
        FineTuneResults = "fine-tune-results",
    }
}

words! {
    /// The purpose of a file that a user uploads.
    pub enum UploadPurpose {
        /// A data set: validated by a worker as soon as it is uploaded.
        FineTune = "fine-tune",
        /// Weights of a base model: validated when `POST /v1/base_models` names them.
        Weights = "weights",
    }
}

impl From<UploadPurpose> for Purpose {
    fn from(purpose: UploadPurpose) -> Self {
        match purpose {
            UploadPurpose::FineTune => Self::FineTune,
            UploadPurpose::Weights => Self::Weights,
        }
    }
}

words! {
    /// The state of an uploaded file.
    pub enum FileStatus {
        /// A worker downloads it from a URL.
        Downloading = "downloading",
        /// Stored; a data set's validation has not ended yet.
        Uploaded = "uploaded",
        /// The file is usable.
        Processed = "processed",
        /// The file is not usable; its report has the reasons.
        Error = "error",
    }
}

words! {
    /// The state of an upload in parts.
    pub enum UploadStatus {
        /// It takes parts.
        Pending = "pending",
        /// Its parts became a file.
        Completed = "completed",
        Cancelled = "cancelled",
        /// It was not completed in time.
        Expired = "expired",
    }
}

words! {
    /// The event from which a file's lifetime counts.
    pub enum ExpiryAnchor {
        CreatedAt = "created_at",
    }
}

/// The time after which a file may be deleted, as OpenAI's clients send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAfter {
    pub anchor: ExpiryAnchor,
    /// From an hour to 30 days.
    #[schema(minimum = 3600, maximum = 2_592_000)]
    pub seconds: u64,
}

impl ExpiresAfter {
    /// The lifetime; `path` is that of this object in the request.
    ///
    /// # Errors
    /// It is out of range.
    pub fn lifetime(self, path: &str) -> Result<Duration, Problem> {
        let range = limits::FILE_LIFETIME_SECONDS;
        if range.contains(&self.seconds) {
            return Ok(Duration::from_secs(self.seconds));
        }
        let message = format!("must be from {} to {}", range.start(), range.end());
        let path = format!("{path}.seconds");
        Err(Problem::new(path, codes::OUT_OF_RANGE, message))
    }
}

words! {
    /// A part of a data set.
    #[derive(PartialOrd, Ord)]
    pub enum Split {
        Train = "train",
        Validation = "validation",
        Test = "test",
    }
}

/// A validated data set. Small: a file object contains it as `dataset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    pub modality: Modality,
    pub task: Task,
    /// The classes in label order: a class's index here is its label. Empty in regression.
    pub classes: Vec<Class>,
    /// Statistics of the numbers to predict, over all samples; `null` in classification.
    #[serde(default)]
    pub target: Option<TargetStatistics>,
    /// Number of usable samples.
    pub samples: u64,
    pub splits: SplitSizes,
    /// Origin of the split: `folders` of the archive, its `manifest`, or a `hash` of each sample's
    /// bytes.
    pub split_by: String,
    /// Number of entries that cannot be used; the report names each.
    pub unusable: u64,
    /// Number of samples whose bytes occur more than once; all copies are in one split.
    pub duplicates: u64,
}

impl Dataset {
    /// Number of outputs of a model of these data: one for each class, or the one value.
    pub fn outputs(&self) -> u64 {
        match self.task {
            Task::Regression => 1,
            _ => self.classes.len() as u64,
        }
    }
}

/// A class, with its number of samples in each split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Class {
    pub name: String,
    pub train: u64,
    pub validation: u64,
    pub test: u64,
}

/// The distribution of a regression's target, in its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetStatistics {
    pub count: u64,
    pub mean: f64,
    /// Population standard deviation (divided by the number of samples).
    pub std: f64,
    pub min: f64,
    pub max: f64,
    pub quantiles: Quantiles,
}

/// Quantiles, interpolated linearly between samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quantiles {
    /// The 5 % quantile.
    pub p5: f64,
    pub p25: f64,
    /// The median.
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
}

impl TargetStatistics {
    /// The statistics of finite numbers; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / count;
        let squares = sorted.iter().map(|value| (value - mean).powi(2));
        let variance = squares.sum::<f64>() / count;
        let quantile = |share: f64| {
            let place = share * (count - 1.0);
            let at = |place: f64| sorted[place as usize];
            let (low, high) = (at(place.floor()), at(place.ceil()));
            low + (high - low) * place.fract()
        };
        Some(Self {
            count: sorted.len() as u64,
            mean,
            std: variance.sqrt(),
            min,
            max,
            quantiles: Quantiles {
                p5: quantile(0.05),
                p25: quantile(0.25),
                p50: quantile(0.5),
                p75: quantile(0.75),
                p95: quantile(0.95),
            },
        })
    }
}

/// The number of samples in each split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SplitSizes {
    pub train: u64,
    pub validation: u64,
    pub test: u64,
}

impl SplitSizes {
    pub fn of_mut(&mut self, split: Split) -> &mut u64 {
        match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
            Split::Test => &mut self.test,
        }
    }
}

/// The report of a validation: `GET /v1/files/{id}/report`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileReport {
    /// `null` if the file cannot be used at all.
    pub dataset: Option<Dataset>,
    /// The reasons why the file cannot be used; empty if it can.
    pub errors: Vec<Problem>,
    /// Entries that were left out or look wrong in a usable file. At most `config.report_problems`.
    pub warnings: Vec<Problem>,
    /// Number of warnings beyond those listed.
    pub warnings_omitted: u64,
}

impl FileReport {
    /// The report of a file that cannot be used.
    pub fn refused(errors: Vec<Problem>) -> Self {
        Self {
            dataset: None,
            errors,
            warnings: Vec::new(),
            warnings_omitted: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_numbers_are_those_of_numpy() {
        // numpy: x.mean(), x.std(), np.quantile(x, [.05, .25, .5, .75, .95])
        let found = TargetStatistics::of(&[4.0, 1.0, 2.5, 10.0]).unwrap();
        assert_eq!((found.count, found.mean), (4, 4.375));
        assert!((found.std - 3.416_412_592_179_112).abs() < 1e-12);
        let Quantiles {
            p5,
            p25,
            p50,
            p75,
            p95,
        } = found.quantiles;
        for (found, wanted) in [
            (p5, 1.225),
            (p25, 2.125),
            (p50, 3.25),
            (p75, 5.5),
            (p95, 9.1),
        ] {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        assert_eq!(TargetStatistics::of(&[]), None);
        let one = TargetStatistics::of(&[3.0]).unwrap();
        assert_eq!((one.std, one.quantiles.p95), (0.0, 3.0));
    }
}
