//! Who sends a request, as authentication found out.

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    config::TenantLimits,
    db::{
        keys::{Found, KeyId},
        tenants::{Overrides, TenantId},
    },
    domain::role::Role,
    http::api::error::ApiError,
};

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub tenant: TenantId,
    pub tenant_name: String,
    pub role: Role,
    /// `None` on an open service.
    pub key: Option<KeyId>,
    /// Limits of the tenant.
    pub limits: TenantLimits,
}

/// An identity, and the limit of the key itself.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub identity: Identity,
    pub of_key: Option<u32>,
}

impl Sender {
    /// The sender that a valid key belongs to.
    pub(crate) fn new(key: KeyId, found: Found, defaults: &TenantLimits) -> Self {
        Self {
            identity: Identity {
                tenant: found.tenant,
                tenant_name: found.tenant_name,
                role: found.role,
                key: Some(key),
                limits: limits_of(defaults, &found.overrides),
            },
            of_key: found.requests_per_minute,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Self>().cloned();
        identity
            .ok_or_else(|| anyhow::anyhow!("a public route needs a tenant: this is a bug").into())
    }
}

/// The limits of a tenant: its own where it has any, or those of the service.
pub(crate) fn limits_of(defaults: &TenantLimits, own: &Overrides) -> TenantLimits {
    TenantLimits {
        requests_per_minute: own
            .requests_per_minute
            .unwrap_or(defaults.requests_per_minute),
        max_stored_bytes: own.max_stored_bytes.unwrap_or(defaults.max_stored_bytes),
        max_streams_per_tenant: own.max_streams.unwrap_or(defaults.max_streams_per_tenant),
        max_waits_per_tenant: own.max_waits.unwrap_or(defaults.max_waits_per_tenant),
        max_predicts_per_tenant: own.max_predicts.unwrap_or(defaults.max_predicts_per_tenant),
        max_uploads_per_tenant: own.max_uploads.unwrap_or(defaults.max_uploads_per_tenant),
        max_reads_per_tenant: defaults.max_reads_per_tenant,
        max_predict_bytes_per_tenant: defaults.max_predict_bytes_per_tenant,
    }
}
