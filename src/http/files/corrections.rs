//! `POST /v1/files/{id}/corrections`: a data set without some samples, or with other labels, made
//! from one that is stored.

use axum::response::Response;

use crate::{
    db::{
        self,
        corrections::{Inserted, NewCorrection},
        files::File,
    },
    domain::{
        corrections::Corrections,
        file::{FileStatus, Purpose},
        id::FileId,
        limits::FILENAME_CHARACTERS,
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, refuse_any},
            extract::{Id, Json},
            idempotency::{self, IdempotencyKey},
            identity::Identity,
        },
        files::count_bytes,
    },
};

/// End of the name of a data set that is made of another.
const SUFFIX: &str = "-corrected.tar";

/// Correct a data set
///
/// A worker makes a new data set of this one: without the samples in `exclude`, and with the labels
/// in `relabel`; splits stay as they are. `GET /v1/files/{id}?wait=60&until=processed` of the new
/// file waits for it. Nothing is uploaded, and this data set stays.
#[utoipa::path(post, path = "/v1/files/{id}/corrections", tag = "files", operation_id = "correct_file",
    params(("id" = FileId, Path), IdempotencyKey), request_body = Corrections,
    responses((status = 200, body = File, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<FileId>,
    key: IdempotencyKey,
    body: Json,
) -> Result<Response, ApiError> {
    let file = db::files::get(&state.pool, tenant, id).await?;
    let file = file.ok_or_else(|| ApiError::unknown(id))?;
    let idempotency = key.with_body(&body.0);
    let corrections: Corrections = body.read()?;
    if file.purpose != Purpose::FineTune {
        let message = "only data sets can be corrected, not weights or metrics";
        return Err(ApiError::invalid("id", "wrong_purpose", message));
    }
    let dataset = file
        .dataset
        .filter(|_| file.status == FileStatus::Processed);
    let dataset = dataset.ok_or_else(|| {
        let message = "the data set is not validated, or cannot be used; see its `status`";
        ApiError::conflict("not_ready", message)
    })?;
    refuse_any(corrections.problems(&dataset))?;
    count_bytes(&state, &identity).await?;
    let correction = NewCorrection {
        id: FileId::new(),
        tenant,
        from: id,
        filename: filename(&file.filename),
        corrections,
        idempotency,
        details: format!("a worker makes it from `{id}`"),
    };
    let limit = state.limits.max_corrections;
    match db::corrections::insert(&state.pool, &correction, limit).await? {
        Inserted::File(file) => idempotency::respond(*file),
        Inserted::Gone => Err(ApiError::unknown(id)),
        Inserted::TooMany => {
            let message = format!(
                "{limit} corrected data sets have not ended, as many as a tenant may have; wait for one, or delete it"
            );
            Err(ApiError::too_many("too_many_corrections", message, 5))
        }
    }
}

/// The name of the data set that is made of one with this name.
fn filename(before: &str) -> String {
    let stem = before.strip_suffix(SUFFIX).unwrap_or(before);
    let endings = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"];
    let stem = endings
        .iter()
        .find_map(|ending| stem.strip_suffix(ending))
        .unwrap_or(stem);
    let room = FILENAME_CHARACTERS - SUFFIX.len();
    let stem: String = stem.chars().take(room).collect();
    stem + SUFFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_that_data_sets_are_corrected() {
        for (before, after) in [
            ("photos.zip", "photos-corrected.tar"),
            ("photos.tar.gz", "photos-corrected.tar"),
            ("photos-corrected.tar", "photos-corrected.tar"),
            ("photos", "photos-corrected.tar"),
        ] {
            assert_eq!(filename(before), after);
        }
        let long = filename(&"ﷺ".repeat(255));
        assert_eq!(long.chars().count(), FILENAME_CHARACTERS);
    }
}
