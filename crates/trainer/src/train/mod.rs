//! A training run: a job folder in, a job folder out.
//!
//! Read `run` first: it is the whole of a run, in the order in which it happens. The other modules
//! are its parts.

/// A training run from plan to bundle.
pub mod run;

/// Random choices as functions of the seed and of where they are made.
pub mod rng;

/// The state of a run besides its tensors.
pub mod counters;

/// Backbone and head; what trains and what does not.
pub mod network;

/// Samples, and what an epoch reads of them.
pub mod input;

/// One optimizer step: loss, gradients, update, learning rate.
pub mod step;

/// The linear probe that a head may start from.
pub mod probe;

/// Scores of how well a frozen backbone's features fit the task.
pub mod transferability;

/// A base model's scores on a data set, for a ranking.
pub mod score;

/// From outputs to metrics, reports and the best checkpoint.
pub mod eval;

/// Checkpoints and the bundle.
pub mod output;

#[cfg(test)]
mod test_data;
