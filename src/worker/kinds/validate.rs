//! Validates an uploaded data set: unpacks it, decodes every image, splits it, and packs it.

use super::task::{Checked, JSON_BYTES, Task};
use crate::{
    db::{
        files::{self, PACK, Validated},
        thumbnails,
    },
    domain::{
        file::FileReport, id::FileId, problem::Problem, sample_index::THUMBNAILS,
        work::ValidatePlan,
    },
    worker::{
        fault::Fault,
        files::{plain_file, read_json},
        folder::Folder,
    },
};

const REPORT: &str = "report.json";

/// Validates a data set and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let id = FileId(claimed.subject);
    let upload = files::upload(&worker.pool, id).await?.ok_or(Fault::Lost)?;
    let plan = |input| ValidatePlan::Dataset {
        input,
        limits: worker.args.data.dataset(),
        threads: worker.threads,
    };
    let Checked { folder, verdict } = task.check(&upload, "file", plan).await?;
    let report = match verdict {
        Ok(()) => {
            let validated = store(task, id, &folder).await?;
            let write = || files::accept(&worker.pool, claimed, &validated);
            return task.end("accept a data set", write).await;
        }
        Err(problems) => refusal(&folder, problems).await,
    };
    let details = details(&report);
    let write = || files::refuse(&worker.pool, claimed, &report, &details);
    task.end("refuse a data set", write).await
}

/// Stores what the process made of an accepted data set.
pub(super) async fn store(task: Task<'_>, id: FileId, folder: &Folder) -> Result<Validated, Fault> {
    let (objects, work) = (&task.worker.objects, folder.work());
    let report = read_json::<FileReport>(&work, REPORT, JSON_BYTES).await?;
    let pack = plain_file(&work, PACK)?;
    let pack = objects.put_file(&thumbnails::pack_key(id), &pack).await?;
    let small = plain_file(&work, THUMBNAILS)?;
    let small = objects.put_file(&thumbnails::key(id), &small).await?;
    Ok(Validated {
        report,
        pack: pack.into(),
        thumbnails_bytes: small.bytes,
    })
}

/// The report of a data set that was refused: the process's own, if it left one.
pub(super) async fn refusal(folder: &Folder, problems: Vec<Problem>) -> FileReport {
    let written = read_json::<FileReport>(&folder.work(), REPORT, JSON_BYTES).await;
    written
        .ok()
        .filter(|report| !report.errors.is_empty())
        .unwrap_or_else(|| FileReport::refused(problems))
}

/// One sentence for `status_details`.
pub(super) fn details(report: &FileReport) -> String {
    let first = report
        .errors
        .first()
        .map_or("the file is not usable", |problem| problem.message.as_str());
    match report.errors.len() {
        0 | 1 => first.to_owned(),
        count => format!("{first} (and {} more problems, see the report)", count - 1),
    }
}
