//! `POST /v1/uploads/{id}/parts`.

use std::time::Duration;

use axum::{extract::Request, response::Response};
use utoipa::ToSchema;

use crate::{
    config::HttpLimits,
    db::{
        self,
        idempotency::Keyed,
        uploads::{Added, NewPart, PartLimits, Upload},
    },
    domain::{
        codes,
        id::{PartId, UploadId},
        problem::quoted,
    },
    http::{
        api::{
            auth::Caller,
            error::ApiError,
            extract::Id,
            idempotency::{self, IdempotencyKey},
            identity::Identity,
            multipart::{self, Part},
            quotas::UploadBytes,
            state::AppState,
        },
        files::{count_bytes, unkept::Unkept},
        uploads::{find_pending, object::PartObject, part_key, part_prefix},
    },
    objects::Stored,
    telemetry::metrics::UPLOADED,
};

/// A part, as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read part by part; only its schema is used")]
pub(crate) struct PartForm {
    /// The part's bytes.
    #[schema(value_type = String, format = Binary)]
    data: Vec<u8>,
}

/// Add a part to an upload
///
/// Parts may arrive in any order, at the same time, and again: which of them make the file, and in
/// which order, is said when the upload is completed.
#[utoipa::path(post, path = "/v1/uploads/{id}/parts", tag = "uploads", operation_id = "add_upload_part",
    params(("id" = UploadId, Path), IdempotencyKey),
    request_body(content = PartForm, content_type = "multipart/form-data"),
    responses((status = 200, body = PartObject, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn add(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<UploadId>,
    key: IdempotencyKey,
    request: Request,
) -> Result<Response, ApiError> {
    let upload = find_pending(&state, tenant, id).await?;
    let _place = state.quotas.upload(&identity)?;
    let counter = count_bytes(&state, &identity).await?;
    let part = PartId::new();
    let unkept = Unkept::new(&state.objects, part_prefix(id, part));
    let received = receive(&state, &part_key(id, part), request, &counter).await;
    let stored = match received {
        Ok(stored) => stored,
        // The upload may have ended meanwhile, and its folder be deleted.
        Err(error) => {
            return Err(find_pending(&state, tenant, id)
                .await
                .err()
                .unwrap_or(error));
        }
    };
    UPLOADED.add([], stored.bytes);
    let new = NewPart {
        id: part,
        bytes: stored.bytes,
        sha256: stored.sha256,
        idempotency_key: key.key,
    };
    let limits = part_limits(&upload, &state.limits);
    // In a task of its own: a client that disconnects now must not leave a row without its object.
    let pool = state.pool.clone();
    let added = tokio::spawn(async move {
        let added = db::uploads::add_part(&pool, tenant, id, &new, limits).await;
        match &added {
            // After an error that is not the database's own there may be a row.
            Ok(Added::Part(Keyed::New(_))) => unkept.keep(),
            Err(error) if !matches!(error, sqlx::Error::Database(_)) => unkept.keep(),
            _ => drop(unkept),
        }
        added
    });
    match added.await.map_err(anyhow::Error::from)?? {
        Added::Part(part) => idempotency::respond(part.map(PartObject::from)),
        Added::Refused => {
            find_pending(&state, tenant, id).await?;
            let PartLimits { parts, bytes } = limits;
            let message = format!(
                "the upload has as many parts ({parts}) or bytes in parts ({bytes}) as it may have; complete it, or cancel it"
            );
            Err(ApiError::too_large("data", message))
        }
    }
}

/// Every byte may be sent twice, and a small file more often.
fn part_limits(upload: &Upload, limits: &HttpLimits) -> PartLimits {
    PartLimits {
        parts: limits.max_upload_parts,
        bytes: upload
            .bytes
            .saturating_mul(2)
            .saturating_add(limits.max_part_bytes),
    }
}

/// Reads the form, whose only part is streamed to the store.
async fn receive(
    state: &AppState,
    key: &str,
    request: Request,
    counter: &UploadBytes,
) -> Result<Stored, ApiError> {
    let idle = Duration::from_secs(state.limits.upload_idle_seconds);
    let mut form = multipart::open(request, state, "multipart/form-data").await?;
    let mut stored = None;
    while let Some(field) = multipart::next(&mut form, idle).await? {
        match field.name().unwrap_or_default() {
            "data" if stored.is_none() => {
                stored = Some(store(state, key, field, counter).await?);
            }
            "data" => {
                let message = "is given twice; send each part in a request of its own";
                return Err(ApiError::invalid("data", codes::INVALID_VALUE, message));
            }
            name => {
                let message = "unknown field; the form has `data`";
                return Err(ApiError::invalid(
                    quoted(name),
                    codes::UNKNOWN_FIELD,
                    message,
                ));
            }
        }
    }
    stored.ok_or_else(|| {
        let message = "is required: the bytes of the part";
        ApiError::invalid("data", codes::MISSING_FIELD, message)
    })
}

async fn store(
    state: &AppState,
    key: &str,
    part: Part<'_>,
    counter: &UploadBytes,
) -> Result<Stored, ApiError> {
    let limit = state.limits.max_part_bytes;
    let idle = Duration::from_secs(state.limits.upload_idle_seconds);
    let bytes = Box::pin(multipart::counted(part, limit, idle, counter));
    let stored = state.objects.put_stream(key, bytes).await;
    let stored = stored.map_err(|error| multipart::explain_stored(error, "data"))?;
    if stored.bytes == 0 {
        let message = "the part is empty; send one with content";
        return Err(ApiError::invalid("data", "empty_file", message));
    }
    Ok(stored)
}
