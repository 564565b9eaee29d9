//! Makes the thumbnails of a data set that was validated before there were any.

use super::task::{Checked, Task};
use crate::{
    db::thumbnails,
    domain::{id::FileId, sample_index::THUMBNAILS, work::ValidatePlan},
    worker::{fault::Fault, files::plain_file},
};

/// Makes thumbnails and stores them.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let id = FileId(claimed.subject);
    let pack = thumbnails::to_make(&worker.pool, id.0).await?;
    let pack = pack.ok_or(Fault::Lost)?;
    let plan = |input| ValidatePlan::Thumbnails {
        input,
        limits: worker.args.data.dataset(),
        threads: worker.threads,
    };
    let Checked { folder, verdict } = task.check(&pack, "file", plan).await?;
    if let Err(problems) = verdict {
        let why = problems.first().map(|problem| &problem.message);
        tracing::warn!(file.id = %id, ?why, "cannot make thumbnails");
        let write = || thumbnails::give_up(&worker.pool, claimed);
        return task.end("give up thumbnails", write).await;
    }
    let small = plain_file(&folder.work(), THUMBNAILS)?;
    let stored = worker
        .objects
        .put_file(&thumbnails::key(id), &small)
        .await?;
    let write = || thumbnails::accept(&worker.pool, claimed, stored.bytes);
    task.end("accept thumbnails", write).await
}
