//! Tests of the trainer: its numbers against recordings, and its executable on small real data.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its figures are printed"
)]

mod cases;
mod datasets;
mod distortion;
mod export;
mod go_on;
mod goldens;
mod inputs;
mod lora;
mod memory;
mod metrics;
mod networks;
mod onnx;
mod parity;
mod resume;
mod sample_order;
mod saves;
mod support;
mod train_parity;
mod traps;
mod weights;
