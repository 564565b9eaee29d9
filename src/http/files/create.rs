//! `POST /v1/files`: a file as one form.

use std::{str::FromStr, time::Duration};

use axum::{
    extract::{FromRequest as _, Request},
    response::Response,
};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        files::{File, NewFile},
        idempotency::Keyed,
    },
    domain::{
        codes,
        file::{ExpiresAfter, ExpiryAnchor, UploadPurpose},
        id::FileId,
        problem::quoted,
    },
    http::{
        api::{
            auth::Caller,
            error::ApiError,
            extract::{Json, is_json},
            idempotency::{self, IdempotencyKey},
            identity::Identity,
            multipart::{self, Part},
            quotas::UploadBytes,
            state::AppState,
        },
        files::{
            count_bytes,
            download::{FileToDownload, download},
            parse_purpose, problem_of_name,
            unkept::Unkept,
        },
    },
    objects::Stored,
    telemetry::metrics::UPLOADED,
};

const ANCHOR: &str = "expires_after[anchor]";
const SECONDS: &str = "expires_after[seconds]";

/// An upload, as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read part by part; only its schema is used")]
pub(crate) struct FileForm {
    /// The file's bytes, with a file name.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// `fine-tune`: a data set, such as a zip or tar(.gz, .zst) with a folder per class, or
    /// Parquet. `weights`: weights of a base model.
    purpose: UploadPurpose,
    /// With `expires_after[seconds]`: the file is deleted after that time.
    #[schema(rename = "expires_after[anchor]")]
    anchor: Option<ExpiryAnchor>,
    /// From an hour to 30 days.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    seconds: Option<u64>,
}

/// The parts of a form, as far as they have arrived.
#[derive(Default)]
struct Parts {
    content: Option<Content>,
    purpose: Option<UploadPurpose>,
    anchor: Option<ExpiryAnchor>,
    seconds: Option<u64>,
}

/// The bytes of a file, stored.
struct Content {
    filename: String,
    stored: Stored,
    unkept: Unkept,
}

