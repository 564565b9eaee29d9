//! Shared by the kinds: a child that checks an upload in a folder, and how its work ended.

use std::{ffi::OsStr, path::Path, time::Duration};

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    child::{Child, Exit},
    domain::{
        problem::Problem,
        progress::{Failure, Validated},
        work::ValidatePlan,
    },
    objects::ObjectError,
    worker::{checkpoints::plain_file, context::Worker, fault::Fault, layout::write_plan},
};

/// Minimum bytes per second that a validation process is expected to get through, besides
/// `stall_ms`.
const BYTES_PER_SECOND: u64 = 128 << 10;
/// Maximum size of a report or of `imported.json`.
const JSON_BYTES: u64 = 64 << 20;

/// How work ended whose lease was not lost.
pub(super) enum Ended {
    /// Its result is written, and the lease is gone.
    Done,
    /// To be retried, here or elsewhere; counts as a crash.
    Crashed(String),
    /// There was no room here. It is retried, and counts as nothing.
    Full(String),
    /// This worker shuts down.
    Stopped,
}

impl Ended {
    /// `written`: the result is in the database.
    ///
    /// # Errors
    /// `Lost` if it is not.
    pub(super) fn done(written: bool) -> Result<Self, Fault> {
        if written {
            Ok(Self::Done)
        } else {
            Err(Fault::Lost)
        }
    }

    pub(super) fn of(fault: &Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Object(ObjectError::StorageFull { .. }) => Self::Full(message),
            _ => Self::Crashed(message),
        }
    }

    /// For a failure of the child that another attempt may not have.
    pub(super) fn of_failure(failure: Failure) -> Self {
        match failure.code.as_str() {
            "storage_full" => Self::Full(failure.message),
            _ => Self::Crashed(failure.message),
        }
    }
}

pub(super) fn problem_of(path: &str, failure: Failure) -> Problem {
    Problem {
        path: path.to_owned(),
        line: None,
        code: failure.code,
        message: failure.message,
    }
}

/// Runs a validation process on a folder. The inner error: it crashed, timed out, or this worker
/// shuts down.
pub(super) async fn validate(
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
    let timeout = worker.args.timing.stall + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let answer = tokio::select! {
        () = shutdown.cancelled() => Err(Ended::Stopped),
        () = tokio::time::sleep(timeout) => {
            Err(Ended::Crashed(format!("the validation process took longer than {} seconds", timeout.as_secs())))
        }
        answer = output.receive::<Validated>() => match answer? {
            Some(answer) => Ok(answer),
            None => {
                let how = match child.wait().await? {
                    Exit::Crashed(how) => how,
                    _ => "exited without an answer".to_owned(),
                };
                Err(Ended::Crashed(format!("the validation process {how}: {}", child.log_tail())))
            }
        },
    };
    child.end().await;
    Ok(answer)
}

/// Reads a file that a child wrote, of limited size.
///
/// # Errors
/// It is missing, no plain file, too large, or not such JSON.
pub(super) async fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, Fault> {
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
