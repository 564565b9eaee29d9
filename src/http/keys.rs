//! `/v1/keys`: API keys of all tenants, for admins.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        keys::{Key, KeyId},
    },
    domain::{codes, role::Role},
    http::api::{
        auth::Admin,
        error::{ApiError, refuse_any},
        extract::{Id, Json, Params},
        page::{Deleted, List, PageQuery},
    },
    keys::Grant,
};

/// A key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// Name of its tenant, which is created if it does not exist.
    #[schema(min_length = 1, max_length = 64)]
    tenant: String,
    /// `user` by default.
    role: Option<Role>,
    /// A label for people; the tenant's name by default.
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    /// Time from which it is refused, in Unix seconds; never by default.
    expires_at: Option<i64>,
    /// Maximum number of requests in a minute, within that of the tenant; none by default.
    #[schema(maximum = 1_000_000_000)]
    requests_per_minute: Option<u32>,
}

/// A key that was created.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    #[serde(flatten)]
    key: Key,
    /// The whole key, which cannot be shown again.
    value: String,
}

/// Create an API key
#[utoipa::path(post, path = "/v1/keys", tag = "keys", operation_id = "create_key", request_body = KeyRequest,
    responses((status = 200, body = CreatedKey)))]
pub(crate) async fn create(
    Admin { state, .. }: Admin,
    body: Json,
) -> Result<axum::Json<CreatedKey>, ApiError> {
    let request: KeyRequest = body.read()?;
    let expires_at = request.expires_at.map(OffsetDateTime::from_unix_timestamp);
    let expires_at = expires_at.transpose().map_err(|_| {
        let message = "must be a time in Unix seconds";
        ApiError::invalid("expires_at", codes::OUT_OF_RANGE, message)
    })?;
    let grant = Grant {
        tenant: request.tenant,
        name: request.name,
        role: request.role.unwrap_or(Role::User),
        expires_at,
        requests_per_minute: request.requests_per_minute,
    };
    refuse_any(grant.problems())?;
    let (key, value) = grant.create(&state.pool).await?;
    state.expire_keys().await;
    Ok(axum::Json(CreatedKey { key, value }))
}

/// List API keys
///
/// The keys of all tenants, with revoked and expired ones, without their secrets.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "list_keys", params(PageQuery<KeyId>),
    responses((status = 200, body = List<Key>)))]
pub(crate) async fn list(
    Admin { state, .. }: Admin,
    Params(query): Params<PageQuery<KeyId>>,
) -> Result<axum::Json<List<Key>>, ApiError> {
    let slice = db::keys::list(&state.pool, query.page(&state.limits)?).await?;
    Ok(List::of(slice, |key| key, |key: &Key| key.id.to_string()))
}

/// Revoke an API key
///
/// It is refused from now on, for good, and stays in the list.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", operation_id = "revoke_key", params(("id" = KeyId, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn revoke(
    Admin { state, .. }: Admin,
    Id(id): Id<KeyId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    let revoked = db::keys::revoke(&state.pool, &id).await?;
    state.expire_keys().await;
    match revoked {
        Some(_) => Ok(Deleted::of("api_key", id)),
        None => Err(ApiError::unknown(id)),
    }
}
