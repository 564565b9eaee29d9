//! One integration binary; a module per behavior that a user can see.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its figures are printed"
)]

mod adapters;
mod bad_input;
mod bulk;
mod chaos;
mod choosing;
mod cli;
mod contract;
mod datasets;
mod events;
mod export;
mod failures;
mod garbage_collection;
mod go_on;
mod goldens;
mod http_errors;
mod inputs;
mod job_body;
mod layers;
mod lora;
mod main_job;
mod memory;
mod metrics;
mod networks;
mod parity;
mod plan;
mod postgres;
mod postgres_killed;
mod queue;
mod resume;
mod sample_report;
mod slots;
mod states;
mod storage_full;
mod support;
mod tasks;
mod train_parity;
mod traps;
mod waiting;
mod weights;
