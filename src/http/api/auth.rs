//! Authentication: a middleware before every route but a few public ones, so that no route can
//! forget it. A service without keys that listens on loopback is open: every request belongs to the
//! default tenant, as an admin. Any other requires `Authorization: Bearer rh_<public
//! prefix>_<secret>`, or, of a browser, the cookie of a session; all wrong keys get the same
//! response.

use std::{net::IpAddr, time::Duration};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::{
    db::{self, keys::KeyId, tenants::TenantId},
    domain::role::Role,
    http::api::{
        error::ApiError,
        identity::{Identity, Sender, limits_of},
        origin,
        peer::sender,
        rate_limit::Level,
        session,
        state::{AppState, Bucket},
    },
    keys,
};

/// Routes that need no key. The pages of `/docs` and the dashboard's files are public as well.
const PUBLIC: [&str; 4] = ["/healthz", "/readyz", "/openapi.yaml", "/v1/session"];

/// Time of every refusal of a key: an unknown id, of which less is looked up, takes as long as a
/// wrong secret.
const REFUSAL: Duration = Duration::from_millis(5);

/// The tenant of a request, and the state that serves it; every route that reads or writes rows
/// extracts both.
pub(crate) struct Caller {
    pub state: AppState,
    pub tenant: TenantId,
}

/// The same, of an admin; anybody else is refused.
pub(crate) struct Admin {
    pub state: AppState,
    pub tenant: TenantId,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let identity = Identity::from_request_parts(parts, state).await?;
        Ok(Self {
            tenant: identity.tenant,
            state: state.clone(),
        })
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let identity = Identity::from_request_parts(parts, state).await?;
        if identity.role != Role::Admin {
            return Err(ApiError::admin_only());
        }
        Ok(Self {
            tenant: identity.tenant,
            state: state.clone(),
        })
    }
}

/// True for the sender of a request to a public route that is an admin all the same.
pub(crate) struct IsAdmin(pub bool);

impl FromRequestParts<AppState> for IsAdmin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let identity = identify(parts, state).await;
        Ok(Self(
            identity.is_ok_and(|sender| sender.identity.role == Role::Admin),
        ))
    }
}

/// Middleware: finds out who sends the request, for `Caller` and its like.
///
/// # Errors
/// 401 without a valid key, or 403 where an open service is not asked by its own machine.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let route = request.extensions().get::<MatchedPath>();
    let is_public = route.is_none_or(|route| {
        let route = route.as_str();
        let is_page = |of: &str| {
            route == of
                || route
                    .strip_prefix(of)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        PUBLIC.contains(&route) || is_page("/docs") || is_page("/ui")
    });
    if is_public {
        return Ok(next.run(request).await);
    }
    let (mut parts, body) = request.into_parts();
    let Sender {
        identity,
        of_key: key_limit,
    } = identify(&parts, &state).await?;
    let level = take_request(&state, &identity, key_limit);
    let mut response = match refusal(level) {
        Some(error) => error.into_response(),
        None => {
            parts.extensions.insert(identity.clone());
            let is_safe = parts.method.is_safe();
            let response = next.run(Request::from_parts(parts, body)).await;
            if !is_safe {
                state.recent_jobs.wrote(identity.tenant);
            }
            response
        }
    };
    // For the access log and the headers of the response.
    response.extensions_mut().insert(identity);
    response.extensions_mut().insert(level);
    Ok(response)
}

/// The response to a request beyond the limit.
fn refusal(level: Level) -> Option<ApiError> {
    let wait = level.wait?;
    let message = format!(
        "more than {} requests in a minute, which is the limit; try again",
        level.limit
    );
    Some(ApiError::rate_limited(message, wait))
}

