//! Exports a model as TorchScript. A child process writes it, and a second one checks it against
//! the bundle's golden logits.

use std::{ffi::OsStr, path::Path};

use super::task::Task;
use crate::{
    child,
    db::exports,
    domain::{
        checkpoint::ManifestEntry,
        id::JobId,
        object::Bundle,
        progress::{Failure, Verified},
    },
    objects::ObjectError,
    sandbox::{Grants, INPUTS, WORK},
    worker::{
        context::Worker,
        fault::{Fault, OBJECT_DAMAGED},
        files::{give, plain_file},
        folder::Folder,
    },
};

/// Name of the bundle's folder.
const BUNDLE: &str = "bundle";
/// Name of the file that the child writes.
const FILE: &str = "model.pt";

/// Exports a model and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let pool = &task.worker.pool;
    let bundle = exports::bundle(pool, task.claimed.subject).await?;
    let folder = task.create_folder()?;
    let outcome = match write(task, &bundle.ok_or(Fault::Lost)?, &folder).await {
        Ok(script) => Ok(script),
        Err(Fault::Failed(failure)) if !failure.retryable || failure.code == "storage_full" => {
            Err(failure)
        }
        // The request that waits tells its user, who can free space and try again.
        Err(Fault::Object(error @ ObjectError::StorageFull { .. })) => {
            Err(Failure::retryable("storage_full", error.to_string()))
        }
        Err(Fault::Object(error @ ObjectError::Damaged { .. })) => {
            Err(Failure::permanent(OBJECT_DAMAGED, error.to_string()))
        }
        Err(fault) => return Err(fault),
    };
    let write = || exports::end(pool, task.claimed, outcome.as_ref());
    task.end("end an export", write).await
}

/// Stores the TorchScript of a bundle.
async fn write(task: Task<'_>, bundle: &Bundle, folder: &Folder) -> Result<ManifestEntry, Fault> {
    let Worker {
        objects, sandbox, ..
    } = task.worker;
    let unpacked = folder.inputs().join(BUNDLE);
    std::fs::create_dir(&unpacked)?;
    for object in objects.bundle(bundle).await? {
        objects
            .fetch(&object, &unpacked.join(object.name()))
            .await?;
    }
    give(sandbox, &folder.inputs()).await?;
    let bundle = Path::new(INPUTS).join(BUNDLE);
    let target = Path::new(WORK).join(FILE);
    let arguments = [OsStr::new("script"), bundle.as_os_str(), target.as_os_str()];
    let launch = sandbox.launch(folder, Grants::WRITE);
    let answer = child::answer_of(launch, &arguments, exports::TIMEOUT).await;
    match answer.map_err(|error| Fault::Unanswered("the export", error))? {
        Verified::Same { .. } => {}
        Verified::Failed(failure) => return Err(Fault::Failed(failure)),
    }
    let key = exports::script_key(JobId(task.claimed.subject));
    let file = plain_file(&folder.work(), FILE)?;
    Ok(objects.put_file(&key, &file).await?.into())
}
