//! Validates an uploaded data set: unpacks it, decodes every image, splits it, and packs it.

use super::task::{Checked, JSON_BYTES, Task};
use crate::{
    db::files::{self, PACK},
    domain::{file::FileReport, id::FileId, work::ValidatePlan},
    worker::{
        fault::Fault,
        files::{plain_file, read_json},
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
    let written = read_json::<FileReport>(&folder.work(), REPORT, JSON_BYTES).await;
    let report = match verdict {
        Ok(()) => {
            let report = written?;
            let pack = plain_file(&folder.work(), PACK)?;
            let key = files::prefix(id) + PACK;
            let pack = worker.objects.put_file(&key, &pack).await?;
            let write = || files::accept(&worker.pool, claimed, &report, &pack.sha256, pack.bytes);
            return task.end("accept a data set", write).await;
        }
        // The process's own report, if it left one.
        Err(problems) => written
            .ok()
            .filter(|report| !report.errors.is_empty())
            .unwrap_or_else(|| FileReport::refused(problems)),
    };
    let details = details(&report);
    let write = || files::refuse(&worker.pool, claimed, &report, &details);
    task.end("refuse a data set", write).await
}

/// One sentence for `status_details`.
fn details(report: &FileReport) -> String {
    let first = report
        .errors
        .first()
        .map_or("the file is not usable", |problem| problem.message.as_str());
    match report.errors.len() {
        0 | 1 => first.to_owned(),
        count => format!("{first} (and {} more problems, see the report)", count - 1),
    }
}
