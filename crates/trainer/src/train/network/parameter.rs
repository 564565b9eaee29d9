//! A tensor that trains.

use tch::Tensor;

/// The learning rate that a tensor trains at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Head,
    /// A stage of the backbone, `depth` stages before its last one.
    Backbone {
        depth: i32,
    },
}

/// A tensor that trains.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in timm's state dict.
    pub name: String,
    /// The network's own tensor, not a copy.
    pub tensor: Tensor,
    pub group: Group,
}
