//! The child process itself: how it fails, how it talks to its parent, what it runs on.

/// Errors, with their codes.
pub mod error;

/// JSON files and lines.
pub mod json;

/// JSON lines to and from the parent.
pub mod protocol;

/// CPU or CUDA.
pub mod device;

/// Smaller batches when memory runs out.
pub mod memory;

/// Threads that work on samples.
pub mod parallel;

/// A trainer that has loaded torch and waits for its assignment.
pub mod warm_trainer;
