//! The inputs of every preparation.

use tch::Device;

use super::samples::Samples;
use crate::{domain::work::TrainPlan, process::protocol::Interrupt};

/// The inputs of every preparation.
#[derive(Debug, Clone, Copy)]
pub struct Preparation<'a> {
    pub plan: &'a TrainPlan,
    pub samples: &'a Samples,
    pub device: Device,
    pub interrupt: &'a Interrupt,
}
