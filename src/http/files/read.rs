//! Lists, gets, downloads and deletes files.

use axum::{http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        files::{Deleted as Outcome, File},
        tenants::TenantId,
    },
    domain::{
        file::{FileReport, FileStatus, Purpose},
        id::FileId,
    },
    http::api::{
        auth::Caller,
        conditional::{etag_of, has_changed, is_conditional, respond},
        download::{Download, Place},
        error::{ApiError, unless_deleted},
        extract::{Id, Params},
        identity::Identity,
        page::{Deleted, List, Order, Rows, page},
        state::AppState,
        wait::seconds,
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FileListQuery {
    /// `last_id` of the previous page.
    after: Option<FileId>,
    /// Rows per page; 20 by default. A page of large data sets may have fewer.
    #[param(minimum = 1, maximum = 10_000)]
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
    let rows = Rows::of_files(&state.limits);
    let page = page(after.as_deref(), query.limit, query.order, rows)?;
    let slice = db::files::list(&state.pool, tenant, page, query.purpose).await?;
    Ok(List::of(slice, |file| file, |file| file.id.to_string()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FileQuery {
    /// Seconds to hold the response back, at most, until the condition in `until` holds.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// The file's validation has ended, successfully or not (`processed`, the default), or it has
    /// changed (`change`: since the `ETag` in `if-none-match`, otherwise since the request).
    #[param(inline)]
    until: Option<FileUntil>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileUntil {
    Processed,
    Change,
}

/// Get a file
#[utoipa::path(get, path = "/v1/files/{id}", tag = "files", operation_id = "get_file",
    params(("id" = FileId, Path), FileQuery,
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when nothing has changed.")),
    responses((status = 200, body = File, headers(("etag" = String, description = "Version of the file."))), (status = 304)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<FileId>,
    Params(query): Params<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = seconds(query.wait, &state.limits)?;
    let _place = state.quotas.wait(&identity, wait)?;
    let until = query.until.unwrap_or(FileUntil::Processed);
    let mut changes = state.changes.subscribe();
    let look = || db::files::get(&state.pool, tenant, id);
    // Without a tag to compare with, a change is one since the request.
    let before = match until {
        FileUntil::Change if !is_conditional(&headers) => look().await?.as_ref().map(etag_of),
        _ => None,
    };
    let done = |file: &Option<File>| match (file, until) {
        (None, _) => true,
        (Some(file), FileUntil::Processed) => {
            !matches!(file.status, FileStatus::Downloading | FileStatus::Uploaded)
        }
        (Some(file), FileUntil::Change) => has_changed(&headers, before.as_deref(), &etag_of(file)),
    };
    let file = changes
        .until(&id.to_string(), wait, &state.shutdown, look, done)
        .await?
        .ok_or_else(|| ApiError::unknown(id))?;
    Ok(respond(&headers, etag_of(&file), || file))
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
    place: Place,
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
    let sent = unless_deleted(sent, find(&state, tenant, id)).await?;
    Ok(place.until_sent(sent))
}

/// Get a data set's validation report
#[utoipa::path(get, path = "/v1/files/{id}/report", tag = "files", operation_id = "get_file_report", params(("id" = FileId, Path)),
    responses((status = 200, body = FileReport)))]
pub(crate) async fn report(
    Caller { state, tenant }: Caller,
    Id(id): Id<FileId>,
) -> Result<axum::Json<FileReport>, ApiError> {
    let file = find(&state, tenant, id).await?;
    if file.purpose != Purpose::FineTune {
        return Err(ApiError::conflict(
            "no_report",
            "only data sets have a report; `POST /v1/base_models` validates weights and answers every problem",
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
        Outcome::InUseByFile(made) => Some(format!(
            "`{made}` is being made from this data set; wait for it, or delete it"
        )),
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
