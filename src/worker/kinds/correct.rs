//! Makes a data set of another by corrections: a child writes an archive of what is left, with a
//! manifest of its labels and splits, and validates it as if it had been uploaded.

use super::{
    task::{Checked, Task},
    validate::{details, refusal, store},
};
use crate::{
    db::{corrections, files::content_key},
    domain::{
        id::FileId,
        work::{CORRECTED, ValidatePlan},
    },
    worker::{fault::Fault, files::plain_file},
};

/// Makes a data set and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let id = FileId(claimed.subject);
    let source = corrections::to_correct(&worker.pool, id.0).await?;
    let source = source.ok_or(Fault::Lost)?;
    let plan = |input| ValidatePlan::Corrected {
        input,
        corrections: source.corrections,
        limits: worker.args.data.dataset(),
        threads: worker.threads,
    };
    let Checked { folder, verdict } = task.check(&source.pack, "file", plan).await?;
    if let Err(problems) = verdict {
        let report = refusal(&folder, problems).await;
        let details = details(&report);
        let write = || corrections::refuse(&worker.pool, claimed, &report, &details);
        return task.end("refuse a corrected data set", write).await;
    }
    let content = plain_file(&folder.work(), CORRECTED)?;
    let content = worker.objects.put_file(&content_key(id), &content).await?;
    let (content, validated) = (content.into(), store(task, id, &folder).await?);
    let write = || corrections::accept(&worker.pool, claimed, &content, &validated);
    task.end("accept a corrected data set", write).await
}
