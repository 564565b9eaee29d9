//! `?wait=`: how long an answer may be held back.

use std::time::Duration;

use crate::{config::HttpLimits, domain::codes, http::api::error::ApiError};

/// The wait asked for, none when left out.
///
/// # Errors
/// More than the service holds an answer back.
pub(crate) fn seconds(wait: Option<u64>, limits: &HttpLimits) -> Result<Duration, ApiError> {
    let wait = wait.unwrap_or(0);
    if wait > limits.max_wait_seconds {
        let message = format!(
            "must be from 0 to {}; ask again after that",
            limits.max_wait_seconds
        );
        return Err(ApiError::invalid("wait", codes::OUT_OF_RANGE, message));
    }
    Ok(Duration::from_secs(wait))
}
