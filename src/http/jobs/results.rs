//! What a job's training measured and kept: columns, checkpoints, report, curves.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{self, checkpoints::Checkpoint, tenants::TenantId},
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, JobId},
        progress::Step,
        recipe::Metric,
        report::Report,
    },
    http::{
        api::{
            auth::Tenant,
            download::Download,
            error::ApiError,
            extract::{Id, Params},
            page::{List, PageQuery},
            state::AppState,
        },
        jobs::{
            create,
            curves::{Curves, svg},
        },
    },
};

/// Steps of one answer.
const STEPS: u32 = 10_000;
/// Steps that an image of curves is drawn from.
const DRAWN_STEPS: usize = 200_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MetricsQuery {
    /// Only what is behind this step; `last_step` of the answer before.
    after_step: Option<u64>,
}

/// What training measured, a column for each quantity; all columns are equally long. Of a very long job every k-th step is
/// there, and the last: `columns.step` says which.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricsObject {
    /// `fine_tuning.job.metrics`.
    object: &'static str,
    columns: Columns,
    evaluations: Vec<EvaluationObject>,
    /// The last step in `columns`: the next `after_step`.
    last_step: Option<u64>,
    /// Whether there are more behind it.
    has_more: bool,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Columns {
    step: Vec<u64>,
    epoch: Vec<u32>,
    /// Mean over the batch, in nats.
    train_loss: Vec<Option<f64>>,
    learning_rate: Vec<f64>,
    samples_per_second: Vec<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvaluationObject {
    #[serde(flatten)]
    metrics: Metrics,
    /// Whether it was the best when it was made.
    best: bool,
}

/// Get a job's metrics
///
/// Every step; of a job of more than some thousand steps every k-th. Of a job that was created more than about a year ago
/// (`--steps-days`) only the evaluations are left.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/metrics", tag = "jobs", params(("id" = JobId, Path), MetricsQuery),
    responses((status = 200, body = MetricsObject)))]
pub(crate) async fn metrics(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(job): Id<JobId>,
    Params(query): Params<MetricsQuery>,
) -> Result<axum::Json<MetricsObject>, ApiError> {
    create::find(&state, tenant, job).await?;
    // Postgres' bigint ends where i64 does; there is no step behind that.
    let after = query.after_step.map(|step| step.min(i64::MAX as u64));
    let first = after.unwrap_or(0);
    let mut steps = db::metrics::steps_after(state.pool(), tenant, job, first, STEPS + 1).await?;
    let has_more = steps.len() > STEPS as usize;
    steps.truncate(STEPS as usize);
    let evaluations = db::metrics::evaluations_after(state.pool(), tenant, job, after).await?;
    let mut columns = Columns::default();
    for step in &steps {
        columns.step.push(step.step);
        columns.epoch.push(step.epoch);
        columns.train_loss.push(step.train_loss);
        columns.learning_rate.push(step.learning_rate);
        columns.samples_per_second.push(step.samples_per_second);
    }
    Ok(axum::Json(MetricsObject {
        object: "fine_tuning.job.metrics",
        columns,
        evaluations: evaluations
            .into_iter()
            .map(|one| EvaluationObject {
                metrics: one.metrics,
                best: one.best,
            })
            .collect(),
        last_step: steps.last().map(|step| step.step),
        has_more,
    }))
}

/// A saved state that training can go on from.
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
    /// Of the evaluation at this step; `null`s where there was none.
    pub metrics: CheckpointMetrics,
    /// Whether it was the best when it was saved.
    pub best: bool,
    /// Of all its files.
    pub bytes: u64,
}

/// What was measured at a checkpoint's step; what the task has no such thing as is absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointMetrics {
    pub step: u64,
    pub train_loss: Option<f64>,
    pub valid_loss: Option<f64>,
    /// `valid_accuracy`, `valid_balanced_accuracy`, and whatever else the job's evaluations have.
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
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/checkpoints", tag = "jobs", params(("id" = JobId, Path), PageQuery),
    responses((status = 200, body = List<CheckpointObject>)))]
