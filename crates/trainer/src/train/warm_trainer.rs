//! A warm warm trainer: a trainer that has loaded everything slow and waits to be told what to do, so that a job starts at once.

use std::io::BufRead;

use tch::{Kind, Tensor};

use super::{device, error::TrainError};
use crate::domain::work::Assignment;

/// Makes libtorch do what it does once a process (load CUDA's half, initialize oneDNN, start its threads) by computing
/// something whose result is known. Answers the device's name.
///
/// # Errors
/// `Device` when it is not there, or computes something else.
pub fn warm(name: &str) -> Result<String, TrainError> {
    let device = device::open(name)?;
    // Two images of ones under kernels of ones: 27 at the middle, 12 at a corner, 18 at an edge.
    let images = Tensor::ones([2, 3, 8, 8], (Kind::Float, device));
    let kernels = Tensor::ones([4, 3, 3, 3], (Kind::Float, device)).set_requires_grad(true);
    let no_bias: Option<Tensor> = None;
    let maps = images.f_conv2d(&kernels, no_bias, [1, 1], [1, 1], [1, 1], 1)?;
    let sum = maps.f_sum(Kind::Float)?;
    sum.f_backward()?;
    // Each kernel sees 2 x 3 x 22 x 22 ones: along a side, 6 places of width 3 and 2 of width 2.
    let expected_sum = f64::from(2 * 4 * 3 * 22 * 22);
    // A kernel's middle lies on every place of both images.
    let expected_slope = f64::from(2 * 8 * 8);
    let slope = kernels.grad().f_double_value(&[0, 0, 1, 1])?;
    let sum = sum.f_double_value(&[])?;
    if (sum, slope) == (expected_sum, expected_slope) {
        Ok(device::name(device))
    } else {
        Err(TrainError::Device(format!(
            "device `{}` computes {sum} and {slope} where {expected_sum} and {expected_slope} are right",
            device::name(device)
        )))
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
