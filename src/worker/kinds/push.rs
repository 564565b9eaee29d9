//! Pushes a fine-tuned model to a hub, as timm loads it. Doing it again changes nothing, so that
//! whoever takes over from a worker that died starts anew.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use super::task::Task;
use crate::{
    db::pushes::{self, Contents, ToPush},
    domain::{
        checkpoint::ManifestEntry,
        job::Failure,
        object::MODEL,
        publish::{self, Published, TEXT_BYTES},
        repository::{CARD, CONFIG},
    },
    objects::{At as _, ObjectError, hash_file},
    outgoing::{PushedFile, ToHub},
    worker::{
        fault::{Fault, OBJECT_DAMAGED},
        folder::Folder,
    },
};

/// Files of a bundle that go along as they are. The golden inputs stay: they are images of the
/// training data.
const OTHERS: [&str; 3] = ["labels.json", "preprocess.json", MODEL];
/// Pauses before a push that broke off is tried again.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Longest pause that the hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pushes a model and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let pool = &task.worker.pool;
    let asked = pushes::to_push(pool, task.claimed).await?;
    let asked = asked.ok_or(Fault::Lost)?;
    let outcome = match &asked.contents {
        None => {
            let message = "the model was deleted while the push waited; push another";
            Err(Failure::permanent("input_gone", message))
        }
        Some(contents) => match push(task, &asked, contents).await {
            Ok(commit) => Ok(commit),
            Err(Fault::Failed(failure)) => Err(failure),
            Err(Fault::Object(error @ ObjectError::Damaged { .. })) => {
                Err(Failure::permanent(OBJECT_DAMAGED, error.to_string()))
            }
            Err(fault) => return Err(fault),
        },
    };
    let write = || pushes::end(pool, task.claimed, outcome.as_deref());
    task.end("end a push", write).await
}

async fn push(task: Task<'_>, asked: &ToPush, contents: &Contents) -> Result<String, Fault> {
    let worker = task.worker;
    let limits = &worker.args.pushes;
    let end = Instant::now() + limits.push_time;
    let folder = task.create_folder()?;
    let files = write_files(task, asked, contents, &folder).await?;
    let to_hub = ToHub {
        repository: &asked.repository,
        branch: &asked.branch,
        private: asked.private,
        message: &asked.message,
        files: &files,
        limits,
        end,
    };
    let mut retries = RETRIES.into_iter();
    loop {
        let error = match worker.outgoing.push(&to_hub).await {
            Ok(commit) => return Ok(commit),
            Err(error) => error,
        };
        let subject = task.claimed.subject;
        let pause = retries.next().filter(|_| error.is_temporary());
        let pause = pause.map(|pause| error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE));
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < end) else {
            tracing::info!(work.subject = %subject, "push failed: {error}");
            let failure = Failure::permanent(error.code(), error.to_string());
            return Err(Fault::Failed(failure));
        };
        tracing::info!(work.subject = %subject, "push broke off, will retry: {error}");
        tokio::time::sleep(pause).await;
    }
}

/// Writes the files of the repository into the folder.
async fn write_files(
    task: Task<'_>,
    asked: &ToPush,
    contents: &Contents,
    folder: &Folder,
) -> Result<Vec<PushedFile>, Fault> {
    let (objects, bundle) = (&task.worker.objects, &contents.bundle);
    let config = objects.bundle_file(bundle, CONFIG, TEXT_BYTES).await?;
    let card = objects.bundle_file(bundle, CARD, TEXT_BYTES).await?;
    let (config, card) = publish::read(&config, &card).map_err(|reason| {
        let message = format!("model `{}` {reason}", asked.model);
        Fault::Failed(Failure::permanent("unfit_model", message))
    })?;
    let base_url = contents.base_url.as_deref();
    let base = base_url.and_then(|url| task.worker.outgoing.repository_of(url));
    let published = Published {
        model: &asked.model,
        repository: &asked.repository,
        branch: &asked.branch,
        license: contents.license.as_deref(),
        base_repository: base.as_deref(),
        report: contents.report.as_ref(),
    };
    let target = folder.inputs();
    let config = format!("{:#}\n", published.config(&config));
    let mut files = Vec::new();
    for (name, text) in [(CONFIG, config), (CARD, published.card(&card))] {
        let path = target.join(name);
        tokio::fs::write(&path, text).await.at(&path)?;
        files.push(file(name, &path).await?);
    }
    for object in objects.bundle(bundle).await? {
        if let Some(name) = OTHERS.into_iter().find(|name| *name == object.name()) {
            let path = target.join(name);
            objects.fetch(&object, &path).await?;
            files.push(file(name, &path).await?);
        }
    }
    Ok(files)
}

async fn file(name: &'static str, path: &Path) -> Result<PushedFile, Fault> {
    Ok(PushedFile {
        name,
        path: path.to_owned(),
        content: ManifestEntry::from(hash_file(path).await.at(path)?),
    })
}
