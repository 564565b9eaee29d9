//! Serving: what finished models answer. `predictor` is what handlers call; it bounds how many requests wait, fetches the
//! model's bundle and asks the inference process.

pub mod bundles;
pub mod error;
pub mod predictor;
pub mod torchscript;

mod process;