/// Finds out who sends a request to a public route, and counts it.
///
/// # Errors
/// As `authenticate`; 429.
pub(crate) async fn identify_counted(
    parts: &Parts,
    state: &AppState,
) -> Result<Identity, ApiError> {
    let Sender { identity, of_key } = identify(parts, state).await?;
    match refusal(take_request(state, &identity, of_key)) {
        Some(error) => Err(error),
        None => Ok(identity),
    }
}

/// Counts a request in the buckets of its tenant and of its key; returns the one that holds less.
fn take_request(state: &AppState, who: &Identity, key_limit: Option<u32>) -> Level {
    let buckets = &state.access.requests;
    let of_tenant = || {
        let limit = who.limits.requests_per_minute;
        buckets.take(Bucket::Tenant(who.tenant), limit)
    };
    let (Some(limit), Some(key)) = (key_limit, &who.key) else {
        return of_tenant();
    };
    let of_key = buckets.take(Bucket::Key(key.clone()), limit);
    // What the key may not send is not counted against its tenant.
    if of_key.wait.is_some() {
        return of_key;
    }
    let of_tenant = of_tenant();
    if of_tenant.wait.is_some() || of_tenant.remaining < of_key.remaining {
        of_tenant
    } else {
        of_key
    }
}

async fn identify(parts: &Parts, state: &AppState) -> Result<Sender, ApiError> {
    let has_key = parts.headers.contains_key(header::AUTHORIZATION);
    if let Some((tenant, overrides)) = state.open_tenant(has_key).await? {
        origin::check(&parts.uri, &parts.headers)?;
        let identity = Identity {
            tenant,
            tenant_name: db::tenants::DEFAULT.to_owned(),
            role: Role::Admin,
            key: None,
            limits: limits_of(&state.limits.tenant, &overrides),
        };
        return Ok(Sender {
            identity,
            of_key: None,
        });
    }
    let proxies = &state.access.trusted_proxies;
    if has_key {
        let key = bearer(&parts.headers).ok_or_else(ApiError::unauthorized)?;
        return check_key(state, key, sender(parts, proxies)).await;
    }
    let token = session::token(&parts.headers).ok_or_else(ApiError::unauthorized)?;
    origin::check_page(parts, proxies)?;
    session::find(state, token).await
}

/// Finds the sender that a key belongs to.
///
/// # Errors
/// 401; 429: this address has sent too many wrong keys.
pub(crate) async fn check_key(
    state: &AppState,
    key: &str,
    address: IpAddr,
) -> Result<Sender, ApiError> {
    let started = Instant::now();
    let digest = keys::digest(key);
    let attempts = &state.access.key_attempts;
    let id = keys::id_of(key);
    // The token of a session is no key.
    if let Some(sender) = attempts.recent(&digest).filter(|_| id.is_some()) {
        return Ok(sender);
    }
    if !attempts.is_known(&digest) {
        attempts.check(address)?;
    }
    let found = match &id {
        Some(id) => db::keys::find(&state.pool, id).await?,
        None => None,
    };
    let sha256 = found.as_ref().map_or(&[0; 32][..], |found| &found.sha256);
    let is_equal: bool = digest.as_slice().ct_eq(sha256).into();
    match found
        .filter(|found| is_equal && found.is_valid)
        .zip(id.clone())
    {
        Some((found, id)) => {
            let sender = Sender::new(id.clone(), found, &state.limits.tenant);
            if attempts.accept(digest, sender.clone(), started) {
                record_use(state, id);
            }
            Ok(sender)
        }
        None => {
            attempts.refuse(address, id.as_ref());
            tokio::time::sleep_until(started + REFUSAL).await;
            Err(ApiError::unauthorized())
        }
    }
}

/// Records the use of a key, beside the request.
fn record_use(state: &AppState, id: KeyId) {
    let pool = state.pool.clone();
    tokio::spawn(async move {
        if let Err(error) = db::keys::record_use(&pool, &id).await {
            tracing::warn!(key = %id, "cannot record the use of a key: {error}");
        }
    });
}

/// The key in the `authorization` header, if there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
