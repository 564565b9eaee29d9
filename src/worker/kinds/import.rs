//! Imports a base model: checks its weights and converts them.

use std::path::Path;

use super::task::{Checked, JSON_BYTES, Task};
use crate::{
    db,
    domain::{
        problem::Problem,
        work::{Imported, ValidatePlan},
    },
    objects::{At, ObjectError, hash_file},
    worker::{
        context::Worker,
        fault::Fault,
        files::{plain_file, read_json},
    },
};

/// Name of the weights in a request.
const PARAM: &str = "weights.file";

/// Imports a base model and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let found = db::models::to_import(&worker.pool, claimed.subject).await?;
    let import = found.ok_or(Fault::Lost)?;
    let plan = |input| ValidatePlan::Weights {
        input,
        architecture: import.architecture,
        max_bytes: worker.args.data.max_weights_bytes,
        preprocessing: import.preprocessing,
    };
    let upload = db::files::upload(&worker.pool, import.weights_file).await?;
    let upload = upload.ok_or(Fault::Lost)?;
    let Checked { folder, verdict } = task.check(&upload, PARAM, plan).await?;
    let problems = match verdict {
        Ok(()) => match keep_weights(worker, &folder.work()).await {
            Ok((imported, sha256)) => {
                let write = || db::models::accept_import(&worker.pool, claimed, &imported, &sha256);
                return task.end("accept a base model", write).await;
            }
            Err(Fault::Object(ObjectError::StorageFull { .. })) => {
                let message = "the service's storage is full, so the weights could not be kept; try again later";
                vec![Problem::new(PARAM, "storage_full", message)]
            }
            Err(fault) => return Err(fault),
        },
        Err(problems) => problems,
    };
    let write = || db::models::refuse_import(&worker.pool, claimed, &problems);
    task.end("refuse a base model", write).await
}

/// Stores converted weights under their hash.
async fn keep_weights(worker: &Worker, folder: &Path) -> Result<(Imported, String), Fault> {
    let imported: Imported = read_json(folder, "imported.json", JSON_BYTES).await?;
    let model = plain_file(folder, "model.safetensors")?;
    let sha256 = hash_file(&model).await.at(&model)?.sha256;
    let key = format!("models/{sha256}/model.safetensors");
    let stored = worker.objects.put_file(&key, &model).await?;
    if stored.sha256 != sha256 {
        return Err(Fault::result("the weights changed while they were stored"));
    }
    Ok((imported, sha256))
}
