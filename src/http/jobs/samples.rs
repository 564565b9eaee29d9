//! The sample report of a job: predictions and flags per sample, the most suspicious first.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        Page,
        samples::{self, Filter, Measure},
    },
    domain::{file::Split, id::JobId, job::JobStatus, sample_report::SampleRecord},
    http::{
        api::{
            auth::Tenant,
            error::ApiError,
            extract::{Id, Params},
            page::{List, page},
            state::AppState,
        },
        jobs::snapshot::find,
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleListQuery {
    /// `last_id` of the previous page.
    after: Option<String>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// Only samples of this split.
    split: Option<Split>,
    /// Sort key; with `-` in descending order. `-loss` by default.
    #[param(inline)]
    sort: Option<Sort>,
    /// Only samples with this flag.
    #[param(inline)]
    flag: Option<Flag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
enum Sort {
    #[serde(rename = "loss")]
    Loss,
    #[serde(rename = "-loss")]
    LossDescending,
    #[serde(rename = "probability")]
    Probability,
    #[serde(rename = "-probability")]
    ProbabilityDescending,
    #[serde(rename = "margin")]
    Margin,
    #[serde(rename = "-margin")]
    MarginDescending,
    #[serde(rename = "sample")]
    Sample,
    #[serde(rename = "-sample")]
    SampleDescending,
}

impl Sort {
    /// The measure, and true for descending order.
    fn measure(self) -> (Measure, bool) {
        match self {
            Self::Loss => (Measure::Loss, false),
            Self::LossDescending => (Measure::Loss, true),
            Self::Probability => (Measure::Probability, false),
            Self::ProbabilityDescending => (Measure::Probability, true),
            Self::Margin => (Measure::Margin, false),
            Self::MarginDescending => (Measure::Margin, true),
            Self::Sample => (Measure::Sample, false),
            Self::SampleDescending => (Measure::Sample, true),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Flag {
    LikelyWrongLabel,
    NearDuplicate,
}

/// A sample with the model's prediction.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleObject {
    /// Sample number as text, which is the cursor of this list.
    id: String,
    /// `fine_tuning.job.sample`.
    object: &'static str,
    #[serde(flatten)]
    record: SampleRecord,
}

/// List a job's samples
///
/// Predictions and flags per sample. Samples with the largest loss come first; wrong labels are
/// likely among them.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/samples", tag = "jobs", operation_id = "list_job_samples", params(("id" = JobId, Path), SampleListQuery),
    responses((status = 200, body = List<SampleObject>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
    Params(query): Params<SampleListQuery>,
) -> Result<axum::Json<List<SampleObject>>, ApiError> {
    let job = find(&state, tenant, id).await?;
    if job.status != JobStatus::Succeeded {
        let status = job.status.as_str();
        let message = if job.status.is_terminal() {
            format!("the job is `{status}` and has no sample report; create another job")
        } else {
            format!(
                "the job is `{status}`; `GET /v1/fine_tuning/jobs/{id}?wait=60` waits for its end"
            )
        };
        return Err(ApiError::Conflict {
            code: "no_samples",
            message,
        });
    }
    let (measure, descending) = query.sort.unwrap_or(Sort::LossDescending).measure();
    let asked: Page<u32> = page(query.after.as_deref(), query.limit, None, state.limits())?;
    let page = Page {
        descending,
        ..asked
    };
    let filter = Filter {
        split: query.split,
        likely_wrong_label: query.flag == Some(Flag::LikelyWrongLabel),
        near_duplicate: query.flag == Some(Flag::NearDuplicate),
    };
    let slice = samples::list(state.pool(), (tenant, id), filter, measure, page).await?;
    let object = |record: SampleRecord| SampleObject {
        id: record.sample.to_string(),
        object: "fine_tuning.job.sample",
        record,
    };
    Ok(List::of(slice, object, |sample| sample.id.clone()))
}
