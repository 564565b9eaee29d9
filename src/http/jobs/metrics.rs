//! Metrics of training, as columns and as an image.

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db,
    domain::{checkpoint::Metrics, codes, id::JobId},
    http::{
        api::{
            auth::Caller,
            error::ApiError,
            extract::{Id, Params},
        },
        jobs::{
            curves::{Curves, svg},
            snapshot::find,
        },
    },
};

/// The most steps in a response.
const STEPS: u32 = 10_000;
/// The highest `after_step`: clients keep integers up to it exactly.
const LAST_STEP: u64 = (1 << 53) - 1;
/// The most steps that curves are drawn from.
const DRAWN_STEPS: u32 = 200_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MetricsQuery {
    /// Only steps after this one: `last_step` of the previous response.
    #[param(maximum = 9_007_199_254_740_991_i64)]
    after_step: Option<u64>,
}

/// Metrics of training, a column per quantity; all columns have the same length. A very long job
/// has every k-th step and the last one: `columns.step` lists them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricsObject {
    /// `fine_tuning.job.metrics`.
    object: &'static str,
    columns: Columns,
    evaluations: Vec<EvaluationObject>,
    /// The last step in `columns`, for `after_step` of the next request.
    last_step: Option<u64>,
    /// True when there are steps after it.
    has_more: bool,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Columns {
    step: Vec<u64>,
    epoch: Vec<u32>,
    /// Mean loss of the batch, in nats.
    train_loss: Vec<Option<f64>>,
    learning_rate: Vec<f64>,
    samples_per_second: Vec<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvaluationObject {
    #[serde(flatten)]
    metrics: Metrics,
    /// True when it was the best evaluation at its time.
    best: bool,
}

/// Get a job's metrics
///
/// Every step; for a job of more than a few thousand steps every k-th. Steps of a job older than
/// `--steps-days` (about a year by default) are deleted; its evaluations stay.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/metrics", tag = "jobs", operation_id = "get_job_metrics", params(("id" = JobId, Path), MetricsQuery),
    responses((status = 200, body = MetricsObject)))]
pub(crate) async fn metrics(
    Caller { state, tenant }: Caller,
    Id(job): Id<JobId>,
    Params(query): Params<MetricsQuery>,
) -> Result<axum::Json<MetricsObject>, ApiError> {
    find(&state, tenant, job).await?;
    let after = query.after_step;
    if after > Some(LAST_STEP) {
        let message = format!("must be at most {LAST_STEP}");
        return Err(ApiError::invalid(
            "after_step",
            codes::OUT_OF_RANGE,
            message,
        ));
    }
    let first = after.unwrap_or(0);
    let mut steps = db::metrics::steps_after(&state.pool, tenant, job, first, STEPS + 1).await?;
    let has_more = steps.len() > STEPS as usize;
    steps.truncate(STEPS as usize);
    let evaluations = db::metrics::evaluations_after(&state.pool, tenant, job, after).await?;
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

/// Get a job's learning curves
///
/// Losses and metrics over the steps, as an SVG image.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/curves.svg", tag = "jobs", operation_id = "get_job_curves", params(("id" = JobId, Path)),
    responses((status = 200, body = String, content_type = "image/svg+xml")))]
pub(crate) async fn curves(
    Caller { state, tenant }: Caller,
    Id(id): Id<JobId>,
) -> Result<Response, ApiError> {
    let job = find(&state, tenant, id).await?;
    let steps = db::metrics::steps_after(&state.pool, tenant, id, 0, DRAWN_STEPS).await?;
    let evaluations = db::metrics::evaluations_after(&state.pool, tenant, id, None).await?;
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
        (header::CONTENT_TYPE, "image/svg+xml"),
        // Opened by itself, the image is a document; it loads nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ];
    Ok((headers, image).into_response())
}
