//! `/v1/files`: uploads. Their bytes are streamed to the object store; a worker validates them.

use std::time::Duration;

use axum::{
    extract::{FromRequest as _, Request},
    http::HeaderMap,
    response::Response,
};
use futures_util::{TryStreamExt as _, future::ready};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        files::{Deleted as Outcome, File, NewFile},
        tenants::TenantId,
    },
    domain::{
        codes,
        file::{FileReport, FileStatus, Purpose},
        id::FileId,
        limits::FILENAME_CHARACTERS,
        problem::quoted,
    },
    http::api::{
        auth::Caller,
        download::Download,
        error::{ApiError, unless_deleted},
        extract::{Id, Json, Params, is_json},
        identity::Identity,
        multipart::{self, Part},
        outgoing::{Source, too_many_downloads},
        page::{Deleted, List, Order, page},
        quotas::UploadBytes,
        state::AppState,
        wait::seconds,
    },
    objects::{Objects, Stored},
    telemetry::metrics::UPLOADED,
};

/// An upload, as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read part by part; only its schema is used")]
pub(crate) struct Upload {
    /// The file's bytes, with a file name.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// `fine-tune`: a data set, such as a zip or tar(.gz, .zst) with a folder per class. `weights`:
    /// weights of a base model.
    purpose: Purpose,
}

/// A file to download.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileFromUrl {
    /// URL of the file, of a host that the operator allows (`--download-hosts`).
    #[schema(max_length = 2048)]
    url: String,
    purpose: Purpose,
    /// SHA-256 that the file must have, in hex.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    sha256: Option<String>,
    /// Name of the file; by default the last part of the URL's path.
    #[schema(max_length = 255)]
    filename: Option<String>,
}

/// Upload a file
///
/// The bytes are streamed to storage, or, for a JSON body with a `url`, downloaded by a worker. A
/// worker then validates a data set; `GET /v1/files/{id}?wait=60&until=processed` waits for that.
#[utoipa::path(post, path = "/v1/files", tag = "files", operation_id = "upload_file",
    request_body(content((Upload = "multipart/form-data"), (FileFromUrl = "application/json"))),
    responses((status = 200, body = File)))]
pub(crate) async fn upload(
    Caller { state, tenant }: Caller,
    identity: Identity,
    request: Request,
) -> Result<axum::Json<File>, ApiError> {
    let _place = state.quotas.upload(&identity)?;
    let stored_bytes = db::files::stored_bytes(&state.pool, tenant).await?;
    let bytes = state.quotas.upload_bytes(&identity, stored_bytes);
    // Without an answer, clients would send all that cannot be stored.
    bytes.count(0)?;
    if is_json(request.headers()) {
        let body = Json::from_request(request, &state).await?;
        return download(&state, tenant, body.read()?).await;
    }
    let idle = Duration::from_secs(state.limits.upload_idle_seconds);
    let mut parts = multipart::open(request, &state, "multipart/form-data").await?;
    let id = FileId::new();
    let mut stored = None;
    let mut purpose = None;
    while let Some(field) = multipart::next(&mut parts, idle).await? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if stored.is_none() => {
                stored = Some(store(&state, id, field, &bytes).await?);
            }
            "purpose" if purpose.is_none() => {
                let text = multipart::text(field, 64, idle, "purpose").await?;
                purpose = Some(parse_purpose(&text)?);
            }
            "file" | "purpose" => {
                let message = "is given twice; give it once";
                return Err(ApiError::invalid(name, codes::INVALID_VALUE, message));
            }
            _ => {
                let message = "unknown field; the form has `file` and `purpose`";
                return Err(ApiError::invalid(
                    quoted(&name),
                    codes::UNKNOWN_FIELD,
                    message,
                ));
            }
        }
    }
    let Some(purpose) = purpose else {
        let message = "is required: `fine-tune` for a data set, `weights` for weights";
        return Err(ApiError::invalid("purpose", codes::MISSING_FIELD, message));
    };
    let Some((filename, stored, kept)) = stored else {
        let message =
            "is required: the bytes with a file name, as curl's `-F file=@data.zip` sends them";
        return Err(ApiError::invalid("file", codes::MISSING_FIELD, message));
    };
    UPLOADED.add([], stored.bytes);
    let file = NewFile {
        id,
        tenant,
        filename,
        purpose,
        bytes: stored.bytes,
        sha256: stored.sha256,
    };
    // In a task of its own: a client that disconnects now must not leave a row without its object.
    let pool = state.pool.clone();
    let inserted = tokio::spawn(async move {
        let inserted = db::files::insert(&pool, &file).await;
        match &inserted {
            // The database refused: there is no row. After any other error there may be one.
            Err(sqlx::Error::Database(_)) => drop(kept),
            _ => kept.keep(),
        }
        inserted
    });
    let file = inserted.await.map_err(anyhow::Error::from)??;
    Ok(axum::Json(file))
}

