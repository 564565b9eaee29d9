//! Serving: predictions of finished models. Handlers call `predictor`, which limits how many
//! requests wait, fetches the model's bundle and asks the inference process.

pub mod bundles;
pub mod error;
pub mod predictor;

mod process;