/// Upload a file
///
/// The bytes are streamed to storage, or, for a JSON body with a `url` or the name of a `hub`'s
/// data set, downloaded by a worker. A worker then validates a data set; `GET
/// /v1/files/{id}?wait=60&until=processed` waits for that. With an `idempotency-key`, purpose, file
/// name, expiry and the SHA-256 of the content decide whether a form is the same.
#[utoipa::path(post, path = "/v1/files", tag = "files", operation_id = "upload_file", params(IdempotencyKey),
    request_body(content((FileForm = "multipart/form-data"), (FileToDownload = "application/json"))),
    responses((status = 200, body = File, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    identity: Identity,
    key: IdempotencyKey,
    request: Request,
) -> Result<Response, ApiError> {
    let _place = state.quotas.upload(&identity)?;
    let counter = count_bytes(&state, &identity).await?;
    if is_json(request.headers()) {
        let body = Json::from_request(request, &state).await?;
        return download(&state, tenant, key, body).await;
    }
    let id = FileId::new();
    let parts = Parts::read(&state, id, request, &counter).await?;
    let lifetime = parts.lifetime()?;
    let Some(purpose) = parts.purpose else {
        let message = "is required: `fine-tune` for a data set, `weights` for weights";
        return Err(ApiError::invalid("purpose", codes::MISSING_FIELD, message));
    };
    let Some(Content {
        filename,
        stored,
        unkept,
    }) = parts.content
    else {
        let message =
            "is required: the bytes with a file name, as curl's `-F file=@data.zip` sends them";
        return Err(ApiError::invalid("file", codes::MISSING_FIELD, message));
    };
    UPLOADED.add([], stored.bytes);
    let seconds = lifetime.map(|lifetime| lifetime.as_secs());
    let same = json!([purpose, filename, seconds, stored.sha256]);
    let file = NewFile {
        id,
        tenant,
        filename,
        purpose: purpose.into(),
        bytes: stored.bytes,
        sha256: stored.sha256,
        lifetime,
        idempotency: key.with_body(&same),
    };
    // In a task of its own: a client that disconnects now must not leave a row without its object.
    let pool = state.pool.clone();
    let inserted = tokio::spawn(async move {
        let inserted = db::files::insert(&pool, &file).await;
        match &inserted {
            // There is no row. After an error that is not the database's own there may be one.
            Err(sqlx::Error::Database(_)) | Ok(Keyed::Replayed(_) | Keyed::KeyConflict) => {
                drop(unkept);
            }
            _ => unkept.keep(),
        }
        inserted
    });
    idempotency::respond(inserted.await.map_err(anyhow::Error::from)??)
}

impl Parts {
    /// Reads a form; its file becomes the content of `id`.
    async fn read(
        state: &AppState,
        id: FileId,
        request: Request,
        counter: &UploadBytes,
    ) -> Result<Self, ApiError> {
        let idle = Duration::from_secs(state.limits.upload_idle_seconds);
        let mut form = multipart::open(request, state, "multipart/form-data").await?;
        let mut parts = Self::default();
        while let Some(field) = multipart::next(&mut form, idle).await? {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "file" if parts.content.is_none() => {
                    parts.content = Some(store(state, id, field, counter).await?);
                }
                "purpose" if parts.purpose.is_none() => {
                    let text = multipart::text(field, 64, idle, "purpose").await?;
                    parts.purpose = Some(parse_purpose(&text)?);
                }
                ANCHOR if parts.anchor.is_none() => {
                    let expected = "must be `created_at`";
                    parts.anchor = Some(word(field, idle, ANCHOR, expected).await?);
                }
                SECONDS if parts.seconds.is_none() => {
                    let expected = "must be a whole number of seconds";
                    parts.seconds = Some(word(field, idle, SECONDS, expected).await?);
                }
                "file" | "purpose" | ANCHOR | SECONDS => {
                    let message = "is given twice; give it once";
                    return Err(ApiError::invalid(name, codes::INVALID_VALUE, message));
                }
                _ => {
                    let message =
                        "unknown field; the form has `file`, `purpose` and `expires_after[…]`";
                    let name = quoted(&name);
                    return Err(ApiError::invalid(name, codes::UNKNOWN_FIELD, message));
                }
            }
        }
        Ok(parts)
    }

    fn lifetime(&self) -> Result<Option<Duration>, ApiError> {
        let (anchor, seconds) = match (self.anchor, self.seconds) {
            (None, None) => return Ok(None),
            (Some(anchor), Some(seconds)) => (anchor, seconds),
            (anchor, _) => {
                let missing = if anchor.is_none() { ANCHOR } else { SECONDS };
                let message = "is required: `created_at` as anchor, and a number of seconds";
                return Err(ApiError::invalid(missing, codes::MISSING_FIELD, message));
            }
        };
        let lifetime = ExpiresAfter { anchor, seconds }.lifetime("expires_after");
        Ok(Some(lifetime.map_err(|problem| vec![problem])?))
    }
}

/// Reads a short part.
async fn word<T: FromStr>(
    part: Part<'_>,
    idle: Duration,
    name: &str,
    expected: &str,
) -> Result<T, ApiError> {
    let text = multipart::text(part, 64, idle, name).await?;
    text.parse()
        .map_err(|_| ApiError::invalid(name, codes::INVALID_VALUE, expected))
}

/// Streams the part to the store.
async fn store(
    state: &AppState,
    id: FileId,
    part: Part<'_>,
    counter: &UploadBytes,
) -> Result<Content, ApiError> {
    let filename = multipart::file_name(&part).unwrap_or_default();
    if let Some(problem) = problem_of_name(&filename) {
        return Err(ApiError::invalid("file", "invalid_filename", problem));
    }
    let limit = state.limits.max_upload_bytes;
    let idle = Duration::from_secs(state.limits.upload_idle_seconds);
    let unkept = Unkept::new(&state.objects, db::files::prefix(id));
    let bytes = Box::pin(multipart::counted(part, limit, idle, counter));
    let key = db::files::content_key(id);
    let stored = state.objects.put_stream(&key, bytes).await;
    let stored = stored.map_err(|error| multipart::explain_stored(error, "file"))?;
    if stored.bytes == 0 {
        let message = "the file is empty; upload one with content";
        return Err(ApiError::invalid("file", "empty_file", message));
    }
    Ok(Content {
        filename,
        stored,
        unkept,
    })
}
