//! `/v1/model_rankings`: base models by how well their features fit a data set.

use axum::{http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        rankings::{self, NewRanking, Ranking, RankingStatus},
    },
    domain::{
        file::FileStatus,
        id::{FileId, RankingId},
        problem::Problem,
        ranking::{Excluded, RankedModel},
        request::RankingRequest,
    },
    http::api::{
        auth::Caller,
        conditional::{etag_of, respond},
        error::{ApiError, QUEUE_FULL},
        extract::{Id, Json, Params},
        identity::Identity,
        page::{Deleted, List, PageQuery},
        wait::seconds,
    },
    jobs::candidates::Candidates,
};

/// A ranking of base models for a data set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RankingObject {
    id: RankingId,
    /// `model_ranking`.
    object: &'static str,
    status: RankingStatus,
    training_file: FileId,
    /// Number of models to score.
    candidates: u64,
    /// The best model first; empty until the ranking has succeeded.
    data: Vec<RankedModel>,
    /// Models that are not ranked, each with the reason.
    excluded: Vec<Excluded>,
    /// Why it failed.
    error: Option<RankingError>,
    /// Time that scoring took. Scores that are known from earlier rankings take none.
    seconds: Option<f64>,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    created_at: OffsetDateTime,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    finished_at: Option<OffsetDateTime>,
}

/// Why a ranking failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RankingError {
    /// Listed in docs/errors.md.
    code: String,
    message: String,
}

impl From<Ranking> for RankingObject {
    fn from(ranking: Ranking) -> Self {
        Self {
            id: ranking.id,
            object: "model_ranking",
            status: ranking.status,
            training_file: ranking.training_file,
            candidates: ranking.candidates.len() as u64,
            data: ranking.ranked.unwrap_or_default(),
            excluded: ranking.excluded,
            error: ranking.error.map(|error| RankingError {
                code: error.code,
                message: error.message,
            }),
            seconds: ranking.seconds,
            created_at: ranking.created_at,
            finished_at: ranking.finished_at,
        }
    }
}

/// Rank base models
///
/// Scores each base model by a ridge regression on its frozen features of the training split, and
/// orders them. Nothing is trained. Scores are kept: asking again computes nothing.
#[utoipa::path(post, path = "/v1/model_rankings", tag = "models", operation_id = "create_model_ranking", request_body = RankingRequest,
    responses((status = 200, body = RankingObject)))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    Json(body): Json,
) -> Result<axum::Json<RankingObject>, ApiError> {
    let request = RankingRequest::parse(&body)?;
    let id = request.training_file;
    let refuse = |code, message: String| -> ApiError {
        vec![Problem::new("training_file", code, message)].into()
    };
    let file = db::files::get(&state.pool, tenant, id).await?;
    let file = file.ok_or_else(|| refuse("unknown_file", format!("there is no file `{id}`")))?;
    let Some(dataset) = &file.dataset else {
        return Err(match file.status {
            FileStatus::Downloading | FileStatus::Uploaded => refuse(
                "not_ready",
                format!(
                    "file `{id}` is still being validated; wait with `GET /v1/files/{id}?wait=30&until=processed`"
                ),
            ),
            _ => refuse(
                "unusable_file",
                format!(
                    "file `{id}` is no data set that can be used; see `GET /v1/files/{id}/report`"
                ),
            ),
        });
    };
    let found =
        Candidates::find(&state.pool, tenant, &request.candidates, dataset.modality).await?;
    if let Some(problem) = found.none_left("candidates") {
        return Err(vec![problem].into());
    }
    let limit = state.limits.max_rankings;
    if rankings::pending(&state.pool, tenant).await? >= u64::from(limit) {
        let message = format!(
            "{limit} rankings wait or run, which is the limit; delete some, or try again later"
        );
        return Err(ApiError::too_many(QUEUE_FULL, message, 30));
    }
    let ranking = NewRanking {
        id: RankingId::new(),
        tenant,
        training_file: id,
        validation_file: None,
        candidates: found.candidates,
        excluded: found.excluded,
    };
    let mut transaction = db::begin(&state.pool).await?;
    rankings::create(&mut transaction, &ranking).await?;
    transaction.commit().await?;
    let made = rankings::get(&state.pool, tenant, ranking.id).await?;
    let made = made.ok_or_else(|| ApiError::unknown(ranking.id))?;
    Ok(axum::Json(made.into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RankingQuery {
    /// Seconds to hold the response back, at most, until the ranking has ended.
    #[param(maximum = 60)]
    wait: Option<u64>,
}

/// Get a ranking
#[utoipa::path(get, path = "/v1/model_rankings/{id}", tag = "models", operation_id = "get_model_ranking",
    params(("id" = RankingId, Path), RankingQuery,
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when nothing has changed.")),
    responses((status = 200, body = RankingObject, headers(("etag" = String, description = "Version of the ranking."))), (status = 304)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<RankingId>,
    Params(query): Params<RankingQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = seconds(query.wait, &state.limits)?;
    let _place = state.quotas.wait(&identity, wait)?;
    let mut changes = state.changes.subscribe();
    let look = || rankings::get(&state.pool, tenant, id);
    let done = |ranking: &Option<Ranking>| {
        ranking
            .as_ref()
            .is_none_or(|ranking| ranking.status.is_terminal())
    };
    let ranking = changes
        .until(&id.to_string(), wait, &state.shutdown, look, done)
        .await?
        .ok_or_else(|| ApiError::unknown(id))?;
    let object = RankingObject::from(ranking);
    Ok(respond(&headers, etag_of(&object), || object))
}

/// List rankings
#[utoipa::path(get, path = "/v1/model_rankings", tag = "models", operation_id = "list_model_rankings", params(PageQuery<RankingId>),
    responses((status = 200, body = List<RankingObject>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Params(query): Params<PageQuery<RankingId>>,
) -> Result<axum::Json<List<RankingObject>>, ApiError> {
    let page = query.page(&state.limits)?;
    let slice = rankings::list(&state.pool, tenant, page).await?;
    Ok(List::of(slice, RankingObject::from, |ranking| {
        ranking.id.to_string()
    }))
}

/// Delete a ranking
///
/// One that has not ended is stopped. Its scores are kept. A job that waits for it gets a new one.
#[utoipa::path(delete, path = "/v1/model_rankings/{id}", tag = "models", operation_id = "delete_model_ranking",
    params(("id" = RankingId, Path)), responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    Id(id): Id<RankingId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    match rankings::delete(&state.pool, tenant, id).await? {
        true => Ok(Deleted::of("model_ranking", id)),
        false => Err(ApiError::unknown(id)),
    }
}