async fn download(
    state: &AppState,
    tenant: TenantId,
    file: FileFromUrl,
) -> Result<axum::Json<File>, ApiError> {
    if let Some(filename) = &file.filename {
        check_filename(filename)?;
    }
    let source = Source {
        url: file.url,
        sha256: file.sha256,
        filename: file.filename,
        purpose: file.purpose,
    };
    let download = source.check(state, tenant, "url").await?;
    let limit = state.limits.max_downloads;
    let file = db::downloads::insert(&state.pool, &download, limit).await?;
    file.map(axum::Json)
        .ok_or_else(|| too_many_downloads(limit))
}

fn parse_purpose(text: &str) -> Result<Purpose, ApiError> {
    text.parse().map_err(|_| {
        let given: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        let message =
            format!("must be `fine-tune` for a data set or `weights` for weights, not `{given}`");
        ApiError::invalid("purpose", codes::INVALID_VALUE, message)
    })
}

/// Streams the part to the store. The bytes are deleted when the `Unkept` is dropped before `keep`.
async fn store(
    state: &AppState,
    id: FileId,
    field: Part<'_>,
    counter: &UploadBytes,
) -> Result<(String, Stored, Unkept), ApiError> {
    let filename = multipart::file_name(&field).unwrap_or_default();
    check_filename(&filename)?;
    let limit = state.limits.max_upload_bytes;
    let prefix = db::files::prefix(id);
    let key = format!("{prefix}{}", db::files::CONTENT);
    let unkept = Unkept(Some((state.objects.clone(), prefix)));
    let idle = Duration::from_secs(state.limits.upload_idle_seconds);
    let bytes = multipart::bytes(field, limit, idle).and_then(|piece| {
        let counted = counter.count(piece.len()).map(|()| piece);
        ready(counted.map_err(multipart::refused))
    });
    let bytes = Box::pin(bytes);
    let stored = state.objects.put_stream(&key, bytes).await;
    let stored = stored.map_err(|error| multipart::explain_stored(error, "file"))?;
    if stored.bytes == 0 {
        let message = "the file is empty; upload one with content";
        return Err(ApiError::invalid("file", "empty_file", message));
    }
    Ok((filename, stored, unkept))
}

fn check_filename(filename: &str) -> Result<(), ApiError> {
    let message = if filename.is_empty() {
        "the part `file` has no file name; send one as curl's `-F file=@data.zip` does"
    } else if filename.chars().count() > FILENAME_CHARACTERS {
        "the file name is longer than 255 characters; shorten it"
    } else if filename.chars().any(char::is_control) {
        "the file name contains a control character; rename the file"
    } else {
        return Ok(());
    };
    Err(ApiError::invalid("file", "invalid_filename", message))
}

/// Objects that are deleted when this is dropped.
struct Unkept(Option<(Objects, String)>);

impl Unkept {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let Some((objects, prefix)) = self.0.take() else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = objects.delete_prefix(&prefix).await {
                tracing::warn!("cannot delete a failed upload at `{prefix}`: {error}");
            }
        });
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FileListQuery {
    /// `last_id` of the previous page.
    after: Option<FileId>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// `desc` (newest first, the default) or `asc`.
    #[param(inline)]
    order: Option<Order>,
    /// Only files with this purpose.
    purpose: Option<Purpose>,
}

