//! The weight of each class in the loss, from a rule or by name.

use super::{
    data::Data,
    problems::{refuse, unknown_names},
};
use crate::{
    codes::UNKNOWN_CLASS,
    problem::Problem,
    recipe::Task,
    request::{Auto, ClassWeightRule, ClassWeights},
};

/// A weight for each class of the training file, in label order; `None` weighs all alike.
///
/// `balanced` is `n / (k n_c)` for n training samples, k classes and `n_c` samples of class c
/// (scikit-learn's rule); a class without a training sample weighs 1. With several labels a sample
/// it is `(n - n_c) / n_c`: samples with a label weigh together as much as those without; 1 where
/// there are none of either.
///
/// # Errors
/// A class that the data do not have, with the nearest names.
pub(super) fn resolve(
    asked: &Auto<ClassWeights>,
    data: Data<'_>,
) -> Result<Option<Vec<f64>>, Vec<Problem>> {
    match asked {
        Auto::Auto | Auto::Value(ClassWeights::Rule(ClassWeightRule::None)) => Ok(None),
        Auto::Value(ClassWeights::Rule(ClassWeightRule::Balanced)) => {
            let classes = data.training.classes.iter();
            let counts: Vec<u64> = classes
                .map(|class| class.train + data.validation.map_or(0, |_| class.validation))
                .collect();
            Ok(match data.training.task {
                Task::SingleLabelClassification => Some(balanced(&counts)),
                Task::MultiLabelClassification => Some(positives(&counts, data.training_samples())),
                Task::Regression => None,
            })
        }
        Auto::Value(ClassWeights::Given(given)) => {
            let classes = data.training.classes.iter();
            let known = classes.map(|class| class.name.as_str());
            let path = "method.transfer.hyperparameters.class_weights";
            let lacks = "the training file has no class";
            let problem = (path, UNKNOWN_CLASS, lacks);
            refuse(unknown_names(given.keys(), known.clone(), problem))?;
            let weight = |name| given.get(name).copied().unwrap_or(1.0);
            Ok(Some(known.map(weight).collect()))
        }
    }
}

fn balanced(counts: &[u64]) -> Vec<f64> {
    let (samples, classes) = (counts.iter().sum::<u64>() as f64, counts.len() as f64);
    let weight = |&count: &u64| match count {
        0 => 1.0,
        count => samples / (classes * count as f64),
    };
    counts.iter().map(weight).collect()
}

fn positives(counts: &[u64], samples: u64) -> Vec<f64> {
    let weight = |&count: &u64| match samples.saturating_sub(count) {
        0 => 1.0,
        _ if count == 0 => 1.0,
        without => without as f64 / count as f64,
    };
    counts.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        file::{Class, Dataset, SplitSizes},
        test_data,
    };

    /// The weights of a training file; with a validation file, if `validation`.
    fn weights(
        asked: &Auto<ClassWeights>,
        training: &Dataset,
        validation: bool,
    ) -> Result<Option<Vec<f64>>, Vec<Problem>> {
        let other = test_data::dataset(&["cats"], 1, 1);
        let data = Data {
            training,
            validation: validation.then_some(&other),
        };
        resolve(asked, data)
    }

    fn dataset() -> Dataset {
        let class = |name: &str, train, validation| Class {
            name: name.to_owned(),
            train,
            validation,
            test: 0,
        };
        Dataset {
            classes: vec![
                class("cats", 30, 0),
                class("dogs", 10, 20),
                class("none", 0, 0),
            ],
            samples: 60,
            splits: SplitSizes {
                train: 40,
                validation: 20,
                test: 0,
            },
            ..test_data::dataset(&[], 0, 0)
        }
    }

    #[test]
    fn balanced_weights_even_out_the_classes() {
        let balanced = Auto::Value(ClassWeights::Rule(ClassWeightRule::Balanced));
        let of = |validation| weights(&balanced, &dataset(), validation).unwrap().unwrap();
        assert_eq!(of(false), [40.0 / 90.0, 40.0 / 30.0, 1.0]);
        assert_eq!(of(true), [60.0 / 90.0, 60.0 / 90.0, 1.0]);
        assert_eq!(weights(&Auto::Auto, &dataset(), false), Ok(None));
        let several = Dataset {
            task: Task::MultiLabelClassification,
            ..dataset()
        };
        let weights = weights(&balanced, &several, false).unwrap().unwrap();
        assert_eq!(weights, [10.0 / 30.0, 30.0 / 10.0, 1.0]);
    }

    #[test]
    fn weights_by_name_keep_the_label_order_and_know_their_classes() {
        let given = |name: &str| Auto::Value(ClassWeights::Given([(name.to_owned(), 2.5)].into()));
        let found = weights(&given("dogs"), &dataset(), false).unwrap();
        assert_eq!(found, Some(vec![1.0, 2.5, 1.0]));
        let problems = weights(&given("dog"), &dataset(), false).unwrap_err();
        assert_eq!(problems[0].code, UNKNOWN_CLASS);
        assert!(problems[0].message.contains("did you mean `dogs`"));
    }
}
