//! Bundles in use, on files that training wrote: knows nothing of a run.

/// A bundle in memory.
pub mod bundle;

mod loaded;
mod queue;

/// The inference process.
pub mod requests;

/// Golden logits: a bundle is what was trained.
pub mod golden;

/// The same network as one file for other programs.
pub mod network_file;

mod onnx;
mod torchscript;
