//! `GET /v1/meta/statuses`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{Slice, models::ModelStatus},
    domain::{
        file::{FileStatus, UploadStatus},
        job::JobStatus,
    },
    http::api::page::List,
};

/// A status that an object may have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusObject {
    /// The object's type and the status.
    id: String,
    /// `status`.
    object: &'static str,
    /// Type of the object: `fine_tuning.job`, `file`, `upload` or `model`.
    of: &'static str,
    status: &'static str,
    /// True when it never changes again.
    is_terminal: bool,
    /// Statuses that may follow.
    next: Vec<&'static str>,
    description: &'static str,
}

/// List statuses
///
/// Every status of jobs, files, uploads and models, and which may follow which.
#[utoipa::path(get, path = "/v1/meta/statuses", tag = "service", operation_id = "list_statuses",
    responses((status = 200, body = List<StatusObject>)))]
pub(crate) async fn list() -> axum::Json<List<StatusObject>> {
    let of = StatusObject::new;
    let jobs = JobStatus::ALL.map(|status| {
        let next = status.next().iter().map(|next| next.as_str());
        of(
            "fine_tuning.job",
            status.as_str(),
            next.collect(),
            of_job(status),
        )
    });
    let files = FileStatus::ALL.map(|status| {
        let (next, description) = of_file(status);
        let next = next.iter().map(|next| next.as_str());
        of("file", status.as_str(), next.collect(), description)
    });
    let uploads = UploadStatus::ALL.map(|status| {
        let (next, description) = of_upload(status);
        let next = next.iter().map(|next| next.as_str());
        of("upload", status.as_str(), next.collect(), description)
    });
    let models = ModelStatus::ALL.map(|status| {
        let (next, description) = of_model(status);
        let next = next.iter().map(|next| next.as_str());
        of("model", status.as_str(), next.collect(), description)
    });
    let rows = jobs.into_iter().chain(files).chain(uploads).chain(models);
    let slice = Slice {
        rows: rows.collect(),
        has_more: false,
    };
    List::of(
        slice,
        |status| status,
        |status: &StatusObject| status.id.clone(),
    )
}

impl StatusObject {
    fn new(
        of: &'static str,
        status: &'static str,
        next: Vec<&'static str>,
        description: &'static str,
    ) -> Self {
        Self {
            id: format!("{of}/{status}"),
            object: "status",
            of,
            status,
            is_terminal: next.is_empty(),
            next,
            description,
        }
    }
}

fn of_job(status: JobStatus) -> &'static str {
    match status {
        JobStatus::ValidatingFiles => "Waits for the validation of its data set.",
        JobStatus::Queued => "Waits for a worker; `queue` has its position and why.",
        JobStatus::Running => "Has a worker; `phase` and `progress` say what it does.",
        JobStatus::Pausing => "A pause was requested; a checkpoint is being saved.",
        JobStatus::Paused => "Waits to be resumed, and holds nothing but its checkpoints.",
        JobStatus::Succeeded => "Has a model: `fine_tuned_model`.",
        JobStatus::Failed => "Has ended without a model; `error` says why.",
        JobStatus::Cancelled => "Was cancelled; its checkpoints stay.",
    }
}

fn of_file(status: FileStatus) -> (&'static [FileStatus], &'static str) {
    match status {
        FileStatus::Downloading => (
            &[
                FileStatus::Uploaded,
                FileStatus::Processed,
                FileStatus::Error,
            ],
            "Is being downloaded from its URL.",
        ),
        FileStatus::Uploaded => (
            &[FileStatus::Processed, FileStatus::Error],
            "Is stored, and being validated if it is a data set.",
        ),
        FileStatus::Processed => (&[], "Can be used."),
        FileStatus::Error => (&[], "Cannot be used; its report says why."),
    }
}

fn of_upload(status: UploadStatus) -> (&'static [UploadStatus], &'static str) {
    match status {
        UploadStatus::Pending => (
            &[
                UploadStatus::Completed,
                UploadStatus::Cancelled,
                UploadStatus::Expired,
            ],
            "Takes parts until `expires_at`.",
        ),
        UploadStatus::Completed => (&[], "Has become a file."),
        UploadStatus::Cancelled => (&[], "Was cancelled; its parts are deleted."),
        UploadStatus::Expired => (&[], "Was not completed in time; its parts are deleted."),
    }
}

fn of_model(status: ModelStatus) -> (&'static [ModelStatus], &'static str) {
    match status {
        ModelStatus::Importing => (
            &[ModelStatus::Ready, ModelStatus::Error],
            "Its weights are being checked and converted.",
        ),
        ModelStatus::Ready => (&[], "Can be used."),
        ModelStatus::Error => (
            &[ModelStatus::Importing],
            "Its weights were refused: see `problems`, and register it again.",
        ),
    }
}
