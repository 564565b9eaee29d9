//! One optimizer step.

/// Cross-entropies, squared error, Huber.
pub mod loss_functions;

/// Targets on the device, and the loss that a recipe takes of them.
pub mod objective;

/// Loss and gradients of a step, in batches that fit.
pub mod gradients;

/// Optimizer steps of a tensor in one pass.
mod fused;

/// SGD and AdamW with savable state.
pub mod optimizer;

/// The learning rate as a function of the step.
pub mod schedule;

/// Losses that stay on the device until they are fetched; divergence.
pub mod pending_losses;
