//! The sample report of a job: predictions and flags per sample, the most suspicious first. A cell
//! of the confusion matrix is the list with that label and that prediction.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        Page,
        samples::{self, Filter, Measure, Sample},
    },
    domain::{
        file::Split,
        id::{FileId, JobId},
        job::JobStatus,
        sample_report::SampleRecord,
        words,
    },
    http::{
        api::{
            auth::Caller,
            error::ApiError,
            extract::{Id, Params},
            page::{COUNTED_ROWS, Count, List, Rows, page, search_text},
        },
        jobs::snapshot::{find, without_result},
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleListQuery {
    /// `last_id` of the previous page.
    #[param(pattern = "^[0-9]{1,9}$")]
    after: Option<String>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Only samples of this split.
    split: Option<Split>,
    /// Sort key; with `-` in descending order. `-loss` by default.
    #[param(inline)]
    sort: Option<Sort>,
    /// Only samples with this flag.
    #[param(inline)]
    flag: Option<Flag>,
    /// Only samples with this label; of several labels, with this one among them.
    #[param(max_length = 255)]
    label: Option<String>,
    /// Only samples with this prediction; of several labels, with this one among them.
    #[param(max_length = 255)]
    prediction: Option<String>,
    /// Only samples with this text in their path, in whichever case. Taken literally: `%` and `_`
    /// are ordinary characters.
    #[param(max_length = 255)]
    q: Option<String>,
}

words! {
    // The words of `Measure`, with `-` in descending order.
    enum Sort {
        Loss = "loss",
        LossDescending = "-loss",
        Probability = "probability",
        ProbabilityDescending = "-probability",
        Margin = "margin",
        MarginDescending = "-margin",
        Sample = "sample",
        SampleDescending = "-sample",
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
    /// The job's file that it is in. Thumbnails and contents are the file's.
    file: FileId,
    /// Its number in that file; `null` when that cannot be told any more, because the training file
    /// was deleted.
    file_sample: Option<u32>,
}

/// A page of a job's samples.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleList {
    /// `list`.
    object: &'static str,
    data: Vec<SampleObject>,
    /// True when there are rows after `last_id`.
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
    /// Number of samples on all pages.
    count: Count,
}

/// List a job's samples
///
/// Predictions and flags per sample. Samples with the largest loss come first; wrong labels are
/// likely among them.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/samples", tag = "jobs", operation_id = "list_job_samples", params(("id" = JobId, Path), SampleListQuery),
    responses((status = 200, body = SampleList)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Id(id): Id<JobId>,
    Params(query): Params<SampleListQuery>,
) -> Result<axum::Json<SampleList>, ApiError> {
    let job = find(&state, tenant, id).await?;
    if job.status != JobStatus::Succeeded {
        let message = without_result(&job, "sample report");
        return Err(ApiError::conflict("no_samples", message));
    }
    let sort = query.sort.unwrap_or(Sort::LossDescending).as_str();
    let measure = sort.trim_start_matches('-').parse::<Measure>();
    let measure = measure.map_err(anyhow::Error::from)?;
    let page = Page::<u32> {
        descending: sort.starts_with('-'),
        ..page(
            query.after.as_deref(),
            query.limit,
            None,
            Rows::usual(&state.limits),
        )?
    };
    let filter = Filter {
        split: query.split,
        likely_wrong_label: query.flag == Some(Flag::LikelyWrongLabel),
        near_duplicate: query.flag == Some(Flag::NearDuplicate),
        label: search_text("label", query.label)?,
        prediction: search_text("prediction", query.prediction)?,
        text: search_text("q", query.q)?,
    };
    let slice = samples::list(&state.pool, (tenant, id), &filter, measure, page).await?;
    let count = samples::count(&state.pool, (tenant, id), &filter, COUNTED_ROWS + 1).await?;
    let object = |sample: Sample| SampleObject {
        id: sample.record.sample.to_string(),
        object: "fine_tuning.job.sample",
        record: sample.record,
        file: sample.file,
        file_sample: sample.file_sample,
    };
    let axum::Json(list) = List::of(slice, object, |sample| sample.id.clone());
    Ok(axum::Json(SampleList {
        object: list.object,
        data: list.data,
        has_more: list.has_more,
        first_id: list.first_id,
        last_id: list.last_id,
        count: Count::of(count),
    }))
}
