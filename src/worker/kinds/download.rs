//! Downloads a file by URL: streams it to the object store, and checks its hash.

use std::{io, time::Duration};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};

use super::task::Task;
use crate::{
    db::{self, downloads::ToDownload, persist::persist, work},
    domain::problem::Problem,
    objects::{ObjectError, Stored},
    outgoing::Interrupted,
    telemetry::metrics::DOWNLOADS,
    worker::fault::Fault,
};

/// Pauses before a download that broke off is tried again.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Downloads a file and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let found = db::downloads::to_download(&worker.pool, claimed.subject).await?;
    let file = found.ok_or(Fault::Lost)?;
    let mut retries = RETRIES.into_iter();
    let outcome = loop {
        match (store(task, &file).await?, retries.next()) {
            (Err(interrupted), Some(pause)) if interrupted.is_temporary() => {
                tracing::info!(work.subject = %claimed.subject, "download broke off, will retry: {interrupted}");
                tokio::time::sleep(pause).await;
            }
            (outcome, _) => break outcome,
        }
    };
    let problem = match outcome {
        Ok(stored) => match check(&file, &stored) {
            None => {
                DOWNLOADS.add(["succeeded".into()], 1);
                let Stored { bytes, sha256 } = &stored;
                let write = || db::downloads::accept(&worker.pool, claimed, *bytes, sha256);
                return task.end("accept a download", write).await;
            }
            Some(problem) => {
                let prefix = format!("files/{}", claimed.subject.simple());
                worker.objects.delete_prefix(&prefix).await?;
                problem
            }
        },
        Err(interrupted) => Problem::new("url", interrupted.code(), interrupted.to_string()),
    };
    DOWNLOADS.add(["failed".into()], 1);
    let write = || db::downloads::refuse(&worker.pool, claimed, &problem);
    task.end("refuse a download", write).await
}

/// Streams the file to the object store. Nothing remains of one that breaks off.
async fn store(task: Task<'_>, file: &ToDownload) -> Result<Result<Stored, Interrupted>, Fault> {
    let worker = task.worker;
    let limits = &worker.args.downloads;
    let bytes = match worker.outgoing.download(&file.url, limits).await {
        Ok(bytes) => bytes,
        Err(interrupted) => return Ok(Err(interrupted)),
    };
    // A complete object replaces that of another worker, so the lease is confirmed first.
    let ttl = worker.args.timing.leases.lease;
    let confirmed = stream::once(async move {
        let renew = || work::renew(&worker.pool, task.claimed, ttl);
        match persist("confirming a lease", renew).await {
            Ok(Some(_)) => Ok(Bytes::new()),
            Ok(None) => Err(io::Error::other(Fault::Lost)),
            Err(error) => Err(io::Error::other(Fault::Database(error))),
        }
    });
    let bytes = Box::pin(bytes.chain(confirmed));
    let key = format!("files/{}/content", task.claimed.subject.simple());
    match worker.objects.put_stream(&key, bytes).await {
        Ok(stored) => Ok(Ok(stored)),
        Err(ObjectError::Input(error)) => match error.downcast::<Interrupted>() {
            Ok(interrupted) => Ok(Err(interrupted)),
            Err(other) => Err(other.downcast::<Fault>().unwrap_or(Fault::Lost)),
        },
        Err(error) => Err(error.into()),
    }
}

/// The problem of a file that was downloaded whole, if there is one.
fn check(file: &ToDownload, stored: &Stored) -> Option<Problem> {
    if stored.bytes == 0 {
        let message = "the file is empty; check the URL";
        return Some(Problem::new("url", "empty_file", message));
    }
    let expected = file.sha256.as_ref()?;
    let message = format!(
        "the file has the SHA-256 `{}`, not `{expected}`; check both, or that the file has not changed",
        stored.sha256
    );
    (*expected != stored.sha256).then(|| Problem::new("sha256", "wrong_sha256", message))
}
