//! Imports a base model: checks its weights and converts them.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::child::{self, Ended, problem_of, read_json};
use crate::{
    db::{self, persist::persist, work},
    domain::{
        problem::Problem,
        progress::Validated,
        work::{Imported, ValidatePlan},
    },
    objects::ObjectError,
    worker::{
        cache::hash_file, checkpoints::plain_file, context::Worker, fault::Fault, lease::Lease,
    },
};

/// Imports a base model and writes the result.
pub(super) async fn run(
    worker: &Worker,
    claimed: &work::Lease,
    lease: &Lease,
    shutdown: &CancellationToken,
) -> Result<Ended, Fault> {
    let found = db::models::to_import(&worker.pool, claimed.subject).await?;
    let import = found.ok_or(Fault::Lost)?;
    let name = format!("import-{}-{}", claimed.subject.simple(), claimed.token);
    let folder = worker.folders.create(&name)?;
    let input = folder.path().join("input");
    let key = format!("files/{}/content", import.weights_file.0.simple());
    worker.objects.fetch(&key, &input).await?;
    let bytes = worker.objects.size(&key).await?;
    let plan = ValidatePlan::Weights {
        input,
        architecture: import.architecture,
        max_bytes: worker.args.data.max_weights_bytes,
        preprocessing: import.preprocessing,
    };
    let answer = match child::validate(worker, folder.path(), &plan, bytes, shutdown).await? {
        Ok(answer) => answer,
        Err(ended) => return Ok(ended),
    };
    let problems = match answer {
        Validated::Accepted => match keep_weights(worker, folder.path()).await {
            Ok((imported, sha256)) => {
                lease.end();
                let write = || db::models::accept_import(&worker.pool, claimed, &imported, &sha256);
                return Ended::done(persist("accept a base model", write).await?);
            }
            Err(Fault::Object(ObjectError::StorageFull { .. })) => {
                let message = "the service's storage is full, so the weights could not be kept; try again later";
                vec![Problem::new("weights.file", "storage_full", message)]
            }
            Err(fault) => return Err(fault),
        },
        Validated::Refused { problems } => problems,
        Validated::Failed(failure) if failure.retryable => return Ok(Ended::of_failure(failure)),
        Validated::Failed(failure) => vec![problem_of("weights.file", failure)],
    };
    lease.end();
    let write = || db::models::refuse_import(&worker.pool, claimed, &problems);
    Ended::done(persist("refuse a base model", write).await?)
}

/// Stores converted weights under their hash.
async fn keep_weights(worker: &Worker, folder: &Path) -> Result<(Imported, String), Fault> {
    let imported: Imported = read_json(folder, "imported.json").await?;
    let model = plain_file(folder, "model.safetensors")?;
    let (_, sha256) = hash_file(&model)
        .await
        .map_err(|source| ObjectError::of_file(&model, source))?;
    let key = format!("models/{sha256}/model.safetensors");
    let stored = worker.objects.put_file(&key, &model).await?;
    if stored.sha256 != sha256 {
        return Err(Fault::damaged("the weights changed while they were stored"));
    }
    Ok((imported, sha256))
}
