//! Thumbnails and contents of a data set's samples, for pages that show them.
//!
//! Nothing is decoded here. A child made the thumbnails and the index; the index is checked against
//! the sizes in the row, and bytes against the hash beside them. Both are sent so that a browser
//! takes them for an image or for nothing: they are whatever a user uploaded.

use std::{fmt, ops::Range, str::FromStr};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use crate::{
    db::{
        self,
        files::File,
        tenants::TenantId,
        thumbnails::{self, Stored},
    },
    domain::{
        file::{FileStatus, Purpose},
        id::FileId,
        sample_index::{RECORD_BYTES, SampleEntry},
    },
    http::api::{
        auth::Caller,
        conditional::is_known,
        download::{Place, plain_name},
        error::{ApiError, Noun},
        extract::{Id, Ids},
        state::AppState,
    },
};

/// Sent with what a user uploaded: a browser shows it as an image or not at all.
const HARDENED: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    // What an address here stands for never changes.
    (
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    ),
];

/// The number of a sample in its data set, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SampleNumber(u64);

impl FromStr for SampleNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<u32>().map(|number| Self(number.into()))
    }
}

impl fmt::Display for SampleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Noun for SampleNumber {
    const NOUN: &'static str = "sample";
}

/// A sample of a file, with what the index says of it.
struct Found {
    id: FileId,
    stored: Stored,
    entry: SampleEntry,
}

/// # Errors
/// 404: no such file or sample, or the file has no index; 409: it is not validated.
async fn find(
    state: &AppState,
    tenant: TenantId,
    (id, sample): (FileId, SampleNumber),
) -> Result<Found, ApiError> {
    let file = thumbnails::find(&state.pool, tenant, id).await?;
    let file = file.ok_or_else(|| ApiError::unknown(id))?;
    if file.purpose != Purpose::FineTune {
        return Err(no_thumbnails("only data sets have samples".to_owned()));
    }
    let Some(stored) = file.stored else {
        let message = match file.status {
            FileStatus::Error => "the data set cannot be used and has no samples; see its report",
            _ => {
                "validation has not ended; `GET /v1/files/{id}?wait=60&until=processed` waits for it"
            }
        };
        return Err(ApiError::conflict("not_ready", message));
    };
    if sample.0 >= stored.samples {
        return Err(ApiError::unknown(sample));
    }
    let records = stored.records().ok_or_else(|| {
        no_thumbnails(format!(
            "this data set was validated before there were thumbnails; `POST /v1/files/{id}/thumbnails` makes them"
        ))
    })?;
    let start = records + sample.0 * RECORD_BYTES as u64;
    let key = thumbnails::key(id);
    let record = read(state, &key, start..start + RECORD_BYTES as u64).await?;
    let record: Option<&[u8; RECORD_BYTES]> = record.first_chunk();
    let entry = record.and_then(|record| SampleEntry::read(record, stored.pack_bytes, records));
    let entry = entry.ok_or_else(|| damaged(id))?;
    Ok(Found { id, stored, entry })
}

fn no_thumbnails(message: String) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_thumbnails", message)
}

fn damaged(id: FileId) -> ApiError {
    tracing::error!(file.id = %id, "the index or a sample of a data set is damaged");
    let message = format!(
        "the thumbnails or the pack of file `{id}` have other bytes than when they were stored; restore the object store \
         from a backup, or upload the file again"
    );
    ApiError::damaged(message)
}

/// A part of an object, in memory.
async fn read(state: &AppState, key: &str, range: Range<u64>) -> Result<Bytes, ApiError> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let pieces = state.objects.read(key, Some(range)).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat().into())
}

/// A response of bytes that may be anything.
fn send(etag: &HeaderValue, media_type: &'static str, body: Body) -> Response {
    let own = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::ETAG, etag.clone()),
    ];
    (own, HARDENED, body).into_response()
}

/// The response to a client that has the bytes already.
fn not_modified(headers: &HeaderMap, etag: &HeaderValue) -> Option<Response> {
    let is_known = etag.to_str().is_ok_and(|etag| is_known(headers, etag));
    is_known.then(|| {
        let etag = [(header::ETAG, etag.clone())];
        (StatusCode::NOT_MODIFIED, etag, HARDENED).into_response()
    })
}

fn tag(text: &str) -> Result<HeaderValue, ApiError> {
    let tag = HeaderValue::try_from(format!("\"{text}\""));
    Ok(tag.map_err(anyhow::Error::from)?)
}

/// Get the thumbnail of a sample
///
/// A JPEG of at most 128 x 128 pixels: the first frame, upright, on white. `n` is the number of the
/// sample in the data set, in the order of paths: `file_sample` of a job's samples, `samples` of a
/// problem in a report.
#[utoipa::path(get, path = "/v1/files/{id}/samples/{n}/thumbnail", tag = "files", operation_id = "get_sample_thumbnail",
    params(("id" = FileId, Path), ("n" = u32, Path),
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when the client has it.")),
    responses((status = 200, body = Vec<u8>, content_type = "image/jpeg", headers(("etag" = String))), (status = 304)))]
