//! Metrics of outputs against targets: plain arithmetic in f64 on the host, the same for any batch
//! size.

/// Shares and means that may be of nothing.
pub(crate) mod average;
/// The temperature of probabilities.
pub mod calibration;
/// Context of a report.
pub mod context;
/// Logits beside labels.
pub mod labelled;
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
    context::{OutputDecoding, ReportContext},
    labelled::{MultiLabel, SingleLabel},
    regression::Regression,
    scored::Scored,
};
