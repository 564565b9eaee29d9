//! `POST /v1/uploads/{id}/cancel`.

use crate::{
    db,
    domain::{file::UploadStatus, id::UploadId},
    http::{
        api::{auth::Caller, error::ApiError, extract::Id},
        uploads::{delete_parts, ended, find, object::UploadObject},
    },
};

/// Cancel an upload
///
/// Its parts are deleted. It takes no others, and cannot be completed any more.
#[utoipa::path(post, path = "/v1/uploads/{id}/cancel", tag = "uploads", operation_id = "cancel_upload", params(("id" = UploadId, Path)),
    responses((status = 200, body = UploadObject)))]
pub(crate) async fn cancel(
    Caller { state, tenant }: Caller,
    Id(id): Id<UploadId>,
) -> Result<axum::Json<UploadObject>, ApiError> {
    if db::uploads::cancel(&state.pool, tenant, id).await? {
        // In a task of its own: a client that disconnects must not keep the parts.
        let state = state.clone();
        tokio::spawn(async move { delete_parts(&state, id).await });
    }
    let upload = find(&state, tenant, id).await?;
    match upload.status {
        UploadStatus::Cancelled => Ok(axum::Json(UploadObject::new(upload, None))),
        status => Err(ended(id, status)),
    }
}
