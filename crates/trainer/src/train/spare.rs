//! A warm spare: a trainer that has loaded everything slow and waits to be told what to do, so that a job starts at once.

use std::io::BufRead;

use tch::{Device, Kind, Tensor};

use super::{device, error::TrainError};
use crate::domain::work::Assignment;

/// Makes libtorch do what it does once a process: load CUDA's half, initialise oneDNN, start its threads.
pub fn warm() {
    device::load_cuda();
    let _no_grad = tch::no_grad_guard();
    let image = Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let weight = Tensor::zeros([4, 3, 3, 3], (Kind::Float, Device::Cpu));
    let no_bias: Option<Tensor> = None;
    let _ = image
        .conv2d(&weight, no_bias, [1, 1], [1, 1], [1, 1], 1)
        .mean(Kind::Float)
        .double_value(&[]);
    if tch::Cuda::is_available() {
        let _ = Tensor::zeros([1], (Kind::Float, Device::Cuda(0)));
    }
}

/// Waits for the one line that says what to become; `None` when there will be none.
///
/// # Errors
/// `Plan` for a line that is no assignment, `Io`.
pub fn assignment(input: &mut impl BufRead) -> Result<Option<Assignment>, TrainError> {
    let mut line = String::new();
    if input
        .read_line(&mut line)
        .map_err(TrainError::io("cannot read the assignment"))?
        == 0
    {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&line);
    parsed
        .map(Some)
        .map_err(|error| TrainError::Plan(format!("a line is not an assignment: {error}")))
}
