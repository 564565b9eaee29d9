//! How much each class counts in the loss, from a rule or by name.

use super::{
    file::Dataset,
    problem::{Problem, suggestion},
    recipe::Task,
    request::{Auto, ClassWeightRule, ClassWeights},
    resolve::UNKNOWN_CLASS,
};

/// A weight for each class of `training`, in label order; `None` weighs all alike.
///
/// `balanced` is `n / (k n_c)` for n training samples, k classes and `n_c` samples of class c (scikit-learn's rule); a class
/// without a training sample weighs 1. With several labels a sample, it is `(n - n_c) / n_c`: those who have a label weigh
/// together as much as those who have not; 1 where there are none of either. With a validation file of its own (`validation_trains`), the training file's
/// validation split trains too.
///
/// # Errors
/// A class that the data do not have, with the nearest names.
pub fn resolve(
    asked: &Auto<ClassWeights>,
    training: &Dataset,
    validation_trains: bool,
) -> Result<Option<Vec<f64>>, Vec<Problem>> {
    match asked {
        Auto::Auto | Auto::Value(ClassWeights::Rule(ClassWeightRule::None)) => Ok(None),
        Auto::Value(ClassWeights::Rule(ClassWeightRule::Balanced)) => {
            let counts: Vec<u64> = training
                .classes
                .iter()
                .map(|class| {
                    class.train
                        + if validation_trains {
                            class.validation
                        } else {
                            0
                        }
                })
                .collect();
            let samples = training.splits.train
                + if validation_trains {
                    training.splits.validation
                } else {
                    0
                };
            Ok(match training.task {
                Task::SingleLabelClassification => Some(balanced(&counts)),
                Task::MultiLabelClassification => Some(positives(&counts, samples)),
                Task::Regression => None,
            })
        }
        Auto::Value(ClassWeights::Given(given)) => {
            let known = training.classes.iter().map(|class| class.name.as_str());
            let problems: Vec<Problem> = given
                .keys()
                .filter(|name| !known.clone().any(|known| known == name.as_str()))
                .map(|name| {
                    let message = format!(
                        "the training file has no class `{name}`; {}",
                        suggestion(name, known.clone())
                    );
                    let path = "method.transfer.hyperparameters.class_weights";
                    Problem::new(path, UNKNOWN_CLASS, message)
                })
                .collect();
            if !problems.is_empty() {
                return Err(problems);
            }
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
    use crate::file::{Class, SplitSizes};

    fn dataset() -> Dataset {
        let class = |name: &str, train, validation| Class {
            name: name.to_owned(),
            train,
            validation,
            test: 0,
        };
        Dataset {
            modality: "image".into(),
            task: Task::SingleLabelClassification,
            target: None,
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
            split_by: "hash".into(),
            unusable: 0,
            duplicates: 0,
        }
    }

    #[test]
    fn balanced_gives_every_class_the_same_say() {
        let balanced = Auto::Value(ClassWeights::Rule(ClassWeightRule::Balanced));
        let weights = |trains| resolve(&balanced, &dataset(), trains).unwrap().unwrap();
        assert_eq!(weights(false), [40.0 / 90.0, 40.0 / 30.0, 1.0]);
        assert_eq!(weights(true), [60.0 / 90.0, 60.0 / 90.0, 1.0]);
        assert_eq!(resolve(&Auto::Auto, &dataset(), false), Ok(None));
        let several = Dataset {
            task: Task::MultiLabelClassification,
            ..dataset()
        };
        let weights = resolve(&balanced, &several, false).unwrap().unwrap();
        assert_eq!(weights, [10.0 / 30.0, 30.0 / 10.0, 1.0]);
    }

    #[test]
    fn weights_by_name_keep_the_label_order_and_know_their_classes() {
        let given = |name: &str| Auto::Value(ClassWeights::Given([(name.to_owned(), 2.5)].into()));
        let weights = resolve(&given("dogs"), &dataset(), false).unwrap();
        assert_eq!(weights, Some(vec![1.0, 2.5, 1.0]));
        let problems = resolve(&given("dog"), &dataset(), false).unwrap_err();
        assert_eq!(problems[0].code, UNKNOWN_CLASS);
        assert!(problems[0].message.contains("did you mean `dogs`"));
    }
}
