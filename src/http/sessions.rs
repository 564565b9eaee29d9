//! `/v1/session`: a browser signs in with an API key, and holds a cookie from then on.

use axum::{
    extract::{FromRequestParts, State},
    http::{header, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use crate::{
    db::{self, keys::KeyId, sessions::Session},
    domain::{role::Role, words},
    http::api::{
        auth::{check_key, identify_counted},
        error::ApiError,
        extract::Json,
        identity::{Identity, Sender},
        origin,
        peer::sender,
        session,
        state::AppState,
    },
    keys,
};

/// The key that a browser signs in with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionRequest {
    /// An API key.
    #[schema(max_length = 255)]
    key: String,
    /// True keeps the cookie when the browser is closed; `false` by default.
    #[serde(default)]
    keep: bool,
}

words! {
    /// How a browser is served.
    pub(crate) enum SessionStatus {
        /// The service has no keys and serves every process of its machine.
        Open = "open",
        /// By a session or a key.
        SignedIn = "signed_in",
        /// An API key is needed.
        SignedOut = "signed_out",
    }
}

/// Who a browser is to the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionObject {
    /// `session`.
    object: &'static str,
    status: SessionStatus,
    /// Name of the tenant; `null` when signed out.
    tenant: Option<String>,
    role: Option<Role>,
    /// Id of the API key; `null` on an open service.
    key: Option<KeyId>,
    /// Beginning of the session; `null` without one.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    created_at: Option<OffsetDateTime>,
    /// Time at which the session ends unless it is used before.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    expires_at: Option<OffsetDateTime>,
}

impl SessionObject {
    const SIGNED_OUT: Self = Self {
        object: "session",
        status: SessionStatus::SignedOut,
        tenant: None,
        role: None,
        key: None,
        created_at: None,
        expires_at: None,
    };

    fn new(identity: Identity, session: Option<Session>) -> Self {
        Self {
            status: match identity.key {
                Some(_) => SessionStatus::SignedIn,
                None => SessionStatus::Open,
            },
            tenant: Some(identity.tenant_name),
            role: Some(identity.role),
            key: identity.key,
            created_at: session.map(|session| session.created_at),
            expires_at: session.map(|session| session.expires_at),
            ..Self::SIGNED_OUT
        }
    }
}

/// A page of this service that begins or ends a session.
pub(crate) struct Page(Parts);

impl FromRequestParts<AppState> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        origin::check_page(parts, &state.access.trusted_proxies)?;
        Ok(Self(parts.clone()))
    }
}

/// Begin a session
///
/// For pages of this service, with the header `x-rehead-ui: 1`: the cookie stands for the key from
/// then on. Programs send the key itself with each request.
#[utoipa::path(post, path = "/v1/session", tag = "keys", operation_id = "create_session", request_body = SessionRequest,
    responses((status = 200, body = SessionObject, headers(("set-cookie" = String, description = "The session.")))))]
pub(crate) async fn create(
    State(state): State<AppState>,
    Page(parts): Page,
    body: Json,
) -> Result<Response, ApiError> {
    let request: SessionRequest = body.read()?;
    let proxies = &state.access.trusted_proxies;
    let address = sender(&parts, proxies);
    let Sender { identity, .. } = check_key(&state, request.key.trim(), address).await?;
    let key = identity.key.clone().ok_or_else(ApiError::unauthorized)?;
    let (token, lifetimes) = (session::new_token(), state.sessions.lifetimes());
    let digest = keys::digest(&token);
    let limit = state.sessions.max_sessions_per_key;
    let created = db::sessions::create(&state.pool, (&digest, &key), lifetimes, limit).await?;
    let max_age = request.keep.then_some(lifetimes.longest);
    let cookie = session::cookie(&token, max_age, origin::is_https(&parts, proxies));
    let object = SessionObject::new(identity, Some(created));
    Ok(([(header::SET_COOKIE, cookie)], axum::Json(object)).into_response())
}

/// Get the session
///
/// Needs no key: it says whether one is needed, and whose the session is.
#[utoipa::path(get, path = "/v1/session", tag = "keys", operation_id = "get_session",
    responses((status = 200, body = SessionObject)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    parts: Parts,
) -> Result<axum::Json<SessionObject>, ApiError> {
    let has_key = parts.headers.contains_key(header::AUTHORIZATION);
    let identity = match identify_counted(&parts, &state).await {
        Ok(identity) => identity,
        Err(error) if error.status == 401 && !has_key => {
            return Ok(axum::Json(SessionObject::SIGNED_OUT));
        }
        Err(error) => return Err(error),
    };
    let token = session::token(&parts.headers);
    let session = match token.filter(|_| !has_key && identity.key.is_some()) {
        Some(token) => db::sessions::find(&state.pool, &keys::digest(token)).await?,
        None => None,
    };
    let session = session.map(|(session, _)| session);
    Ok(axum::Json(SessionObject::new(identity, session)))
}

/// End the session
///
/// The cookie is worth nothing from then on, and the browser drops it. Needs the header
/// `x-rehead-ui: 1`.
#[utoipa::path(delete, path = "/v1/session", tag = "keys", operation_id = "delete_session",
    responses((status = 200, body = SessionObject, headers(("set-cookie" = String, description = "Takes the session away.")))))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Page(parts): Page,
) -> Result<Response, ApiError> {
    if let Some(token) = session::token(&parts.headers)
        && db::sessions::end(&state.pool, &keys::digest(token)).await?
    {
        state.access.key_attempts.expire();
    }
    let is_https = origin::is_https(&parts, &state.access.trusted_proxies);
    let cookie = session::cookie("", Some(std::time::Duration::ZERO), is_https);
    let object = axum::Json(SessionObject::SIGNED_OUT);
    Ok(([(header::SET_COOKIE, cookie)], object).into_response())
}
