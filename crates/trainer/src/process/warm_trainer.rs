//! A warm trainer has loaded everything that is slow to load and waits for its assignment, so that
//! a job starts at once.

use std::io::BufRead;

use tch::{Kind, Tensor};

use super::{device, error::TrainError};
use crate::domain::work::Assignment;

/// Initializes libtorch (CUDA, oneDNN, its threads) by a computation whose result is known. Returns
/// the device's name.
///
/// # Errors
/// `Device` when the device is missing or computes another result.
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
    // The middle of a kernel covers every position of both images.
    let expected_slope = f64::from(2 * 8 * 8);
    let slope = kernels.grad().f_double_value(&[0, 0, 1, 1])?;
    let sum = sum.f_double_value(&[])?;
    if (sum, slope) == (expected_sum, expected_slope) {
        Ok(device::name(device))
    } else {
        Err(TrainError::Device(format!(
            "device `{}` is faulty: its self-test gave {sum} and {slope} instead of {expected_sum} and {expected_slope}; check \
             the GPU and its driver, or choose another with `--device`",
            device::name(device)
        )))
    }
}

/// Waits for the one line with the assignment; `None` when the input ends without it.
///
/// # Errors
/// `Plan` for a line that is no assignment, `Io`.
pub fn assignment(input: &mut impl BufRead) -> Result<Option<Assignment>, TrainError> {
    let mut line = String::new();
    let failed = TrainError::io("cannot read the assignment from standard input");
    if input.read_line(&mut line).map_err(failed)? == 0 {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&line);
    parsed.map(Some).map_err(|error| {
        TrainError::Plan(format!(
            "standard input has no valid assignment: {error}; give one line of JSON"
        ))
    })
}
