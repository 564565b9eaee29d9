//! Handlers of `/v1/fine_tuning`.

pub(crate) mod controls;
pub(crate) mod create;
pub(crate) mod curves;
pub(crate) mod determinism;
pub(crate) mod events;
pub(crate) mod object;
pub(crate) mod plan;
pub(crate) mod results;
pub(crate) mod samples;
