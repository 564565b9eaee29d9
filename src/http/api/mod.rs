//! Parts that all routes share: errors, extractors, pages, authentication, limits, state.

pub(crate) mod access_log;
pub(crate) mod auth;
pub(crate) mod conditional;
pub(crate) mod contract;
pub(crate) mod counted;
pub(crate) mod download;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod flat_schemas;
pub(crate) mod idempotency;
pub(crate) mod identity;
pub(crate) mod kept;
pub(crate) mod key_attempts;
pub(crate) mod linger;
pub(crate) mod multipart;
pub(crate) mod origin;
pub(crate) mod outgoing;
pub(crate) mod page;
pub(crate) mod peer;
pub(crate) mod quota;
pub(crate) mod quotas;
pub(crate) mod rate_limit;
pub(crate) mod response_end;
pub(crate) mod state;
pub(crate) mod wait;
