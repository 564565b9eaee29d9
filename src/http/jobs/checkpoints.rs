//! A job's checkpoints and their weights.

use std::collections::BTreeMap;

use anyhow::Context as _;
use axum::{http::HeaderMap, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{self, checkpoints::Checkpoint},
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, JobId},
        object::MODEL,
        recipe::Metric,
    },
    http::{
        api::{
            auth::Caller,
            download::{Download, Place},
            error::{ApiError, unless_deleted},
            extract::{Id, Params},
            page::{List, PageQuery},
            state::AppState,
        },
        jobs::snapshot::find,
    },
};

/// A saved state that a job can continue from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointObject {
    pub id: CheckpointId,
    /// `fine_tuning.job.checkpoint`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    /// The checkpoint's own id.
    pub fine_tuned_model_checkpoint: CheckpointId,
    pub fine_tuning_job_id: JobId,
    pub step_number: u64,
    pub epoch: u32,
    /// Metrics of the evaluation at this step; `null`s if there was none.
    pub metrics: CheckpointMetrics,
    /// True when it was the best checkpoint at its time.
    pub best: bool,
    /// Size of all its files.
    pub bytes: u64,
}

/// Metrics at a checkpoint's step; those that the task does not have are absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointMetrics {
    pub step: u64,
    pub train_loss: Option<f64>,
    pub valid_loss: Option<f64>,
    /// `valid_accuracy`, `valid_balanced_accuracy` and the other metrics of the job's evaluations.
    #[serde(flatten)]
    pub others: BTreeMap<&'static str, f64>,
}

fn others(metrics: &Metrics) -> BTreeMap<&'static str, f64> {
    let all = Metric::ALL
        .into_iter()
        .filter(|metric| *metric != Metric::ValidLoss);
    all.filter_map(|metric| Some((metric.as_str(), metrics.get(metric)?)))
        .collect()
}

impl From<Checkpoint> for CheckpointObject {
    fn from(checkpoint: Checkpoint) -> Self {
        let metrics = checkpoint.metrics;
        Self {
            id: checkpoint.id,
            object: "fine_tuning.job.checkpoint",
            created_at: checkpoint.created_at.unix_timestamp(),
            fine_tuned_model_checkpoint: checkpoint.id,
            fine_tuning_job_id: checkpoint.job,
            step_number: checkpoint.step,
            epoch: checkpoint.epoch,
            metrics: CheckpointMetrics {
                step: checkpoint.step,
                train_loss: metrics.and_then(|metrics| metrics.train_loss),
                valid_loss: metrics.map(|metrics| metrics.valid_loss),
                others: metrics.as_ref().map(others).unwrap_or_default(),
            },
            best: checkpoint.best,
            bytes: checkpoint.bytes,
        }
    }
}

/// List a job's checkpoints
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/checkpoints", tag = "jobs", operation_id = "list_job_checkpoints", params(("id" = JobId, Path), PageQuery<CheckpointId>),
    responses((status = 200, body = List<CheckpointObject>)))]
pub(crate) async fn checkpoints(
    Caller { state, tenant }: Caller,
    Id(job): Id<JobId>,
    Params(query): Params<PageQuery<CheckpointId>>,
) -> Result<axum::Json<List<CheckpointObject>>, ApiError> {
    find(&state, tenant, job).await?;
    let slice = db::checkpoints::list(&state.pool, tenant, job, query.page(&state.limits)?).await?;
    Ok(List::of(slice, CheckpointObject::from, |one| {
        one.id.to_string()
    }))
}

/// Download a checkpoint's weights
///
/// The trained parameters, as safetensors.
#[utoipa::path(get, path = "/v1/fine_tuning/checkpoints/{id}/content", tag = "jobs", operation_id = "get_checkpoint_content",
    params(("id" = CheckpointId, Path), ("range" = Option<String>, Header, description = "A range of bytes.")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream")))]
pub(crate) async fn checkpoint_content(
    Caller { state, tenant }: Caller,
    place: Place,
    Id(id): Id<CheckpointId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let find = || async {
        let checkpoint = db::checkpoints::get(&state.pool, tenant, id).await?;
        checkpoint.ok_or_else(|| ApiError::unknown(id))
    };
    let sent = send_weights(&state, &find().await?, &headers).await;
    let sent = unless_deleted(sent, find()).await?;
    Ok(place.until_sent(sent))
}

async fn send_weights(
    state: &AppState,
    checkpoint: &Checkpoint,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let files = state.objects.checkpoint(&checkpoint.manifest()).await?;
    let object = files.get(MODEL);
    let object = object.context("the manifest of a checkpoint names no weights")?;
    let filename = &format!("{}.safetensors", checkpoint.id);
    Download { object, filename }
        .send(&state.objects, headers)
        .await
}
