//! The data sets of a job.

use super::problems::unknown_names;
use crate::{
    codes::{EMPTY_SPLIT, UNKNOWN_CLASS},
    file::Dataset,
    problem::Problem,
};

/// The data sets that a job trains and is evaluated on.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    pub training: &'a Dataset,
    /// A file of its own for the validation split.
    pub validation: Option<&'a Dataset>,
}

impl Data<'_> {
    /// Samples that train: with a validation file, the training file's validation split trains too.
    pub(super) fn training_samples(&self) -> u64 {
        let splits = &self.training.splits;
        splits.train + self.validation.map_or(0, |_| splits.validation)
    }

    /// Splits without a sample, and classes that `labels`, the result's, do not have.
    pub(super) fn problems(&self, labels: &[String]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.training_samples() == 0 {
            let message = "the training file has no sample to train on";
            problems.push(Problem::new("training_file", EMPTY_SPLIT, message));
        }
        let Some(validation) = self.validation else {
            if self.training.splits.validation == 0 {
                let message = "the training file's validation split is empty; add samples, or give a validation_file";
                problems.push(Problem::new("training_file", EMPTY_SPLIT, message));
            }
            return problems;
        };
        let names = validation.classes.iter().map(|class| &class.name);
        let known = labels.iter().map(String::as_str);
        let lacks = "the training file has no class";
        let problem = ("validation_file", UNKNOWN_CLASS, lacks);
        problems.extend(unknown_names(names, known, problem));
        problems
    }
}
