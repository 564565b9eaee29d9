//! Corrections of a data set: samples that are left out, and other labels for samples.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use crate::{
    codes,
    file::Dataset,
    limits,
    problem::{Problem, quoted, suggestion},
    recipe::Task,
    sample_report::Answer,
};

/// Changes that make a data set of another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Corrections {
    /// Numbers of samples to leave out.
    #[serde(default)]
    pub exclude: BTreeSet<u64>,
    /// Labels by the number of the sample: a class, a list of classes, or a number, as the data set
    /// has them.
    #[serde(default, deserialize_with = "by_number")]
    pub relabel: BTreeMap<u64, Answer>,
}

/// Reads an object by numbers. serde reads no numbers from names inside of a tagged enum, such as a
/// plan.
fn by_number<'de, D: Deserializer<'de>>(reader: D) -> Result<BTreeMap<u64, Answer>, D::Error> {
    let labels = BTreeMap::<String, Answer>::deserialize(reader)?.into_iter();
    let numbered = labels.map(|(name, label)| match name.parse() {
        Ok(number) => Ok((number, label)),
        Err(_) => {
            let message = format!("`{}` is not the number of a sample", quoted(&name));
            Err(D::Error::custom(message))
        }
    });
    numbered.collect()
}

impl Corrections {
    /// Everything that does not fit a data set.
    pub fn problems(&self, dataset: &Dataset) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.exclude.is_empty() && self.relabel.is_empty() {
            let message = "names no sample; give numbers to `exclude`, or labels to `relabel`";
            problems.push(Problem::new("", codes::MISSING_FIELD, message));
        }
        problems.extend(unwritable(dataset));
        let samples = dataset.samples;
        let unknown = |path: String, sample: u64| {
            let message = format!(
                "there is no sample {sample}: the data set has {samples}, counted from 0 in the order of their paths"
            );
            Problem::new(path, codes::UNKNOWN_SAMPLE, message)
        };
        for &sample in self.exclude.iter().filter(|&&sample| sample >= samples) {
            problems.push(unknown(format!("exclude[{sample}]"), sample));
        }
        for (&sample, label) in &self.relabel {
            let path = format!("relabel.{sample}");
            if sample >= samples {
                problems.push(unknown(path, sample));
            } else if self.exclude.contains(&sample) {
                let message = "is in `exclude`, too; leave it out of one of them";
                problems.push(Problem::new(path, codes::CONTRADICTION, message));
            } else {
                problems.extend(problem_of(label, path, dataset));
            }
        }
        problems
    }
}

/// A class that the manifest of a corrected data set cannot name.
fn unwritable(dataset: &Dataset) -> Option<Problem> {
    let mut classes = dataset.classes.iter();
    let is_single = dataset.task == Task::SingleLabelClassification;
    let class = classes.find(|class| is_single && class.name.contains('|'))?;
    let message = format!(
        "the class `{}` has a `|`, which separates labels in manifests; rename it, and upload the data set again",
        quoted(&class.name)
    );
    Some(Problem::new("", codes::NOT_AVAILABLE, message))
}

/// The problem with a label.
fn problem_of(label: &Answer, path: String, dataset: &Dataset) -> Option<Problem> {
    let classes = dataset.classes.iter().map(|class| class.name.as_str());
    let names: &[String] = match (dataset.task, label) {
        (Task::SingleLabelClassification, Answer::Class(name)) => std::slice::from_ref(name),
        (Task::MultiLabelClassification, Answer::Classes(names)) => names,
        (Task::Regression, Answer::Value(value)) => {
            let fits = limits::VALUE.contains(value);
            return (!fits).then(|| {
                let (least, most) = limits::VALUE.into_inner();
                let message = format!("must be from {least} to {most}");
                Problem::new(path, codes::OUT_OF_RANGE, message)
            });
        }
        (task, _) => {
            let expected = match task {
                Task::SingleLabelClassification => "the name of a class",
                Task::MultiLabelClassification => "a list of names of classes",
                Task::Regression => "a number",
            };
            let message = format!("must be {expected}, as the labels of this data set");
            return Some(Problem::new(path, codes::WRONG_TYPE, message));
        }
    };
    let is_known = |name: &str| classes.clone().any(|class| class == name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let message = format!(
            "there is no class `{}`; {}",
            quoted(name),
            suggestion(name, classes)
        );
        return Some(Problem::new(path, codes::UNKNOWN_CLASS, message));
    }
    let different: BTreeSet<&String> = names.iter().collect();
    (different.len() < names.len()).then(|| {
        let message = "has a class twice; name each once";
        Problem::new(path, codes::INVALID_VALUE, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        file::{Class, SplitSizes},
        input::Modality,
    };

    fn dataset(task: Task) -> Dataset {
        let class = |name: &str| Class {
            name: name.to_owned(),
            train: 2,
            validation: 1,
            test: 0,
        };
        Dataset {
            modality: Modality::Image,
            task,
            classes: vec![class("cat"), class("dog")],
            target: None,
            samples: 6,
            splits: SplitSizes::default(),
            split_by: "hash".to_owned(),
            unusable: 0,
            duplicates: 0,
        }
    }

    fn found(task: Task, body: &str) -> Vec<(String, String)> {
        let corrections: Corrections = serde_json::from_str(body).unwrap();
        let problems = corrections.problems(&dataset(task)).into_iter();
        problems.map(|one| (one.path, one.code)).collect()
    }

    #[test]
    fn unknown_samples_and_classes_are_named() {
        let body = r#"{"exclude": [5, 6, 0, 1000], "relabel": {"1": "cat", "2": "cow", "5": "dog", "9": "cat",
            "3": ["cat"], "4": 1}}"#;
        let expected = [
            ("exclude[6]", "unknown_sample"),
            ("exclude[1000]", "unknown_sample"),
            ("relabel.2", "unknown_class"),
            ("relabel.3", "wrong_type"),
            ("relabel.4", "wrong_type"),
            ("relabel.5", "contradiction"),
            ("relabel.9", "unknown_sample"),
        ];
        let expected = expected.map(|(path, code)| (path.to_owned(), code.to_owned()));
        assert_eq!(found(Task::SingleLabelClassification, body), expected);
        let none = found(Task::SingleLabelClassification, "{}");
        assert_eq!(none[0].1, "missing_field");
    }

    #[test]
    fn corrections_in_a_plan_are_read_as_written() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Plan {
            Corrected { corrections: Corrections },
        }
        let corrections = Corrections {
            exclude: [3].into(),
            relabel: [(12, Answer::Class("cat".to_owned()))].into(),
        };
        let plan = Plan::Corrected { corrections };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let wrong = serde_json::from_str::<Corrections>(r#"{"relabel": {"x": "cat"}}"#);
        let message = wrong.unwrap_err().to_string();
        assert!(message.contains("`x` is not the number"), "{message}");
    }

    #[test]
    fn labels_are_those_of_the_task() {
        let several = r#"{"relabel": {"0": [], "1": ["dog", "cat"], "2": ["cat", "cat"], "3": ["x"], "4": "cat"}}"#;
        let codes = |found: Vec<(String, String)>| -> Vec<String> {
            found.into_iter().map(|(_, code)| code).collect()
        };
        assert_eq!(
            codes(found(Task::MultiLabelClassification, several)),
            ["invalid_value", "unknown_class", "wrong_type"]
        );
        let numbers = r#"{"relabel": {"0": 1.5, "1": -3, "2": 1e13, "3": "1"}}"#;
        assert_eq!(
            codes(found(Task::Regression, numbers)),
            ["out_of_range", "wrong_type"]
        );
    }
}
