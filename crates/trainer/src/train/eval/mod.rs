//! From outputs to metrics, reports and the best checkpoint.

/// Outputs beside their targets, and what is measured of them.
pub mod metrics;

/// The network on some samples.
pub mod evaluation;

/// Known classes, before and after.
pub mod forgetting;

/// The best evaluation, and early stopping.
pub mod selection;

/// Predictions and flags of each sample.
pub mod sample_report;
