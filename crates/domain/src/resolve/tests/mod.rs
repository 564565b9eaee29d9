//! What becomes of requests over small made-up networks and data sets.

mod bad_input;
mod freezing;
mod going_on;
mod heads;
mod hyperparameters;
mod images;
mod reasons;

use serde_json::json;

use super::*;
use crate::{
    file::{Class, SplitSizes},
    freeze::tests::layers,
    recipe::{HeadInit, Task},
    request::{CONTRADICTION, parse},
};

pub(super) fn dataset(classes: &[&str], train: u64, validation: u64) -> Dataset {
    let class = |name: &&str| Class {
        name: (*name).to_owned(),
        train,
        validation,
        test: 0,
    };
    let n = classes.len() as u64;
    Dataset {
        modality: "image".into(),
        task: Task::SingleLabelClassification,
        target: None,
        classes: classes.iter().map(class).collect(),
        samples: n * (train + validation),
        splits: SplitSizes {
            train: n * train,
            validation: n * validation,
            test: 0,
        },
        split_by: "hash".into(),
        unusable: 0,
        duplicates: 0,
    }
}

/// A data set for this task; `food` and `plants` are its classes, where it has any.
fn for_task(task: Task) -> Dataset {
    let data = dataset(&["food", "plants"], 40, 10);
    Dataset {
        task,
        classes: match task {
            Task::Regression => Vec::new(),
            _ => data.classes,
        },
        ..data
    }
}

/// Training starts from the base model.
pub(super) fn base(layers: &Layers) -> Start<'_> {
    Start {
        layers,
        parent: None,
    }
}

pub(super) fn parent() -> Parent {
    Parent {
        id: "ft:m::1".to_owned(),
        task: crate::recipe::Task::SingleLabelClassification,
        cut: "pre_logits".to_owned(),
        head: Vec::new(),
        labels: ["plants", "food"].map(str::to_owned).into(),
        weights: Vec::new(),
    }
}

pub(super) fn request(transfer: serde_json::Value) -> JobRequest {
    let file = crate::id::FileId::new();
    parse(&json!({"model": "m", "training_file": file, "method": {"type": "transfer", "transfer": transfer}})).unwrap()
}
