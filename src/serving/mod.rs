//! Serving: predictions of finished models and checkpoints. Handlers call `predictor`, which limits
//! how many requests wait, fetches the weights and asks the inference process.

pub mod bundles;
pub mod checkpoint;
pub mod error;
pub mod predictor;

mod process;
