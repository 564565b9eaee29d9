//! The input of a network. Every place that depends on the modality matches on `Input` or
//! `Modality` without a wildcard, so that the compiler names them all when one is added.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{base_model::Preprocessing, words};

words! {
    /// The kind of data that a model reads.
    pub enum Modality {
        Image = "image",
        Text = "text",
    }
}

/// How the bytes of a sample become a network's input. Part of a model: other numbers here are
/// another model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Input {
    Image(Preprocessing),
    Text(Tokenization),
}

impl Input {
    pub fn modality(&self) -> Modality {
        match self {
            Self::Image(_) => Modality::Image,
            Self::Text(_) => Modality::Text,
        }
    }

    /// The preprocessing of a network that reads images.
    pub fn image(&self) -> Option<&Preprocessing> {
        match self {
            Self::Image(preprocessing) => Some(preprocessing),
            Self::Text(_) => None,
        }
    }
}

/// How a text becomes tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenization {
    /// Number of tokens that the model knows: token ids are below it.
    pub vocabulary: u32,
    /// Length of the longest text, in tokens.
    pub max_tokens: u32,
}
