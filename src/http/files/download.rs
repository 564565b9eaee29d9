//! `POST /v1/files` with a URL: a file that a worker downloads.

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    db::{self, downloads::NewDownload, tenants::TenantId},
    domain::file::UploadPurpose,
    http::{
        api::{
            error::ApiError,
            extract::Json,
            idempotency::{self, IdempotencyKey},
            outgoing::{Source, too_many_downloads},
            state::AppState,
        },
        files::problem_of_name,
    },
};

/// A file to download.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileFromUrl {
    /// URL of the file, of a host that the operator allows (`--download-hosts`).
    #[schema(max_length = 2048)]
    url: String,
    purpose: UploadPurpose,
    /// SHA-256 that the file must have, in hex.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    sha256: Option<String>,
    /// Name of the file; by default the last part of the URL's path.
    #[schema(max_length = 255)]
    filename: Option<String>,
}

/// Adds the file, and its download to the queue of work.
pub(super) async fn download(
    state: &AppState,
    tenant: TenantId,
    key: IdempotencyKey,
    body: Json,
) -> Result<Response, ApiError> {
    let idempotency = key.with_body(&body.0);
    let file: FileFromUrl = body.read()?;
    if let Some(problem) = file.filename.as_deref().and_then(problem_of_name) {
        return Err(ApiError::invalid("filename", "invalid_filename", problem));
    }
    let source = Source {
        url: file.url,
        sha256: file.sha256,
        filename: file.filename,
        purpose: file.purpose.into(),
    };
    let download = NewDownload {
        idempotency,
        ..source.check(state, tenant, "url").await?
    };
    let limit = state.limits.max_downloads;
    let inserted = db::downloads::insert(&state.pool, &download, limit).await?;
    idempotency::respond(inserted.ok_or_else(|| too_many_downloads(limit))?)
}
