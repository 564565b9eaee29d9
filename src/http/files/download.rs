//! `POST /v1/files` with a URL or a data set of a hub: a file that a worker downloads.

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        downloads::{self, NewDownload},
        tenants::TenantId,
    },
    domain::{
        file::{Purpose, UploadPurpose},
        limits::FILENAME_CHARACTERS,
        repository::Part,
        request::HubDatasetRequest,
    },
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
    outgoing::{HubFile, WantedDataset},
};

/// A file that a worker downloads.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read by its fields; only its schema is used")]
pub(crate) enum FileToDownload {
    Url(FileFromUrl),
    Hub(HubDatasetRequest),
}

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
    let download = if body.0.get("hub").is_some() {
        let request = HubDatasetRequest::parse(&body.0)?;
        from_hub(state, tenant, &request).await?
    } else {
        from_url(state, tenant, body).await?
    };
    let download = NewDownload {
        idempotency,
        ..download
    };
    let limit = state.limits.max_downloads;
    let inserted = db::downloads::insert(&state.pool, &download, limit).await?;
    idempotency::respond(inserted.ok_or_else(|| too_many_downloads(limit))?)
}

async fn from_url(state: &AppState, tenant: TenantId, body: Json) -> Result<NewDownload, ApiError> {
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
    source.check(state, tenant, "url").await
}

/// The download of a hub's data set: one file, or several in a tar.
async fn from_hub(
    state: &AppState,
    tenant: TenantId,
    request: &HubDatasetRequest,
) -> Result<NewDownload, ApiError> {
    let wanted = WantedDataset {
        repository: &request.hub,
        revision: request.revision.as_deref(),
        part: Part {
            config: request.config.as_deref(),
            split: request.split.as_deref(),
        },
    };
    let found = state.outgoing.hub_dataset(wanted).await;
    let files = found.map_err(|error| ApiError::invalid("hub", error.code(), error.to_string()))?;
    let Some(first) = files.first() else {
        return Err(anyhow::anyhow!("a data set without files: this is a bug").into());
    };
    let name = request.hub.rsplit('/').next().unwrap_or_default();
    let last = first.url.rsplit('/').next().unwrap_or_default();
    let filename = match &*files {
        [_] if problem_of_name(last).is_none() => last.to_owned(),
        _ => format!("{name}.tar")
            .chars()
            .take(FILENAME_CHARACTERS)
            .collect(),
    };
    let source = Source {
        url: first.url.clone(),
        sha256: match &*files {
            [single] => single.sha256.clone(),
            _ => None,
        },
        filename: Some(filename),
        purpose: Purpose::FineTune,
    };
    let download = source.check(state, tenant, "hub").await?;
    let parts = if files.len() > 1 {
        files.into_iter().map(part).collect()
    } else {
        Vec::new()
    };
    Ok(NewDownload { parts, ..download })
}

fn part(file: HubFile) -> downloads::Part {
    downloads::Part {
        name: Some(file.name),
        url: file.url,
        sha256: file.sha256,
        bytes: file.bytes,
    }
}
