//! The validation slot: validates data sets and imports base models, each in a child, under a lease of its own; and
//! resolves the jobs that waited for a data set.

use std::{ffi::OsStr, path::Path, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::{
    cache::hash_file,
    checkpoints::plain_file,
    context::Worker,
    fault::Fault,
    layout::write_plan,
    lease::{self, Claim, Lease},
};
use crate::db::persist::persist;
use crate::{
    child::{Child, Exit},
    db::{self, files::ClaimedFile, models::ClaimedImport},
    domain::{
        file::FileReport,
        problem::Problem,
        progress::{Failure, Validated},
        work::{Imported, ValidatePlan},
    },
    jobs::resolve_waiting::resolve_waiting,
    objects::ObjectError,
};

/// Bytes a validation process gets through in a second, at the least; it has `stall_ms` besides.
const BYTES_PER_SECOND: u64 = 128 << 10;
/// Time before the next try after the disk was full.
const AFTER_FULL: Duration = Duration::from_secs(5);
/// Time before the next try after a validation process crashed.
const AFTER_CRASH: Duration = Duration::from_secs(1);
/// Bytes of a report or of `imported.json`.
const JSON_BYTES: u64 = 64 << 20;

/// How a validation ended that its lease outlived.
enum Ended {
    /// It is written down.
    Settled,
    /// To be tried again, here or elsewhere.
    Crashed(String),
    /// There was no room here. It costs nothing, and is tried again.
    Full(String),
    /// This worker stops.
    Stopped,
}

/// Validates until `shutdown`, one thing after the other.
pub(super) async fn run(worker: Arc<Worker>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match round(&worker, &shutdown).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!("cannot validate: {error:#}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = worker.wakeups.validations.notified() => {}
            () = tokio::time::sleep(worker.poll_with_jitter()) => {}
        }
    }
}

/// Resolves jobs that waited, then validates one thing; whether there was one.
async fn round(worker: &Worker, shutdown: &CancellationToken) -> sqlx::Result<bool> {
    resolve_waiting(&worker.pool).await?;
    let ttl = worker.args.timing.lease();
    let asked = lease::since_boot();
    if let Some(file) = db::files::claim(&worker.pool, worker.id, ttl).await? {
        validate(worker, &file, asked, shutdown).await;
        return Ok(true);
    }
    let asked = lease::since_boot();
    if let Some(import) = db::models::claim_import(&worker.pool, worker.id, ttl).await? {
        import_weights(worker, &import, asked, shutdown).await;
        return Ok(true);
    }
    Ok(false)
}

async fn validate(
    worker: &Worker,
    file: &ClaimedFile,
    asked: Duration,
    shutdown: &CancellationToken,
) {
    let claim = Claim::File {
        file: file.id,
        token: file.token,
    };
    let lease = Lease::hold(worker, claim, asked);
    let ended = tokio::select! {
        biased;
        () = lease.lost() => return tracing::warn!(file.id = %file.id, "lost the lease of a validation"),
        ended = validate_held(worker, file, &lease, shutdown) => ended.unwrap_or_else(|fault| Ended::of(&fault)),
    };
    lease.end();
    if matches!(ended, Ended::Settled) {
        // Jobs may wait for it.
        worker.wakeups.validations.notify_one();
        return;
    }
    let (crashed, pause) = ended.cost(&format!("file {}", file.id));
    if let Err(error) = db::files::release(&worker.pool, file.id, file.token, crashed).await {
        tracing::warn!(file.id = %file.id, "cannot hand a validation back; its lease will run out: {error}");
    }
    shutdown
        .run_until_cancelled(tokio::time::sleep(pause))
        .await;
}

impl Ended {
    fn of(fault: &Fault) -> Self {
        let what = fault.to_string();
        match fault {
            Fault::Object(ObjectError::StorageFull { .. }) => Self::Full(what),
            _ => Self::Crashed(what),
        }
    }

    /// Of a child that says that another try may end otherwise.
    fn of_failure(failure: Failure) -> Self {
        match failure.code.as_str() {
            "storage_full" => Self::Full(failure.message),
            _ => Self::Crashed(failure.message),
        }
    }

    /// Whether a validation of `what` that is not settled counts as a crash, and the time before the next one here.
    fn cost(&self, what: &str) -> (bool, Duration) {
        match self {
            Self::Settled | Self::Stopped => (false, Duration::ZERO),
            Self::Crashed(how) => {
                tracing::warn!("the validation of {what} crashed: {how}");
                (true, AFTER_CRASH)
            }
            Self::Full(how) => {
                tracing::warn!("no room to validate {what}, will try again: {how}");
                (false, AFTER_FULL)
            }
        }
    }
}

