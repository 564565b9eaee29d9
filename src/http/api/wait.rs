//! `?wait=`: how long a response is held back.

use std::time::Duration;

use crate::{config::HttpLimits, domain::codes, http::api::error::ApiError};

/// The requested wait; zero when left out.
///
/// # Errors
/// It is longer than the service holds a response back.
pub(crate) fn seconds(wait: Option<u64>, limits: &HttpLimits) -> Result<Duration, ApiError> {
    let wait = wait.unwrap_or(0);
    if wait > limits.max_wait_seconds {
        let message = format!(
            "must be from 0 to {} seconds; send the request again after that",
            limits.max_wait_seconds
        );
        return Err(ApiError::invalid("wait", codes::OUT_OF_RANGE, message));
    }
    Ok(Duration::from_secs(wait))
}
