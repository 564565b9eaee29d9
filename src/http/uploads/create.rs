//! `POST /v1/uploads`.

use std::time::Duration;

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    config::HttpLimits,
    db::{
        self,
        idempotency::Keyed,
        tenants::TenantId,
        uploads::{Created, NewUpload},
    },
    domain::{
        codes,
        file::{ExpiresAfter, UploadPurpose},
        id::UploadId,
        limits::MEDIA_TYPE_CHARACTERS,
        problem::Problem,
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, TOO_MANY_UPLOADS},
            extract::Json,
            idempotency::{self, IdempotencyKey},
        },
        files::problem_of_name,
        uploads::object::UploadObject,
    },
};

/// An upload in parts, announced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadRequest {
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$"
    )]
    filename: String,
    purpose: UploadPurpose,
    /// Size of the whole file.
    #[schema(minimum = 1, maximum = 21_474_836_480_i64)]
    bytes: u64,
    /// Accepted for OpenAI's clients; formats are told by content.
    #[schema(max_length = 255)]
    mime_type: Option<String>,
    /// When the file, not the upload, expires; never by default.
    expires_after: Option<ExpiresAfter>,
}

/// Create an upload
///
/// For large files and slow networks: add its parts, at the same time if you like, then complete
/// it. It expires after an hour.
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", operation_id = "create_upload", params(IdempotencyKey),
    request_body = UploadRequest,
    responses((status = 200, body = UploadObject, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    key: IdempotencyKey,
    body: Json,
) -> Result<Response, ApiError> {
    let limits = &state.limits;
    let idempotency = key.with_body(&body.0);
    let request: UploadRequest = body.read()?;
    let upload = NewUpload {
        idempotency,
        ..request.into_upload(tenant, limits)?
    };
    let created = match db::uploads::insert(&state.pool, &upload, limits.max_uploads).await? {
        Created::Upload(created) => created,
        Created::TooMany => {
            let message = format!(
                "{} uploads are open, which is the limit; complete or cancel some",
                limits.max_uploads
            );
            return Err(ApiError::too_many(TOO_MANY_UPLOADS, message, 30));
        }
    };
    idempotency::respond(match created {
        Keyed::New(upload) => Keyed::New(UploadObject::new(upload, None)),
        Keyed::Replayed(upload) => Keyed::Replayed(UploadObject::of(&state, tenant, upload).await?),
        Keyed::KeyConflict => Keyed::KeyConflict,
    })
}

impl UploadRequest {
    fn into_upload(self, tenant: TenantId, limits: &HttpLimits) -> Result<NewUpload, ApiError> {
        let mut problems = Vec::new();
        if let Some(problem) = problem_of_name(&self.filename) {
            problems.push(Problem::new("filename", "invalid_filename", problem));
        }
        if self.bytes == 0 {
            let message = "must be at least 1: the size of the file";
            problems.push(Problem::new("bytes", codes::OUT_OF_RANGE, message));
        }
        let is_long = |word: &String| word.chars().count() > MEDIA_TYPE_CHARACTERS;
        if self.mime_type.as_ref().is_some_and(is_long) {
            let message = format!("must be at most {MEDIA_TYPE_CHARACTERS} characters");
            problems.push(Problem::new("mime_type", codes::OUT_OF_RANGE, message));
        }
        let lifetime = self
            .expires_after
            .map(|after| after.lifetime("expires_after"));
        let file_lifetime = lifetime.transpose().unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let limit = limits.max_upload_bytes;
        if self.bytes > limit {
            let message = format!("must be at most {limit}, the largest file of this service");
            return Err(ApiError::too_large("bytes", message));
        }
        Ok(NewUpload {
            id: UploadId::new(),
            tenant,
            filename: self.filename,
            purpose: self.purpose.into(),
            bytes: self.bytes,
            file_lifetime,
            expires_after: Duration::from_secs(limits.upload_seconds),
            idempotency: None,
        })
    }
}