async fn validate_held(
    worker: &Worker,
    file: &ClaimedFile,
    lease: &Lease,
    shutdown: &CancellationToken,
) -> Result<Ended, Fault> {
    let hex = file.id.0.simple();
    let folder = worker
        .folders
        .create(&format!("file-{hex}-{}", file.token))?;
    let input = folder.path().join("input");
    worker
        .objects
        .fetch(&format!("files/{hex}/content"), &input)
        .await?;
    let plan = ValidatePlan::Dataset {
        input,
        limits: worker.args.data.dataset(),
        threads: worker.threads,
    };
    let said = match run_child(worker, folder.path(), &plan, file.bytes, shutdown).await? {
        Ok(said) => said,
        Err(ended) => return Ok(ended),
    };
    match said {
        Validated::Accepted => {
            let report: FileReport = read_json(folder.path(), "report.json").await?;
            let pack = plain_file(folder.path(), "pack.safetensors")?;
            let stored = worker
                .objects
                .put_file(&format!("files/{hex}/pack.safetensors"), &pack)
                .await?;
            lease.end();
            let write = || {
                db::files::accept(
                    &worker.pool,
                    file.id,
                    file.token,
                    &report,
                    &stored.sha256,
                    stored.bytes,
                )
            };
            settled(persist("accept a data set", write).await?)
        }
        Validated::Refused { problems } => {
            refuse_reported(worker, file, folder.path(), problems, lease).await
        }
        Validated::Failed(failure) if failure.retryable => Ok(Ended::of_failure(failure)),
        Validated::Failed(failure) => {
            refuse(worker, file, vec![problem_of("file", failure)], lease).await
        }
    }
}

fn settled(written: bool) -> Result<Ended, Fault> {
    if written {
        Ok(Ended::Settled)
    } else {
        Err(Fault::Lost)
    }
}

fn problem_of(path: &str, failure: Failure) -> Problem {
    Problem {
        path: path.to_owned(),
        line: None,
        code: failure.code,
        message: failure.message,
    }
}

/// Refuses with the validation process's own report, where it left one.
async fn refuse_reported(
    worker: &Worker,
    file: &ClaimedFile,
    folder: &Path,
    problems: Vec<Problem>,
    lease: &Lease,
) -> Result<Ended, Fault> {
    match read_json::<FileReport>(folder, "report.json").await {
        Ok(report) if !report.errors.is_empty() => {
            write_refusal(worker, file, &report, lease).await
        }
        _ => refuse(worker, file, problems, lease).await,
    }
}

async fn refuse(
    worker: &Worker,
    file: &ClaimedFile,
    errors: Vec<Problem>,
    lease: &Lease,
) -> Result<Ended, Fault> {
    let report = FileReport {
        dataset: None,
        errors,
        warnings: Vec::new(),
        warnings_omitted: 0,
    };
    write_refusal(worker, file, &report, lease).await
}

async fn write_refusal(
    worker: &Worker,
    file: &ClaimedFile,
    report: &FileReport,
    lease: &Lease,
) -> Result<Ended, Fault> {
    let first = report
        .errors
        .first()
        .map_or("the file is not usable", |problem| problem.message.as_str());
    let details = match report.errors.len() {
        0 | 1 => first.to_owned(),
        count => format!("{first} (and {} more problems, see the report)", count - 1),
    };
    lease.end();
    let write = || db::files::refuse(&worker.pool, file.id, file.token, report, &details);
    settled(persist("refuse a data set", write).await?)
}

async fn import_weights(
    worker: &Worker,
    import: &ClaimedImport,
    asked: Duration,
    shutdown: &CancellationToken,
) {
    let lease = Lease::hold(worker, Claim::Import(Box::new(import.clone())), asked);
    let ended = tokio::select! {
        biased;
        () = lease.lost() => return tracing::warn!(model.id = import.id, "lost the lease of an import"),
        ended = import_held(worker, import, &lease, shutdown) => ended.unwrap_or_else(|fault| Ended::of(&fault)),
    };
    lease.end();
    if matches!(ended, Ended::Settled) {
        return;
    }
    let (crashed, pause) = ended.cost(&format!("base model {}", import.id));
    if let Err(error) = db::models::release_import(&worker.pool, import, crashed).await {
        tracing::warn!(
            model.id = import.id,
            "cannot hand an import back; its lease will run out: {error}"
        );
    }
    shutdown
        .run_until_cancelled(tokio::time::sleep(pause))
        .await;
}

