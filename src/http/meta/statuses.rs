//! `GET /v1/meta/statuses`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{Slice, models::ModelStatus, pushes::PushStatus, rankings::RankingStatus},
    domain::{
        file::{FileStatus, UploadStatus},
        job::{JobStatus, Phase, WaitReason},
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
    /// Type of the object: `fine_tuning.job`, `file`, `upload`, `model`, `model_ranking` or
    /// `model_push`; or `fine_tuning.job.phase` or `fine_tuning.job.queue.reason`, of which any may
    /// follow any.
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
/// Every status of jobs, files, uploads, models, rankings and pushes, and which may follow which;
/// the phases of jobs, and the reasons why queued ones wait.
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
    let rankings = RankingStatus::ALL.map(|status| {
        let (next, description) = of_ranking(status);
        let next = next.iter().map(|next| next.as_str());
        of(
            "model_ranking",
            status.as_str(),
            next.collect(),
            description,
        )
    });
    let pushes = PushStatus::ALL.map(|status| {
        let (next, description) = of_push(status);
        let next = next.iter().map(|next| next.as_str());
        of("model_push", status.as_str(), next.collect(), description)
    });
    let rows = jobs.into_iter().chain(files).chain(uploads).chain(models);
    let rows = rows.chain(rankings).chain(pushes).chain(of_jobs());
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

/// The words that jobs have beside their status.
fn of_jobs() -> impl Iterator<Item = StatusObject> {
    let phase = |phase: Phase| word("fine_tuning.job.phase", phase.as_str(), of_phase(phase));
    let reason = |reason: WaitReason| {
        let of = "fine_tuning.job.queue.reason";
        word(of, reason.as_str(), of_reason(reason))
    };
    let phases = Phase::ALL.into_iter().map(phase);
    phases.chain(WaitReason::ALL.into_iter().map(reason))
}

/// A word that any other may follow.
fn word(of: &'static str, word: &'static str, description: &'static str) -> StatusObject {
    StatusObject {
        is_terminal: false,
        ..StatusObject::new(of, word, Vec::new(), description)
    }
}

fn of_phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "Waits for its data set, for a worker, or to be resumed.",
        Phase::Choosing => "A worker ranks base models, of which the job takes the first.",
        Phase::Preparing => "Loads the data set and the weights.",
        Phase::CachingFeatures => "Computes the features of the frozen backbone.",
        Phase::Probing => "Fits the linear probe that the head starts from.",
        Phase::Training => "Trains, and evaluates at intervals.",
        Phase::Evaluating => "Evaluates the best checkpoint.",
        Phase::Exporting => "Writes and checks the model.",
    }
}

fn of_reason(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::TenantPaused => "Its tenant is paused.",
        WaitReason::Backoff => "It waits after a failed attempt, until the time in `until`.",
        WaitReason::NoWorker => "No worker has sent a heartbeat lately.",
        WaitReason::TooLarge => "No worker has enough device memory, even when idle.",
        WaitReason::TenantAtCap => "Its tenant runs as many jobs as it may.",
        WaitReason::SlotsBusy => "Every slot of every worker is busy.",
        WaitReason::Reserved => {
            "The memory that it needs is kept for a larger job that has waited long."
        }
        WaitReason::Memory => "No worker with a free slot has enough free device memory.",
        WaitReason::Starting => "A worker is about to start it, or a job ahead of it.",
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

fn of_ranking(status: RankingStatus) -> (&'static [RankingStatus], &'static str) {
    match status {
        RankingStatus::Queued => (
            &[RankingStatus::Running, RankingStatus::Failed],
            "Waits for a worker.",
        ),
        RankingStatus::Running => (
            &[
                RankingStatus::Queued,
                RankingStatus::Succeeded,
                RankingStatus::Failed,
            ],
            "A worker scores its models.",
        ),
        RankingStatus::Succeeded => (&[], "Has an order: `data`."),
        RankingStatus::Failed => (&[], "Has ended without an order; `error` says why."),
    }
}

fn of_push(status: PushStatus) -> (&'static [PushStatus], &'static str) {
    match status {
        PushStatus::Queued => (
            &[PushStatus::Running, PushStatus::Failed],
            "Waits for a worker.",
        ),
        PushStatus::Running => (
            &[
                PushStatus::Queued,
                PushStatus::Succeeded,
                PushStatus::Failed,
            ],
            "A worker sends the files.",
        ),
        PushStatus::Succeeded => (&[], "The hub has the model: `commit`."),
        PushStatus::Failed => (&[], "Has ended without a commit; `error` says why."),
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
