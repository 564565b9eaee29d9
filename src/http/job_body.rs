//! The body of `POST /v1/fine_tuning/jobs`, as openapi.yaml describes it. Its reading is `domain::request::parse`, which
//! finds every problem at once and fills in the defaults; a test there and one in `tests/it` hold the two together.
#![expect(dead_code, reason = "only described, never read into")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

use crate::domain::{
    id::FileId,
    recipe::{BatchNorm, HeadInit, HeadLayer, Metric, Optimizer, Schedule, Task},
    request::{Auto, ClassWeights, EmaDecay, Freeze, LabelRule},
};

/// A job to create. Everything but `model` and `training_file` has a default.
#[derive(ToSchema)]
pub(super) struct JobBody {
    /// A base model's id; or a fine-tuned model's or a checkpoint's, to go on from its trunk and head.
    model: String,
    /// A data set, uploaded with purpose `fine-tune`.
    training_file: FileId,
    /// A second data set that is the validation split; otherwise the training file is split.
    validation_file: Option<FileId>,
    /// The part of the model's name that you choose: letters, digits, `-`, `_`, `.`.
    #[schema(max_length = 64)]
    suffix: Option<String>,
    /// Drawn at random when left out.
    seed: Option<u64>,
    /// At most 16 entries, keys of 64 and values of 512 characters.
    metadata: Option<BTreeMap<String, String>>,
    /// 0 (first) to 4 (last).
    #[schema(minimum = 0, maximum = 4)]
    priority: Option<u8>,
    /// Of all attempts together; neither waiting nor pauses count.
    #[schema(minimum = 1, maximum = 2_592_000)]
    timeout_seconds: Option<u64>,
    method: Option<MethodBody>,
    /// OpenAI's older place for them; not together with `method`.
    hyperparameters: Option<SupervisedHyperparameters>,
}

#[derive(ToSchema)]
pub(super) struct MethodBody {
    /// `transfer`, or OpenAI's `supervised`, which means the default transfer.
    #[schema(rename = "type")]
    r#type: MethodType,
    transfer: Option<TransferBody>,
    supervised: Option<SupervisedBody>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum MethodType {
    Transfer,
    Supervised,
}

#[derive(ToSchema)]
pub(super) struct SupervisedBody {
    hyperparameters: Option<SupervisedHyperparameters>,
}

#[derive(ToSchema)]
pub(super) struct SupervisedHyperparameters {
    n_epochs: Option<Auto<u64>>,
    batch_size: Option<Auto<u64>>,
    learning_rate_multiplier: Option<Auto<f64>>,
}

/// How to transfer.
#[derive(ToSchema)]
pub(super) struct TransferBody {
    task: Option<Auto<Task>>,
    /// `pre_logits` takes away the classifier only; a stage's name everything after that stage, whose output is pooled.
    /// `auto`: `pre_logits`, or the cut of the model that the job goes on from.
    cut: Option<String>,
    /// What keeps its weights; `all` when left out.
    freeze: Option<Freeze>,
    head: Option<HeadBody>,
    /// Of a job that goes on: what becomes of the model's labels. `auto` is `keep`; a class of the file that the model does
    /// not know is then refused by name.
    labels: Option<Auto<LabelRule>>,
    hyperparameters: Option<HyperparametersBody>,
    early_stopping: Option<EarlyStoppingBody>,
    #[schema(minimum = 1, maximum = 86_400)]
    checkpoint_every_seconds: Option<u64>,
}

/// The new layers, before a linear one as wide as there are classes.
#[derive(ToSchema)]
pub(super) struct HeadBody {
    /// `auto`: none, or those of the model that the job goes on from.
    layers: Option<Auto<Vec<HeadLayer>>>,
    init: Option<Auto<HeadInit>>,
}

#[derive(ToSchema)]
pub(super) struct HyperparametersBody {
    n_epochs: Option<Auto<u64>>,
    batch_size: Option<Auto<u64>>,
    learning_rate: Option<Auto<f64>>,
    backbone_learning_rate: Option<Auto<f64>>,
    /// Multiplies both learning rates.
    learning_rate_multiplier: Option<Auto<f64>>,
    optimizer: Option<Auto<Optimizer>>,
    weight_decay: Option<Auto<f64>>,
    schedule: Option<Auto<Schedule>>,
    warmup_fraction: Option<Auto<f64>>,
    /// Above 0, at most 1: what each stage's rate is of the next one's.
    layer_decay: Option<Auto<f64>>,
    /// Batches of one optimizer step, 1 to 1,024.
    accumulate: Option<Auto<u64>>,
    label_smoothing: Option<Auto<f64>>,
    class_weights: Option<Auto<ClassWeights>>,
    gradient_clip: Option<Auto<f64>>,
    /// `none`, or a number between 0 and 1.
    ema_decay: Option<Auto<EmaDecay>>,
    batch_norm: Option<Auto<BatchNorm>>,
}

#[derive(ToSchema)]
pub(super) struct EarlyStoppingBody {
    patience: Option<Auto<u64>>,
    metric: Option<Auto<Metric>>,
    min_delta: Option<f64>,
}
