//! Shared by the kinds other than training: claimed work under its lease, an upload that a child
//! checks in a folder, and how the work ended.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use crate::{
    child,
    db::{persist::persist, work},
    domain::{
        job::Failure,
        object::Descriptor,
        problem::{Problem, without_paths},
        progress::Validated,
        work::{PLAN, ValidatePlan},
    },
    objects::{At as _, ObjectError},
    sandbox::{Grants, WORK},
    worker::{
        context::Worker,
        fault::{Fault, OBJECT_DAMAGED},
        files::give,
        folder::Folder,
        layout::write_plan,
        lease::Lease,
    },
};

/// Minimum bytes per second that a validation process is expected to get through, besides
/// `stall_ms`.
const BYTES_PER_SECOND: u64 = 128 << 10;
/// Maximum size of a report or of `imported.json`.
pub(super) const JSON_BYTES: u64 = 64 << 20;

/// Claimed work.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) worker: &'a Worker,
    pub(super) claimed: &'a work::Lease,
    pub(super) lease: &'a Lease,
}

/// How work ended.
pub(super) enum Ended {
    /// Its result is written, and the lease is gone.
    Done,
    /// Another worker owns it now.
    Lost,
    /// To be retried, here or elsewhere; counts as a crash.
    Crashed(String),
    /// There was no room here. It is retried, and counts as nothing.
    Full(String),
    /// This worker shuts down.
    Stopped,
}

impl Ended {
    /// The word in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Lost => "lost",
            Self::Crashed(_) => "crashed",
            Self::Full(_) => "full",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Lost => Self::Lost,
            Fault::Object(ObjectError::StorageFull { .. }) => Self::Full(message),
            Fault::Failed(failure) if failure.code == "storage_full" => Self::Full(message),
            _ => Self::Crashed(message),
        }
    }
}

/// An upload that was checked, and what is wrong with it; nothing if it is accepted.
pub(super) struct Checked {
    /// The folder in which the process left its results.
    pub(super) folder: Folder,
    pub(super) verdict: Result<(), Vec<Problem>>,
}

impl Task<'_> {
    /// Creates an empty folder for this work.
    pub(super) fn create_folder(self) -> Result<Folder, Fault> {
        let work::Lease {
            kind,
            subject,
            token,
        } = self.claimed;
        let name = format!("{}-{}-{token}", kind.as_str(), subject.simple());
        Ok(self.worker.folders.create(&name)?)
    }

    /// Has a validation process check an upload. `param` names it in a request, and `plan` is made
    /// of its path. One whose object is damaged is refused: another try would find the same.
    ///
    /// # Errors
    /// The upload cannot be read; the process crashed, timed out, or failed in a way that another
    /// may not.
    pub(super) async fn check(
        self,
        upload: &Descriptor,
        param: &str,
        plan: impl FnOnce(PathBuf) -> ValidatePlan,
    ) -> Result<Checked, Fault> {
        let Worker {
            objects,
            sandbox,
            args,
            ..
        } = self.worker;
        let folder = self.create_folder()?;
        let input = folder.inputs().join("input");
        let refused = |code, message: &str| {
            vec![Problem {
                path: param.to_owned(),
                line: None,
                code,
                message: without_paths(message),
                samples: Vec::new(),
            }]
        };
        match objects.fetch(upload, &input).await {
            Err(error @ ObjectError::Damaged { .. }) => {
                let verdict = Err(refused(OBJECT_DAMAGED.into(), &error.to_string()));
                return Ok(Checked { folder, verdict });
            }
            fetched => fetched?,
        }
        let bytes = tokio::fs::metadata(&input).await.at(&input)?.len();
        let plan = plan(folder.seen(&input));
        write_plan(&folder.work(), &plan).await?;
        give(sandbox, &folder.inputs()).await?;
        give(sandbox, &folder.work().join(PLAN)).await?;
        let arguments = ["validate", WORK].map(OsStr::new);
        let patience = args.timing.stall + Duration::from_secs(bytes / BYTES_PER_SECOND);
        let answer =
            child::answer_of(sandbox.launch(&folder, Grants::WRITE), &arguments, patience).await;
        let verdict = match answer.map_err(|error| Fault::Unanswered("validation", error))? {
            Validated::Accepted => Ok(()),
            Validated::Refused { problems } => Err(problems),
            Validated::Failed(failure) if failure.retryable => return Err(Fault::Failed(failure)),
            Validated::Failed(Failure { code, message, .. }) => Err(refused(code, &message)),
        };
        Ok(Checked { folder, verdict })
    }

    /// Ends the heartbeats, and writes the result of the work by `write`, which ends the lease and
    /// returns false if it is lost.
    ///
    /// # Errors
    /// `Lost`.
    pub(super) async fn end<F>(self, what: &str, write: impl FnMut() -> F) -> Result<(), Fault>
    where
        F: Future<Output = sqlx::Result<bool>>,
    {
        self.lease.end();
        if persist(what, write).await? {
            Ok(())
        } else {
            Err(Fault::Lost)
        }
    }
}
