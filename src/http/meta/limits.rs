//! `GET /v1/meta/limits`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{domain::limits, http::api::state::AppState};

/// Limits of this service. Those on training options are in the contract.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsObject {
    /// `limits`.
    object: &'static str,
    /// Size of a JSON body in bytes.
    json_bytes: u64,
    /// Size of a file in bytes.
    file_bytes: u64,
    /// Size of one part of an upload in bytes.
    part_bytes: u64,
    /// Parts of one upload.
    upload_parts: u32,
    /// Open uploads of one tenant.
    uploads: u32,
    /// Seconds in which an upload must be completed.
    upload_seconds: u64,
    /// Shortest and longest lifetime of a file in seconds.
    file_lifetime_seconds: [u64; 2],
    /// Images in one prediction.
    predict_images: usize,
    /// Size of one image in a prediction in bytes.
    predict_image_bytes: usize,
    /// Rows in one page of most lists.
    page: u32,
    /// Rows in one page of files or models.
    long_page: u32,
    /// Seconds that `wait` may hold a response back.
    wait_seconds: u64,
    /// Entries of a job's `metadata`.
    metadata_entries: usize,
    /// Problems that an answer lists.
    problems: usize,
}

/// Get the limits of this service
#[utoipa::path(get, path = "/v1/meta/limits", tag = "service", operation_id = "get_limits",
    responses((status = 200, body = LimitsObject)))]
pub(crate) async fn get(State(state): State<AppState>) -> axum::Json<LimitsObject> {
    let found = &state.limits;
    let lifetime = limits::FILE_LIFETIME_SECONDS;
    axum::Json(LimitsObject {
        object: "limits",
        json_bytes: found.max_json_bytes as u64,
        file_bytes: found.max_upload_bytes,
        part_bytes: found.max_part_bytes,
        upload_parts: found.max_upload_parts,
        uploads: found.max_uploads,
        upload_seconds: found.upload_seconds,
        file_lifetime_seconds: [*lifetime.start(), *lifetime.end()],
        predict_images: found.max_predict_images,
        predict_image_bytes: found.max_predict_image_bytes,
        page: found.max_page,
        long_page: found.max_long_page,
        wait_seconds: found.max_wait_seconds,
        metadata_entries: limits::METADATA_ENTRIES,
        problems: limits::PROBLEMS,
    })
}