pub(crate) async fn checkpoints(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(job): Id<JobId>,
    Params(query): Params<PageQuery>,
) -> Result<axum::Json<List<CheckpointObject>>, ApiError> {
    create::find(&state, tenant, job).await?;
    let slice =
        db::checkpoints::list(state.pool(), tenant, job, query.page(state.limits())?).await?;
    let data = slice.rows.into_iter().map(CheckpointObject::from).collect();
    Ok(axum::Json(List::new(
        data,
        slice.has_more,
        |checkpoint: &CheckpointObject| checkpoint.id.to_string(),
    )))
}

/// Download a checkpoint's weights
///
/// What was trained, as safetensors.
#[utoipa::path(get, path = "/v1/fine_tuning/checkpoints/{id}/content", tag = "jobs",
    params(("id" = CheckpointId, Path), ("range" = Option<String>, Header, description = "One range of bytes.")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream")))]
pub(crate) async fn checkpoint_content(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<CheckpointId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let gone = || ApiError::not_found("checkpoint", &id.to_string());
    let checkpoint = db::checkpoints::get(state.pool(), tenant, id)
        .await?
        .ok_or_else(gone)?;
    let key = format!(
        "{}/model.safetensors",
        checkpoint.objects.trim_end_matches('/')
    );
    let filename = format!("{id}.safetensors");
    Download {
        key: &key,
        filename: &filename,
        noun: "checkpoint",
        id: &id.to_string(),
    }
    .send(state.objects(), &headers)
    .await
}

/// Get a job's report
///
/// The evaluation of its best checkpoint.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/report", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Report)))]
pub(crate) async fn report(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<Report>, ApiError> {
    let job = create::find(&state, tenant, id).await?;
    let report = db::models::report_of_job(state.pool(), tenant, id).await?;
    report.map(axum::Json).ok_or_else(|| ApiError::Conflict {
        code: "no_report",
        message: match (&job.fine_tuned_model, job.status.is_terminal()) {
            (Some(model), _) => {
                format!("the report went with the model `{model}`, which was deleted")
            }
            (None, true) => format!("the job is `{}`: it made no model", job.status.as_str()),
            (None, false) => {
                format!(
                    "the job is `{}`; `GET /v1/fine_tuning/jobs/{id}?wait=60` waits for its end",
                    job.status.as_str()
                )
            }
        },
    })
}

/// Get a job's learning curves
///
/// Losses and accuracies over the steps, as an image.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/curves.svg", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = String, content_type = "image/svg+xml")))]
pub(crate) async fn curves(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<Response, ApiError> {
    let job = create::find(&state, tenant, id).await?;
    let steps = all_steps(state.pool(), tenant, id).await?;
    let evaluations = db::metrics::evaluations_after(state.pool(), tenant, id, None).await?;
    let best_step = evaluations
        .iter()
        .rev()
        .find(|one| one.best)
        .map(|one| one.metrics.step);
    let evaluations: Vec<Metrics> = evaluations.into_iter().map(|one| one.metrics).collect();
    let title = job.fine_tuned_model.unwrap_or_else(|| id.to_string());
    let train_loss = steps
        .iter()
        .filter_map(|step| Some((step.step as f64, step.train_loss?)))
        .collect();
    let image = svg(&Curves {
        title: &title,
        train_loss,
        evaluations: &evaluations,
        best_step,
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("image/svg+xml"),
        ),
        // Opened by itself, an image is a document; it needs nothing.
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'"),
        ),
    ];
    Ok((headers, image).into_response())
}

async fn all_steps(pool: &PgPool, tenant: TenantId, job: JobId) -> sqlx::Result<Vec<Step>> {
    let mut all: Vec<Step> = Vec::new();
    while all.len() < DRAWN_STEPS {
        let after = all.last().map_or(0, |step| step.step);
        let more = db::metrics::steps_after(pool, tenant, job, after, STEPS).await?;
        let complete = more.len() < STEPS as usize;
        all.extend(more);
        if complete {
            break;
        }
    }
    Ok(all)
}
