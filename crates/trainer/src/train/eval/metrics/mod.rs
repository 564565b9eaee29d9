//! Metrics of outputs against targets: plain arithmetic in f64 on the host, the same for any batch
//! size.

/// Shares and means that may be of nothing.
pub(crate) mod average;
/// The temperature of probabilities.
pub mod calibration;
/// Context of a report.
pub mod context;
/// Any number of labels a sample.
pub mod multi;
/// Curves over all thresholds.
mod ranking;
/// A number a sample.
pub mod regression;
/// Outputs beside their targets.
pub mod scored;
/// One class a sample.
pub mod single;

pub use self::{
    context::{EvalPoint, OutputDecoding, ReportContext},
    multi::MultiLabel,
    regression::Regression,
    scored::Scored,
    single::SingleLabel,
};
