//! Shared by the tests of the service and of the trainer: small real data, made-up weights, a
//! recipe to start from. Nothing here needs torch.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking where its material is missing"
)]

/// Archives made of the demo's clip art, and published weights.
pub mod data;

/// Parquet files of images and labels.
pub mod parquet;

/// Memory, children and state of processes; waiting for a condition.
pub mod process;

/// A recipe to start from.
pub mod recipe;

/// Weights that follow from a tensor's name and shape.
pub mod weights;