async fn import_held(
    worker: &Worker,
    import: &ClaimedImport,
    lease: &Lease,
    shutdown: &CancellationToken,
) -> Result<Ended, Fault> {
    let hex = import.weights_file.0.simple();
    // A model's id is no name of a folder; the claim's number and the file's are.
    let folder = worker.folders.create(&format!(
        "import-{hex}-{}-{:08x}",
        import.token,
        rand::random::<u32>()
    ))?;
    let input = folder.path().join("input");
    let key = format!("files/{hex}/content");
    worker.objects.fetch(&key, &input).await?;
    let bytes = worker.objects.size(&key).await?;
    let plan = ValidatePlan::Weights {
        input,
        architecture: import.architecture.clone(),
        max_bytes: worker.args.data.max_weights_bytes,
        preprocessing: import.preprocessing.clone(),
    };
    let said = match run_child(worker, folder.path(), &plan, bytes, shutdown).await? {
        Ok(said) => said,
        Err(ended) => return Ok(ended),
    };
    let problems = match said {
        Validated::Accepted => match keep_weights(worker, folder.path()).await {
            Ok((imported, sha256)) => {
                lease.end();
                let write = || db::models::accept_import(&worker.pool, import, &imported, &sha256);
                return settled(persist("accept a base model", write).await?);
            }
            Err(Fault::Object(ObjectError::StorageFull { .. })) => {
                let message = "the service's storage is full, so the weights could not be kept; try again later";
                vec![Problem::new("weights.file", "storage_full", message)]
            }
            Err(fault) => return Err(fault),
        },
        Validated::Refused { problems } => problems,
        Validated::Failed(failure) if failure.retryable => {
            return Ok(Ended::of_failure(failure));
        }
        Validated::Failed(failure) => vec![problem_of("weights.file", failure)],
    };
    lease.end();
    let write = || db::models::refuse_import(&worker.pool, import, &problems);
    settled(persist("refuse a base model", write).await?)
}

/// Stores converted weights under their hash.
async fn keep_weights(worker: &Worker, folder: &Path) -> Result<(Imported, String), Fault> {
    let imported: Imported = read_json(folder, "imported.json").await?;
    let model = plain_file(folder, "model.safetensors")?;
    let (_, sha256) = hash_file(&model)
        .await
        .map_err(|source| ObjectError::of_file(&model, source))?;
    let stored = worker
        .objects
        .put_file(&format!("models/{sha256}/model.safetensors"), &model)
        .await?;
    if stored.sha256 != sha256 {
        return Err(Fault::damaged("the weights changed while they were stored"));
    }
    Ok((imported, sha256))
}

/// Runs a validation process on a folder. The inner error: it ended without a word, was too slow, or this worker stops.
async fn run_child(
    worker: &Worker,
    folder: &Path,
    plan: &ValidatePlan,
    bytes: u64,
    shutdown: &CancellationToken,
) -> Result<Result<Validated, Ended>, Fault> {
    write_plan(folder, plan).await?;
    let (mut child, mut output) = Child::spawn(
        &worker.trainer_exe,
        &[OsStr::new("validate"), folder.as_os_str()],
    )
    .await?;
    let patience = worker.args.timing.stall() + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let said = tokio::select! {
        () = shutdown.cancelled() => Err(Ended::Stopped),
        () = tokio::time::sleep(patience) => {
            Err(Ended::Crashed(format!("the validation process took longer than {} seconds", patience.as_secs())))
        }
        said = output.receive::<Validated>() => match said? {
            Some(said) => Ok(said),
            None => {
                let how = match child.wait().await? {
                    Exit::Crashed(how) => how,
                    _ => "ended without a word".to_owned(),
                };
                Err(Ended::Crashed(format!("the validation process {how}: {}", child.log_tail())))
            }
        },
    };
    child.end().await;
    Ok(said)
}

async fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, Fault> {
    let path = plain_file(folder, name)?;
    let metadata = tokio::fs::metadata(&path)
        .await
        .map_err(|source| ObjectError::of_file(&path, source))?;
    if metadata.len() > JSON_BYTES {
        return Err(Fault::damaged(format!(
            "`{name}` has more than {JSON_BYTES} bytes"
        )));
    }
    let text = tokio::fs::read(&path)
        .await
        .map_err(|source| ObjectError::of_file(&path, source))?;
    serde_json::from_slice(&text).map_err(|error| Fault::damaged(format!("`{name}`: {error}")))
}
