//! `/v1/meta`: what a client may want to know of the API itself. No key is needed, as for the
//! contract.

pub(crate) mod error_codes;
pub(crate) mod limits;
pub(crate) mod statuses;
