//! Handlers of `/v1/fine_tuning`.

pub(crate) mod checkpoints;
pub(crate) mod controls;
pub(crate) mod create;
pub(crate) mod curves;
pub(crate) mod delete;
pub(crate) mod determinism;
pub(crate) mod events;
pub(crate) mod metrics;
pub(crate) mod object;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod recent;
pub(crate) mod report;
pub(crate) mod rows;
pub(crate) mod samples;
pub(crate) mod snapshot;
pub(crate) mod summaries;
