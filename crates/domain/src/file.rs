//! Uploaded files and what validation found in them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{problem::Problem, recipe::Task, words};

words! {
    /// What a file is for.
    pub enum Purpose {
        /// A data set: validated by a worker as soon as it is uploaded.
        FineTune = "fine-tune",
        /// Weights of a base model: validated when `POST /v1/base_models` names them.
        Weights = "weights",
    }
}

words! {
    pub enum FileStatus {
        /// Stored; a data set's validation has not ended yet.
        Uploaded = "uploaded",
        /// Usable.
        Processed = "processed",
        /// Not usable; the report says why.
        Error = "error",
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

/// What validation found in a data set. Small: a file object carries it as `dataset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// `image`; text will follow.
    pub modality: String,
    pub task: Task,
    /// In label order: a class's place here is its label for ever. Empty in regression.
    pub classes: Vec<Class>,
    /// The numbers to be predicted, over all samples; `null` in classification.
    #[serde(default)]
    pub target: Option<TargetStatistics>,
    /// Usable samples in all.
    pub samples: u64,
    pub splits: SplitSizes,
    /// Where the split came from: `folders` of the archive, its `manifest`, or a `hash` of each sample's bytes.
    pub split_by: String,
    /// Entries that could not be used; the report names each.
    pub unusable: u64,
    /// Samples whose bytes occur more than once; all copies are kept on one side of the split.
    pub duplicates: u64,
}

impl Dataset {
    /// Numbers that a model of these data gives for a sample: one for each class, or the one value.
    pub fn outputs(&self) -> u64 {
        match self.task {
            Task::Regression => 1,
            _ => self.classes.len() as u64,
        }
    }
}

/// A class, and how many samples of each split have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Class {
    pub name: String,
    pub train: u64,
    pub validation: u64,
    pub test: u64,
}

/// How the numbers of a regression are spread, in their own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetStatistics {
    pub count: u64,
    pub mean: f64,
    /// Of the samples themselves (divided by their number).
    pub std: f64,
    pub min: f64,
    pub max: f64,
    pub quantiles: Quantiles,
}

/// Shares of the samples lie at or below these; between two samples on a straight line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quantiles {
    /// 5 %.
    pub p5: f64,
    pub p25: f64,
    /// The median.
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
}

impl TargetStatistics {
    /// Of finite numbers; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / count;
        let variance = sorted
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count;
        let quantile = |share: f64| {
            let place = share * (count - 1.0);
            let (low, high) = (
                sorted[place.floor() as usize],
                sorted[place.ceil() as usize],
            );
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
