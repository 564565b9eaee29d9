//! Where training starts.

use crate::{base_model::Layers, parent::Parent};

/// A base model, or a model or checkpoint that was trained from it.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The base model's layers.
    pub layers: &'a Layers,
    /// The model or checkpoint, if the job does not start from the base model itself.
    pub parent: Option<&'a Parent>,
}
