//! Parts that all routes share: errors, extractors, pages, authentication, state, the accept loop.

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
pub(crate) mod linger;
pub(crate) mod multipart;
pub(crate) mod page;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod wait;
