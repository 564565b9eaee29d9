//! `/v1/uploads`: files that arrive in parts, as OpenAI's clients send large ones. Parts are
//! objects of their own until the upload is completed; then they are streamed into the file's
//! object. Rows and objects are all there is, so an upload survives a restart.

pub(crate) mod cancel;
pub(crate) mod complete;
pub(crate) mod create;
pub(crate) mod object;
pub(crate) mod parts;

use crate::{
    db::{
        self,
        tenants::TenantId,
        uploads::{Part, Upload},
    },
    domain::{
        checkpoint::ManifestEntry,
        file::UploadStatus,
        id::{PartId, UploadId},
        object::Descriptor,
    },
    http::api::{error::ApiError, state::AppState},
};

/// Name of a part's bytes below `part_prefix`.
const CONTENT: &str = "content";

/// The upload's prefix in the object store.
fn prefix(id: UploadId) -> String {
    format!("uploads/{}/", id.0.simple())
}

/// A part's prefix in the object store: a folder of its own, so that it can be deleted alone.
fn part_prefix(upload: UploadId, part: PartId) -> String {
    format!("{}{}/", prefix(upload), part.0.simple())
}

/// The key of a part's content.
fn part_key(upload: UploadId, part: PartId) -> String {
    part_prefix(upload, part) + CONTENT
}

/// A part's content.
fn part_object(part: &Part) -> Descriptor {
    let entry = ManifestEntry {
        bytes: part.bytes,
        sha256: part.sha256.clone(),
    };
    let prefix = part_prefix(part.upload, part.id);
    Descriptor::new(format!("part `{}`", part.id), &prefix, CONTENT, &entry)
}

/// The upload with this id.
///
/// # Errors
/// There is no such upload.
async fn find(state: &AppState, tenant: TenantId, id: UploadId) -> Result<Upload, ApiError> {
    let upload = db::uploads::get(&state.pool, tenant, id).await?;
    upload.ok_or_else(|| ApiError::unknown(id))
}

/// The upload with this id, which takes parts.
///
/// # Errors
/// There is no such upload, or it has ended.
async fn find_pending(
    state: &AppState,
    tenant: TenantId,
    id: UploadId,
) -> Result<Upload, ApiError> {
    let upload = find(state, tenant, id).await?;
    match upload.status {
        UploadStatus::Pending => Ok(upload),
        status => Err(ended(id, status)),
    }
}

/// 409: the upload has ended like this.
fn ended(id: UploadId, status: UploadStatus) -> ApiError {
    let message = format!("upload `{id}` is `{status}`; create another one");
    ApiError::conflict("upload_ended", message)
}

/// Deletes the parts of an upload that has ended. Garbage collection takes what cannot be deleted.
async fn delete_parts(state: &AppState, id: UploadId) {
    let prefix = prefix(id);
    if let Err(error) = state.objects.delete_prefix(&prefix).await {
        tracing::warn!("cannot delete the parts of an upload at `{prefix}`: {error}");
    }
}
