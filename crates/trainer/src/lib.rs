//! What works with torch, and with bytes that users uploaded. Runs in child processes only (`rehead-trainer`,
//! docs/adr/0001): knows no Postgres, no HTTP, no bucket, and opens no socket. The modules, in reading order:

pub use rehead_domain as domain;

/// Bytes to tensors: archives, images, packs, splits.
pub mod data;

/// Architectures, heads, weights.
pub mod models;

/// The training loop and what it needs.
pub mod train;
