//! The body of `POST /v1/fine_tuning/jobs`, as openapi.yaml describes it. Its reading is `domain::request::parse`, which
//! finds every problem at once and fills in the defaults; `tests/it/job_body.rs` holds the two together.
#![expect(dead_code, reason = "only described, never read into")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

use super::transfer_body::TransferBody;
use crate::domain::{id::FileId, request::Auto};

/// A job to create. Everything but `model` and `training_file` has a default.
#[derive(ToSchema)]
pub(super) struct JobBody {
    /// A base model's id; or a fine-tuned model's or a checkpoint's, to go on from its backbone and head.
    #[schema(max_length = 255)]
    model: String,
    /// A data set, uploaded with purpose `fine-tune`.
    training_file: FileId,
    /// A second data set that is the validation split; otherwise the training file is split.
    validation_file: Option<FileId>,
    /// The part of the model's name that you choose: letters, digits, `-`, `_`, `.`.
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    suffix: Option<String>,
    /// Below 2^63; drawn at random when left out.
    seed: Option<u64>,
    /// At most 16 entries, keys of 64 and values of 512 characters.
    metadata: Option<BTreeMap<String, String>>,
    /// 0 (first) to 4 (last); 2 when left out.
    #[schema(minimum = 0, maximum = 4)]
    priority: Option<u8>,
    /// Of all attempts together, 1 to 2,592,000; neither waiting nor pauses count. A day when left out.
    #[schema(minimum = 1, maximum = 2_592_000)]
    timeout_seconds: Option<u64>,
    method: Option<MethodBody>,
    /// OpenAI's older place for them; not together with `method`.
    hyperparameters: Option<SupervisedHyperparameters>,
    /// OpenAI's; nothing but an empty list.
    integrations: Option<Vec<String>>,
}

#[derive(ToSchema)]
pub(super) struct MethodBody {
    /// `transfer`, or OpenAI's `supervised`, which means the default transfer.
    #[schema(rename = "type")]
    r#type: MethodType,
    /// With `transfer` only.
    transfer: Option<TransferBody>,
    /// With `supervised` only.
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

/// As those of `transfer`.
#[derive(ToSchema)]
pub(super) struct SupervisedHyperparameters {
    /// Passes over the training split, 1 to 10,000.
    n_epochs: Option<Auto<u64>>,
    /// Samples that run through the network together, 1 to 4,096.
    batch_size: Option<Auto<u64>>,
    /// What the learning rates of head and backbone are multiplied by, 0.0001 to 10,000.
    learning_rate_multiplier: Option<Auto<f64>>,
}
