//! One integration binary; a module per behavior that a user can see.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its figures are printed"
)]

mod adapters;
mod attacks;
mod bad_input;
mod bulk;
mod cases;
mod chaos;
mod choosing;
mod cli;
mod command_line;
mod connections;
mod contract;
mod damage;
mod docs;
mod downloads;
mod early_answers;
mod events;
mod export;
mod failures;
mod garbage_collection;
mod go_on;
mod http_errors;
mod hub;
mod idempotency;
mod inputs;
mod job_body;
mod layers;
mod main_job;
mod memory;
mod meta;
mod metrics;
mod outgoing;
mod plan;
mod polling;
mod postgres;
mod postgres_killed;
mod private;
mod queue;
mod request_forms;
mod sample_report;
mod sandbox;
mod slots;
mod states;
mod storage_full;
mod support;
mod tasks;
#[cfg(feature = "otel")]
mod traces;
mod uploads;
mod waiting;
mod webhooks;
mod worker_role;
