//! Why the hub gets no commit.

use std::time::Duration;

use super::client::{Refused, Unsent};

/// Why a model was not pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error(
        "pushes are turned off on this service; export the model instead, or have the operator set `--hub-push-owners`"
    )]
    Off,
    #[error("the hub is turned off on this service (`--hub-offline`); export the model instead")]
    Offline,
    #[error("the service has no token for the hub; have the operator set `--hub-token`")]
    NoToken,
    #[error(
        "the owner `{0}` is not in the list of those below whose names models are pushed; ask the operator to add it to `--hub-push-owners`"
    )]
    Owner(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "the hub lets this service not write to `{repository}` ({status}{reason}); have the operator set `--hub-token` to a token with write access to it"
    )]
    Denied {
        repository: String,
        status: u16,
        reason: String,
    },
    #[error(
        "the hub has no owner or repository `{0}` that this service can see; check the name, and the access of `--hub-token`"
    )]
    NotFound(String),
    #[error("the hub has had too many requests; try again in {} s", .0.unwrap_or(Duration::from_secs(60)).as_secs())]
    TooManyRequests(Option<Duration>),
    #[error("the push did not get through: {0}; try again")]
    Unreachable(String),
    #[error("the hub refuses the push: {0}")]
    Rejected(String),
    /// A file of this machine.
    #[error("cannot read `{0}`: {1}")]
    File(&'static str, String),
}

impl PushError {
    /// The code of the problem, as docs/errors.md lists it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Off | Self::Offline | Self::NoToken | Self::Owner(_) | Self::Refused(_) => {
                "hub_not_allowed"
            }
            Self::Denied { .. } => "push_denied",
            Self::NotFound(_) => "unknown_repository",
            Self::TooManyRequests(_) | Self::Unreachable(_) => "hub_unreachable",
            Self::Rejected(_) | Self::File(..) => "push_rejected",
        }
    }

    /// True when another try may succeed.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::TooManyRequests(_) | Self::Unreachable(_) | Self::File(..)
        )
    }

    /// The pause before another try that the hub asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests(pause) => *pause,
            _ => None,
        }
    }

    pub(super) fn timed_out() -> Self {
        Self::Unreachable("no answer in time".to_owned())
    }
}

impl From<Refused> for PushError {
    fn from(refused: Refused) -> Self {
        Self::Refused(format!("the hub, or where it stores files, {refused}"))
    }
}

impl From<Unsent> for PushError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Refused(refused) => refused.into(),
            other => Self::Unreachable(other.to_string()),
        }
    }
}
