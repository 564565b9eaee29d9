//! Exports a model as a file of another format. A child process writes it, and a second one checks
//! it against the bundle's golden logits.

use std::{ffi::OsStr, path::Path};

use super::task::Task;
use crate::{
    child,
    db::exports::{self, ToExport},
    domain::{
        checkpoint::ManifestEntry,
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

/// Exports a model and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let pool = &task.worker.pool;
    let model = exports::to_export(pool, task.claimed.subject).await?;
    let folder = task.create_folder()?;
    let outcome = match write(task, &model.ok_or(Fault::Lost)?, &folder).await {
        Ok(object) => Ok(object),
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

/// Stores the file of a model.
async fn write(task: Task<'_>, model: &ToExport, folder: &Folder) -> Result<ManifestEntry, Fault> {
    let Worker {
        objects, sandbox, ..
    } = task.worker;
    let unpacked = folder.inputs().join(BUNDLE);
    std::fs::create_dir(&unpacked)?;
    for object in objects.bundle(&model.bundle).await? {
        objects
            .fetch(&object, &unpacked.join(object.name()))
            .await?;
    }
    give(sandbox, &folder.inputs()).await?;
    let bundle = Path::new(INPUTS).join(BUNDLE);
    let name = model.format.file_name();
    let target = Path::new(WORK).join(&name);
    let arguments = [
        OsStr::new("export"),
        bundle.as_os_str(),
        target.as_os_str(),
        OsStr::new("--format"),
        OsStr::new(model.format.as_str()),
    ];
    let launch = sandbox.launch(folder, Grants::WRITE);
    let answer = child::answer_of(launch, &arguments, exports::TIMEOUT).await;
    match answer.map_err(|error| Fault::Unanswered("the export", error))? {
        Verified::Same { .. } => {}
        Verified::Failed(failure) => return Err(Fault::Failed(failure)),
    }
    let key = exports::key(model.job, model.format);
    let file = plain_file(&folder.work(), &name)?;
    Ok(objects.put_file(&key, &file).await?.into())
}
