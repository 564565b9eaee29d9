//! `POST /v1/uploads/{id}/complete`: streams the parts into the file's object.
//!
//! No lock is held meanwhile. The row decides at the end: if the upload was cancelled or completed
//! by another request, what was assembled is deleted.

use std::{collections::HashSet, io, sync::Arc};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    config::HttpLimits,
    db::{
        self,
        files::{File, NewFile},
        tenants::TenantId,
        uploads::{Part, Upload},
    },
    domain::{
        codes,
        file::UploadStatus,
        id::{FileId, PartId, UploadId},
        problem::Problem,
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, refuse_any},
            extract::{Id, Json},
            identity::Identity,
            state::AppState,
        },
        files::unkept::Unkept,
        uploads::{delete_parts, ended, find, object::UploadObject, part_object},
    },
    objects::{ObjectError, Objects},
};

/// The parts of an upload that make its file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteRequest {
    /// In the order of the file.
    #[schema(min_items = 1, max_items = 10_000)]
    part_ids: Vec<PartId>,
    /// MD5 of the whole file in hex, to be compared.
    #[schema(pattern = "^[0-9a-fA-F]{32}$")]
    md5: Option<String>,
}

/// Complete an upload
///
/// The parts become a file, as `POST /v1/files` makes one. To complete it again with the same parts
/// gives the same answer.
#[utoipa::path(post, path = "/v1/uploads/{id}/complete", tag = "uploads", operation_id = "complete_upload", params(("id" = UploadId, Path)),
    request_body = CompleteRequest,
    responses((status = 200, body = UploadObject)))]
pub(crate) async fn complete(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<UploadId>,
    body: Json,
) -> Result<axum::Json<UploadObject>, ApiError> {
    let request: CompleteRequest = body.read()?;
    refuse_any(request.problems(&state.limits))?;
    let _place = state.quotas.upload(&identity)?;
    let permit = Arc::clone(&state.assemblies).acquire_owned().await;
    let permit = permit.map_err(anyhow::Error::from)?;
    // After the wait: a request before this one may have completed it.
    let upload = find(&state, tenant, id).await?;
    if upload.status != UploadStatus::Pending {
        return repeated(&state, tenant, upload, &request).await;
    }
    // In a task of its own: a client or a proxy that gives up finds the upload completed later.
    let task = {
        let (state, upload) = (state.clone(), upload.clone());
        let (parts, md5) = (request.part_ids.clone(), request.md5.clone());
        tokio::spawn(async move {
            let _permit = permit;
            assemble(&state, tenant, &upload, &parts, md5).await
        })
    };
    let assembled = task.await.map_err(anyhow::Error::from)?;
    let upload = find(&state, tenant, id).await?;
    match assembled {
        Ok(Some(file)) => Ok(axum::Json(UploadObject::new(upload, Some(file)))),
        // Another request ended it meanwhile, and may have deleted its parts.
        _ if upload.status != UploadStatus::Pending => {
            repeated(&state, tenant, upload, &request).await
        }
        Ok(None) => Err(anyhow::anyhow!("a pending upload could not be completed").into()),
        Err(error) => Err(error),
    }
}

impl CompleteRequest {
    fn problems(&self, limits: &HttpLimits) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |path: &str, code, message: String| {
            problems.push(Problem::new(path, code, message));
        };
        let most = limits.max_upload_parts as usize;
        if self.part_ids.is_empty() || self.part_ids.len() > most {
            let message = format!("must be 1 to {most} parts");
            refuse("part_ids", codes::OUT_OF_RANGE, message);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.part_ids.iter().find(|&id| !seen.insert(id)) {
            let message = format!("has `{twice}` twice; name each part once");
            refuse("part_ids", codes::INVALID_VALUE, message);
        }
        let is_md5 =
            |text: &String| text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        if !self.md5.as_ref().is_none_or(is_md5) {
            let message = "must be 32 hexadecimal digits, as `md5sum` prints them".to_owned();
            refuse("md5", codes::INVALID_VALUE, message);
        }
        problems
    }
}

