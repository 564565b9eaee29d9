//! Requests resolved for small made-up networks and data sets.

mod adapters;
mod bad_input;
mod freezing;
mod heads;
mod hyperparameters;
mod images;
mod parents;
mod reasons;

use serde_json::json;

use super::*;
pub(super) use crate::test_data::{dataset, layers};
use crate::{
    base_model::Layers,
    codes::*,
    file::Dataset,
    parent::Parent,
    recipe::{HeadInit, Task},
    request::parse,
};

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

/// Resolves with a training file alone.
pub(super) fn resolved(
    request: &JobRequest,
    start: Start<'_>,
    training: &Dataset,
) -> Result<Resolution, Vec<Problem>> {
    let data = Data {
        training,
        validation: None,
    };
    resolve(request, start, data, 7)
}
