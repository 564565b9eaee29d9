//! The contents and the file names of a bundle.

use crate::{
    domain::{checkpoint::Metrics, report::Report},
    train::{eval::metrics::OutputDecoding, input::preparation::Preparation, network::Network},
};

/// The bundle's folder, in the job folder.
pub const FOLDER: &str = "bundle";
pub const MODEL: &str = "model.safetensors";
pub const CONFIG: &str = "config.json";
pub const PREPROCESS: &str = "preprocess.json";
pub const LABELS: &str = "labels.json";
pub const METRICS: &str = "metrics.json";
pub const CARD: &str = "README.md";
pub const GOLDEN: &str = "golden.safetensors";
/// The contents of a bundle that is to be written.
#[derive(Debug)]
pub struct Bundle<'a> {
    pub run: Preparation<'a>,
    /// With the best tensors in place.
    pub network: &'a Network,
    pub best: Metrics,
    pub report: &'a Report,
    pub decoding: &'a OutputDecoding,
}
