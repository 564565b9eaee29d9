//! `GET /v1/meta/limits`: what a page can refuse before it sends anything.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{limits, sample_index::THUMBNAIL_SIDE},
    http::api::{
        identity::Identity,
        page::{COUNTED_ROWS, SEARCH_CHARACTERS},
        state::AppState,
    },
};

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
    /// Rankings of one tenant that wait or run.
    rankings: u32,
    /// Pushes of one tenant that wait or run.
    pushes: u32,
    /// Corrected data sets of one tenant that are not made yet.
    corrections: u32,
    /// Images in one prediction.
    predict_images: usize,
    /// Size of one image in a prediction in bytes.
    predict_image_bytes: usize,
    /// Size of all images in one prediction in bytes, for the tenant of the request.
    predict_bytes: u64,
    /// Width times height of an image in a prediction; for data sets, unless workers have another.
    image_pixels: u64,
    /// Rows in one page of most lists.
    page: u32,
    /// Rows in one page of files, models or jobs in short.
    long_page: u32,
    /// Rows up to which lists are counted; of more, `count` is `more`.
    counted_rows: u32,
    /// Characters of a text to search for.
    search_characters: usize,
    /// Seconds that `wait` may hold a response back.
    wait_seconds: u64,
    /// Requests in a minute, for the tenant of the request.
    requests_per_minute: u32,
    /// Open event streams of the tenant, for each server.
    streams: u32,
    /// Size of all files of the tenant in bytes.
    stored_bytes: u64,
    /// Entries of a job's `metadata`.
    metadata_entries: usize,
    /// Characters of a key in `metadata`.
    metadata_key_characters: usize,
    /// Characters of a value in `metadata`.
    metadata_value_characters: usize,
    /// Characters of a job's `suffix`.
    suffix_characters: usize,
    /// Characters of a file's name.
    filename_characters: usize,
    /// Classes of a data set.
    classes: usize,
    /// Characters of a class's name.
    label_characters: usize,
    /// Classes up to which a report has a confusion matrix.
    confusion_classes: usize,
    /// Samples in a job's sample report.
    samples: usize,
    /// Longest side of a thumbnail in pixels.
    thumbnail_side: u32,
    /// Problems that an answer lists.
    problems: usize,
}

/// Get the limits of this service
#[utoipa::path(get, path = "/v1/meta/limits", tag = "service", operation_id = "get_limits",
    responses((status = 200, body = LimitsObject)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    identity: Identity,
) -> axum::Json<LimitsObject> {
    let (found, tenant) = (&state.limits, identity.limits);
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
        rankings: found.max_rankings,
        pushes: found.max_pushes,
        predict_images: found.max_predict_images,
        predict_image_bytes: found.max_predict_image_bytes,
        predict_bytes: tenant
            .max_predict_bytes_per_tenant
            .min(found.max_predict_bytes),
        image_pixels: limits::IMAGE_PIXELS,
        corrections: found.max_corrections,
        page: found.max_page,
        long_page: found.max_long_page,
        counted_rows: COUNTED_ROWS,
        search_characters: SEARCH_CHARACTERS,
        wait_seconds: found.max_wait_seconds,
        requests_per_minute: tenant.requests_per_minute,
        streams: tenant.max_streams_per_tenant,
        stored_bytes: tenant.max_stored_bytes,
        metadata_entries: limits::METADATA_ENTRIES,
        metadata_key_characters: limits::METADATA_KEY_CHARACTERS,
        metadata_value_characters: limits::METADATA_VALUE_CHARACTERS,
        suffix_characters: limits::SUFFIX_CHARACTERS,
        filename_characters: limits::FILENAME_CHARACTERS,
        classes: limits::CLASSES,
        label_characters: limits::LABEL_CHARACTERS,
        confusion_classes: limits::CONFUSION_CLASSES,
        samples: limits::SAMPLE_REPORT_ROWS,
        thumbnail_side: THUMBNAIL_SIDE,
        problems: limits::PROBLEMS,
    })
}
