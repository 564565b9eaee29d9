//! Validates an uploaded data set: unpacks it, decodes every image, splits it, and packs it.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::child::{self, Ended, problem_of, read_json};
use crate::{
    db::{self, persist::persist, work},
    domain::{
        file::FileReport, id::FileId, problem::Problem, progress::Validated, work::ValidatePlan,
    },
    worker::{checkpoints::plain_file, context::Worker, fault::Fault, lease::Lease},
};

/// Validates a data set and writes the result.
pub(super) async fn run(
    worker: &Worker,
    claimed: &work::Lease,
    lease: &Lease,
    shutdown: &CancellationToken,
) -> Result<Ended, Fault> {
    let hex = claimed.subject.simple();
    let size = db::files::bytes_to_validate(&worker.pool, FileId(claimed.subject)).await?;
    let bytes = size.ok_or(Fault::Lost)?;
    let folder = worker
        .folders
        .create(&format!("file-{hex}-{}", claimed.token))?;
    let input = folder.path().join("input");
    let key = format!("files/{hex}/content");
    worker.objects.fetch(&key, &input).await?;
    let plan = ValidatePlan::Dataset {
        input,
        limits: worker.args.data.dataset(),
        threads: worker.threads,
    };
    let answer = match child::validate(worker, folder.path(), &plan, bytes, shutdown).await? {
        Ok(answer) => answer,
        Err(ended) => return Ok(ended),
    };
    let report = match answer {
        Validated::Accepted => return accept(worker, claimed, lease, folder.path()).await,
        Validated::Refused { problems } => {
            // The process's own report, if it left one.
            match read_json::<FileReport>(folder.path(), "report.json").await {
                Ok(report) if !report.errors.is_empty() => report,
                _ => report_of(problems),
            }
        }
        Validated::Failed(failure) if failure.retryable => return Ok(Ended::of_failure(failure)),
        Validated::Failed(failure) => report_of(vec![problem_of("file", failure)]),
    };
    lease.end();
    let details = details(&report);
    let write = || db::files::refuse(&worker.pool, claimed, &report, &details);
    Ended::done(persist("refuse a data set", write).await?)
}

async fn accept(
    worker: &Worker,
    claimed: &work::Lease,
    lease: &Lease,
    folder: &Path,
) -> Result<Ended, Fault> {
    let report: FileReport = read_json(folder, "report.json").await?;
    let pack = plain_file(folder, "pack.safetensors")?;
    let key = format!("files/{}/pack.safetensors", claimed.subject.simple());
    let stored = worker.objects.put_file(&key, &pack).await?;
    lease.end();
    let write = || db::files::accept(&worker.pool, claimed, &report, &stored.sha256, stored.bytes);
    Ended::done(persist("accept a data set", write).await?)
}

fn report_of(errors: Vec<Problem>) -> FileReport {
    FileReport {
        dataset: None,
        errors,
        warnings: Vec::new(),
        warnings_omitted: 0,
    }
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
