//! Exports a model as TorchScript. A child process writes it, and a second one checks it against
//! the bundle's golden logits.

use std::{ffi::OsStr, path::Path};

use tokio_util::sync::CancellationToken;

use super::child::Ended;
use crate::{
    child,
    db::{exports, persist::persist, work},
    domain::{
        id::JobId,
        progress::{Failure, Verified},
    },
    objects::ObjectError,
    worker::{checkpoints::plain_file, context::Worker, fault::Fault, lease::Lease},
};

/// Name of the file that the child writes.
const FILE: &str = "model.pt";

/// Exports a model and writes the result.
pub(super) async fn run(
    worker: &Worker,
    claimed: &work::Lease,
    lease: &Lease,
    shutdown: &CancellationToken,
) -> Result<Ended, Fault> {
    let found = exports::bundle(&worker.pool, claimed.subject).await?;
    let bundle = found.ok_or(Fault::Lost)?;
    let name = format!("export-{}-{}", claimed.subject.simple(), claimed.token);
    let folder = worker.folders.create(&name)?;
    let job = JobId(claimed.subject);
    let written = tokio::select! {
        () = shutdown.cancelled() => return Ok(Ended::Stopped),
        written = write(worker, &bundle, job, folder.path()) => written,
    };
    let failure = match written {
        Ok(()) => None,
        Err(Fault::Failed(failure)) if !failure.retryable => Some(failure),
        // The request that waits tells its user, who can free space and try again.
        Err(Fault::Object(error @ ObjectError::StorageFull { .. })) => Some(Failure {
            code: "storage_full".to_owned(),
            message: error.to_string(),
            retryable: true,
        }),
        Err(fault) => return Err(fault),
    };
    lease.end();
    let write = || exports::end(&worker.pool, claimed, failure.as_ref());
    Ended::done(persist("end an export", write).await?)
}

/// Stores the TorchScript of a bundle.
async fn write(worker: &Worker, bundle: &str, job: JobId, folder: &Path) -> Result<(), Fault> {
    let unpacked = folder.join("bundle");
    for key in worker.objects.list_prefix(bundle).await? {
        let target = unpacked.join(key.strip_prefix(bundle).unwrap_or(&key));
        if let Some(parent) = target.parent() {
            tokio::fs::create_dir_all(parent)
                .await
                .map_err(|source| ObjectError::of_file(parent, source))?;
        }
        worker.objects.fetch(&key, &target).await?;
    }
    let target = folder.join(FILE);
    let arguments = [
        OsStr::new("script"),
        unpacked.as_os_str(),
        target.as_os_str(),
    ];
    match child::answer_of(&worker.trainer_exe, &arguments, exports::TIMEOUT).await {
        Ok(Verified::Same { .. }) => {}
        Ok(Verified::Failed(failure)) => return Err(Fault::Failed(failure)),
        Err(unanswered) => {
            return Err(Fault::Failed(Failure {
                code: exports::UNFINISHED.to_owned(),
                message: format!("the export process gave no answer: {unanswered}"),
                retryable: true,
            }));
        }
    }
    let script = plain_file(folder, FILE)?;
    worker
        .objects
        .put_file(&exports::script_key(job), &script)
        .await?;
    Ok(())
}