/// List files
#[utoipa::path(get, path = "/v1/files", tag = "files", operation_id = "list_files", params(FileListQuery),
    responses((status = 200, body = List<File>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Params(query): Params<FileListQuery>,
) -> Result<axum::Json<List<File>>, ApiError> {
    let after = query.after.map(|id| id.to_string());
    let page = page(after.as_deref(), query.limit, query.order, &state.limits)?;
    let slice = db::files::list(&state.pool, tenant, page, query.purpose).await?;
    Ok(List::of(slice, |file| file, |file| file.id.to_string()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FileQuery {
    /// Seconds to hold the response back, at most, until the condition in `until` holds.
    wait: Option<u64>,
    /// `processed`: the file's validation has ended, successfully or not.
    #[param(inline)]
    until: Option<FileUntil>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileUntil {
    Processed,
}

/// Get a file
#[utoipa::path(get, path = "/v1/files/{id}", tag = "files", operation_id = "get_file", params(("id" = FileId, Path), FileQuery),
    responses((status = 200, body = File)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<FileId>,
    Params(query): Params<FileQuery>,
) -> Result<axum::Json<File>, ApiError> {
    let FileQuery {
        wait,
        until: None | Some(FileUntil::Processed),
    } = query;
    let wait = seconds(wait, &state.limits)?;
    let _place = state.quotas.wait(&identity, wait)?;
    let mut changes = state.changes.subscribe();
    let look = || db::files::get(&state.pool, tenant, id);
    let done = |file: &Option<File>| {
        file.as_ref().is_none_or(|file| {
            !matches!(file.status, FileStatus::Downloading | FileStatus::Uploaded)
        })
    };
    let file = changes
        .until(&id.to_string(), wait, &state.shutdown, look, done)
        .await?;
    file.map(axum::Json).ok_or_else(|| ApiError::unknown(id))
}

async fn find(state: &AppState, tenant: TenantId, id: FileId) -> Result<File, ApiError> {
    let file = db::files::get(&state.pool, tenant, id).await?;
    file.ok_or_else(|| ApiError::unknown(id))
}

/// Download a file
#[utoipa::path(get, path = "/v1/files/{id}/content", tag = "files", operation_id = "get_file_content",
    params(("id" = FileId, Path), ("range" = Option<String>, Header, description = "One range of bytes.")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream")))]
pub(crate) async fn content(
    Caller { state, tenant }: Caller,
    Id(id): Id<FileId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = find(&state, tenant, id).await?;
    let Some(object) = file.content() else {
        let details = file.status_details.unwrap_or_default();
        let message = format!("the file has no content: {details}");
        return Err(ApiError::conflict("not_ready", message));
    };
    let download = Download {
        object: &object,
        filename: &file.filename,
    };
    let sent = download.send(&state.objects, &headers).await;
    unless_deleted(sent, find(&state, tenant, id)).await
}

/// Get a data set's validation report
#[utoipa::path(get, path = "/v1/files/{id}/report", tag = "files", operation_id = "get_file_report", params(("id" = FileId, Path)),
    responses((status = 200, body = FileReport)))]
pub(crate) async fn report(
    Caller { state, tenant }: Caller,
    Id(id): Id<FileId>,
) -> Result<axum::Json<FileReport>, ApiError> {
    let file = find(&state, tenant, id).await?;
    if file.purpose == Purpose::Weights {
        return Err(ApiError::conflict(
            "no_report",
            "weights have no report: `POST /v1/base_models` validates them and answers every problem",
        ));
    }
    let report = db::files::report(&state.pool, tenant, id).await?;
    let report = report.ok_or_else(|| ApiError::unknown(id))?;
    report.map(axum::Json).ok_or_else(|| {
        let message = format!(
            "validation has not ended; `GET /v1/files/{id}?wait=60&until=processed` waits for it"
        );
        ApiError::conflict("not_ready", message)
    })
}

/// Delete a file
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "files", operation_id = "delete_file", params(("id" = FileId, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    Id(id): Id<FileId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    let in_use = match db::files::delete(&state.pool, tenant, id).await? {
        Outcome::Yes => None,
        Outcome::NotFound => return Err(ApiError::unknown(id)),
        Outcome::InUseByJob(job) => Some(format!(
            "job `{job}` uses this file and has not ended; cancel the job or wait for it"
        )),
        Outcome::InUseByImport => {
            Some("a base model is being imported from this file; wait for it".to_owned())
        }
    };
    if let Some(message) = in_use {
        return Err(ApiError::conflict("file_in_use", message));
    }
    // In a task of its own: the row is deleted, so a disconnect must not stop the deletion of the
    // bytes.
    let objects = state.objects.clone();
    let prefix = db::files::prefix(id);
    let removed = tokio::spawn(async move { objects.delete_prefix(&prefix).await });
    removed.await.map_err(anyhow::Error::from)??;
    Ok(Deleted::of("file", id))
}