pub(crate) async fn thumbnail(
    Caller { state, tenant }: Caller,
    Ids(id, sample): Ids<FileId, SampleNumber>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Found { id, stored, entry } = find(&state, tenant, (id, sample)).await?;
    if entry.thumbnail.is_empty() {
        let message = "this sample has no thumbnail: the data set has more images than thumbnails are made of \
            (`--max-thumbnails`)";
        return Err(no_thumbnails(message.to_owned()));
    }
    let etag = tag(&format!("{}-{sample}", stored.pack_sha256))?;
    if let Some(response) = not_modified(&headers, &etag) {
        return Ok(response);
    }
    let bytes = read(&state, &thumbnails::key(id), entry.thumbnail.clone()).await?;
    if !Sha256::digest(&bytes).starts_with(&entry.thumbnail_hash) {
        return Err(damaged(id));
    }
    Ok(send(&etag, "image/jpeg", bytes.into()))
}

/// Get the content of a sample
///
/// Its bytes as they were uploaded, for a browser to show. The content type is that of the format
/// that it was decoded from.
#[utoipa::path(get, path = "/v1/files/{id}/samples/{n}/content", tag = "files", operation_id = "get_sample_content",
    params(("id" = FileId, Path), ("n" = u32, Path),
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when the client has it.")),
    responses((status = 200, headers(("etag" = String)),
        content((Vec<u8> = "image/jpeg"), (Vec<u8> = "image/png"), (Vec<u8> = "image/webp"), (Vec<u8> = "image/gif"),
            (Vec<u8> = "image/bmp"), (Vec<u8> = "application/octet-stream"))), (status = 304)))]
pub(crate) async fn content(
    Caller { state, tenant }: Caller,
    place: Place,
    Ids(id, sample): Ids<FileId, SampleNumber>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Found { id, entry, .. } = find(&state, tenant, (id, sample)).await?;
    let etag = tag(&hex::encode(entry.sha256))?;
    if let Some(response) = not_modified(&headers, &etag) {
        return Ok(response);
    }
    let key = thumbnails::pack_key(id);
    // Once for the hash, and once to be sent: a client cannot tell a body that went wrong.
    let mut pieces = state
        .objects
        .read(&key, Some(entry.content.clone()))
        .await?;
    let mut hash = Sha256::new();
    while let Some(piece) = pieces.next().await {
        hash.update(&piece?);
    }
    if hash.finalize().as_slice() != entry.sha256 {
        return Err(damaged(id));
    }
    let bytes = state
        .objects
        .read(&key, Some(entry.content.clone()))
        .await?;
    let media_type = entry
        .kind
        .map_or("application/octet-stream", |kind| kind.media_type());
    let mut response = send(&etag, media_type, Body::from_stream(bytes));
    let path = read(&state, &thumbnails::key(id), entry.path).await?;
    let headers = response.headers_mut();
    let size = entry.content.end - entry.content.start;
    headers.insert(header::CONTENT_LENGTH, size.into());
    headers.insert(header::CONTENT_DISPOSITION, inline(&path));
    Ok(place.until_sent(response))
}

/// `content-disposition` with the name of the file at a path.
fn inline(path: &[u8]) -> HeaderValue {
    let path = String::from_utf8_lossy(path);
    let name = plain_name(path.rsplit('/').next().unwrap_or_default());
    HeaderValue::try_from(format!("inline; filename=\"{name}\""))
        .unwrap_or(HeaderValue::from_static("inline"))
}

/// Make the thumbnails of a data set
///
/// For data sets that were validated before there were thumbnails: a worker makes them. Repeating
/// it changes nothing; `thumbnails` of the file says when they are ready.
#[utoipa::path(post, path = "/v1/files/{id}/thumbnails", tag = "files", operation_id = "make_thumbnails",
    params(("id" = FileId, Path)), responses((status = 200, body = File)))]
pub(crate) async fn make(
    Caller { state, tenant }: Caller,
    Id(id): Id<FileId>,
) -> Result<axum::Json<File>, ApiError> {
    thumbnails::request(&state.pool, tenant, id).await?;
    let file = db::files::get(&state.pool, tenant, id).await?;
    let file = file.ok_or_else(|| ApiError::unknown(id))?;
    if file.purpose != Purpose::FineTune {
        return Err(no_thumbnails("only data sets have samples".to_owned()));
    }
    if file.status != FileStatus::Processed {
        let message = "the data set is not validated, or cannot be used; see its `status`";
        return Err(ApiError::conflict("not_ready", message));
    }
    Ok(axum::Json(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        for (path, expected) in [
            ("a/b/c d.png", "inline; filename=\"c d.png\""),
            (
                "x\".png\r\nset-cookie: a",
                "inline; filename=\"x_.png__set-cookie_ a\"",
            ),
            ("", "inline; filename=\"\""),
            ("ﷺ.png", "inline; filename=\"_.png\""),
        ] {
            assert_eq!(inline(path.as_bytes()), expected, "{path}");
        }
    }
}
