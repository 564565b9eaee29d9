//! Why an attempt, a validation or an import ends other than by its child's own message.

use crate::{
    child::{LineError, Unanswered},
    domain::job::{Failure, Outcome},
    objects::ObjectError,
};

/// A stored object has other bytes than when it was stored.
pub(super) const OBJECT_DAMAGED: &str = "object_damaged";

/// An error that ends the work under a lease.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Another attempt owns the work: write nothing more.
    #[error("the lease was lost")]
    Lost,
    /// A file that the child left and that is not what it should be.
    #[error("{0}")]
    Result(String),
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A statement that Postgres would refuse again.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("cannot start or reach the trainer: {0}")]
    Trainer(#[from] std::io::Error),
    #[error("invalid message from the trainer: {0}")]
    Line(#[from] LineError),
    /// A process gave no verdict on what it was to check.
    #[error("{0} failed: {1}")]
    Unanswered(&'static str, Unanswered),
    /// The child reported a failure.
    #[error("{}", .0.message)]
    Failed(Failure),
}

impl Fault {
    pub(super) fn result(message: impl Into<String>) -> Self {
        Self::Result(message.into())
    }

    /// The outcome of the attempt; `None` when the lease is lost, and the outcome no longer this
    /// worker's to decide. All but a child's own failures and a damaged object may pass in another
    /// attempt.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let code = match self {
            Self::Lost => return None,
            Self::Failed(failure) => return Some(Outcome::Failed(failure.clone())),
            Self::Object(error @ ObjectError::Damaged { .. }) => {
                let failure = Failure::permanent(OBJECT_DAMAGED, error.to_string());
                return Some(Outcome::Failed(failure));
            }
            Self::Trainer(_) | Self::Line(_) | Self::Unanswered(..) => {
                return Some(Outcome::Crashed {
                    message: self.to_string(),
                });
            }
            Self::Object(ObjectError::StorageFull { .. }) => "storage_full",
            Self::Object(_) => "storage_error",
            Self::Result(_) => "result_damaged",
            Self::Database(_) => "internal_error",
        };
        let failure = Failure::retryable(code, self.to_string());
        Some(Outcome::Failed(failure))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn full_disk_keeps_its_code_and_lost_lease_has_no_outcome() {
        let full = ObjectError::of_file(
            Path::new("x"),
            std::io::Error::from_raw_os_error(libc::ENOSPC),
        );
        let outcome = Fault::from(full).outcome();
        assert!(
            matches!(outcome, Some(Outcome::Failed(Failure { code, retryable: true, .. })) if code == "storage_full")
        );
        assert_eq!(Fault::Lost.outcome(), None);
    }
}
