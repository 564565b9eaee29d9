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
mod corrections;
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
mod hub_datasets;
mod idempotency;
mod inputs;
mod job_body;
mod job_summaries;
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
mod push;
mod queue;
mod rankings;
mod request_forms;
mod resumed_downloads;
mod sample_report;
mod sandbox;
mod sessions;
mod slots;
mod states;
mod storage_full;
mod support;
mod tasks;
mod thumbnails;
#[cfg(feature = "otel")]
mod traces;
mod ui;
mod uploads;
mod waiting;
mod webhooks;
mod worker_role;
