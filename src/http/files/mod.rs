//! `/v1/files`: data sets and weights. Their bytes are streamed to the object store; a worker
//! validates them.

pub(crate) mod corrections;
pub(crate) mod create;
pub(crate) mod download;
pub(crate) mod read;
pub(crate) mod samples;
pub(crate) mod unkept;

use crate::{
    db,
    domain::{codes, file::UploadPurpose, limits::FILENAME_CHARACTERS},
    http::api::{error::ApiError, identity::Identity, quotas::UploadBytes, state::AppState},
};

/// Counts the bytes of an upload, or of a part of one.
///
/// # Errors
/// 429: the tenant stores as much as it may. Without an answer, clients would send all that cannot
/// be stored.
pub(crate) async fn count_bytes(
    state: &AppState,
    identity: &Identity,
) -> Result<UploadBytes, ApiError> {
    let stored = db::files::stored_bytes(&state.pool, identity.tenant).await?;
    let bytes = state.quotas.upload_bytes(identity, stored);
    bytes.count(0)?;
    Ok(bytes)
}

/// # Errors
/// The text is no purpose.
pub(crate) fn parse_purpose(text: &str) -> Result<UploadPurpose, ApiError> {
    text.parse().map_err(|_| {
        let given: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        let message =
            format!("must be `fine-tune` for a data set or `weights` for weights, not `{given}`");
        ApiError::invalid("purpose", codes::INVALID_VALUE, message)
    })
}

/// The problem of a file's name, if it has one.
pub(crate) fn problem_of_name(filename: &str) -> Option<&'static str> {
    if filename.is_empty() {
        Some("the part `file` has no file name; send one as curl's `-F file=@data.zip` does")
    } else if filename.chars().count() > FILENAME_CHARACTERS {
        Some("the file name is longer than 255 characters; shorten it")
    } else if filename.chars().any(char::is_control) {
        Some("the file name contains a control character; rename the file")
    } else {
        None
    }
}
