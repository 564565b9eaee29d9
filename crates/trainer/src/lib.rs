//! The code that works with torch and with uploaded bytes. Runs in child processes only
//! (`rehead-trainer`, docs/adr/0001): knows no Postgres, no HTTP, no bucket, and opens no socket.
//! The modules, in reading order:

pub use rehead_domain as domain;

/// Counts of finished work.
pub mod ticks;

/// Bytes to tensors: archives, images, packs, splits.
pub mod data;

/// Architectures, heads, weights.
pub mod models;

/// The child process: errors, protocol, device, memory.
pub mod process;

/// A training run.
pub mod train;

/// Bundles in use: predictions, verification, TorchScript, ONNX.
pub mod serve;