/// The response when the upload has ended already: the first answer if the same parts completed it.
async fn repeated(
    state: &AppState,
    tenant: TenantId,
    upload: Upload,
    request: &CompleteRequest,
) -> Result<axum::Json<UploadObject>, ApiError> {
    if upload.completed_with.as_ref() != Some(&request.part_ids) {
        return Err(ended(upload.id, upload.status));
    }
    Ok(axum::Json(UploadObject::of(state, tenant, upload).await?))
}

/// Makes the file. `None`: the upload has ended otherwise.
async fn assemble(
    state: &AppState,
    tenant: TenantId,
    upload: &Upload,
    ids: &[PartId],
    md5: Option<String>,
) -> Result<Option<File>, ApiError> {
    let parts = find_parts(state, upload, ids).await?;
    let id = FileId::new();
    let unkept = Unkept::new(&state.objects, db::files::prefix(id));
    let mut digest = md5.is_some().then(Md5::new);
    let bytes = content(state.objects.clone(), parts).inspect_ok(|bytes| {
        if let Some(digest) = &mut digest {
            digest.update(bytes);
        }
    });
    let bytes = Box::pin(bytes);
    let key = db::files::content_key(id);
    let stored = state.objects.put_stream(&key, bytes).await;
    let stored = stored.map_err(of_parts)?;
    let found = digest.map(|digest| hex::encode(digest.finalize()));
    if let (Some(said), Some(found)) = (&md5, &found)
        && !said.eq_ignore_ascii_case(found)
    {
        let message = format!("the parts have the MD5 `{found}`; send those that differ again");
        return Err(ApiError::invalid("md5", "checksum_mismatch", message));
    }
    let file = NewFile {
        id,
        tenant,
        filename: upload.filename.clone(),
        purpose: upload.purpose,
        bytes: stored.bytes,
        sha256: stored.sha256,
        lifetime: upload.file_lifetime,
        idempotency: None,
    };
    let completed = db::uploads::complete(&state.pool, upload.id, ids, &file).await;
    match &completed {
        Ok(Some(_)) => {
            unkept.keep();
            delete_parts(state, upload.id).await;
        }
        // After an error that is not the database's own there may be a row.
        Err(error) if !matches!(error, sqlx::Error::Database(_)) => unkept.keep(),
        _ => drop(unkept),
    }
    Ok(completed?)
}

/// The parts in order.
///
/// # Errors
/// One is not of this upload, or together they do not have the size that was announced.
async fn find_parts(
    state: &AppState,
    upload: &Upload,
    ids: &[PartId],
) -> Result<Vec<Part>, ApiError> {
    let parts = db::uploads::parts(&state.pool, upload.id, ids).await?;
    let known: HashSet<PartId> = parts.iter().map(|part| part.id).collect();
    let unknown = ids.iter().enumerate().filter(|(_, id)| !known.contains(id));
    refuse_any(
        unknown
            .map(|(place, id)| unknown_part(place, *id))
            .collect(),
    )?;
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    if bytes != upload.bytes {
        let message = format!(
            "these parts have {bytes} bytes together, the upload was announced with {}",
            upload.bytes
        );
        return Err(ApiError::invalid("part_ids", "bytes_mismatch", message));
    }
    Ok(parts)
}

fn unknown_part(place: usize, id: PartId) -> Problem {
    let message = format!("the upload has no part `{id}`");
    Problem::new(format!("part_ids[{place}]"), "unknown_part", message)
}

/// The bytes of parts, one part after the other, each as it was received.
fn content(objects: Objects, parts: Vec<Part>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::iter(parts)
        .then(move |part| {
            let objects = objects.clone();
            async move { objects.read_checked(&part_object(&part)).await }
        })
        .try_flatten()
        .map_err(io::Error::other)
}

/// The store's own error, where it was one that ended `content`.
fn of_parts(error: ObjectError) -> ObjectError {
    match error {
        ObjectError::Input(error) => error.downcast().unwrap_or_else(ObjectError::Input),
        other => other,
    }
}
