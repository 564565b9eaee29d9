//! Errors of serving.

use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("too many predictions are waiting")]
    Busy,
    #[error("no prediction within {seconds} seconds")]
    TimedOut { seconds: u64 },
    /// The inference process ended on the first try and on the second.
    #[error("the inference process ended twice while it predicted these images")]
    Crashed,
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A bundle that cannot be served, or a folder that cannot be written.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}
