//! `method.transfer.head`: the new layers.

use crate::{
    auto::Auto,
    limits,
    options::{auto, options},
    recipe::{HeadInit, HeadLayer},
    rules::{List, Own, Word},
};

options! {
    /// The new layers, before a linear one with an output for each class.
    #[derive(Default)]
    pub struct HeadOptions {
        /// `auto`: none, or those of the model that the job starts from.
        layers: Auto<Vec<HeadLayer>> = auto(List(0..=limits::HEAD_LAYERS, "layers", Own)),
        /// How the weights are initialized. `auto`: `probe` for a new linear head, otherwise
        /// `zero`.
        init: Auto<HeadInit> = auto(Word),
    }
}

impl HeadOptions {
    /// The layers before the last linear one; none while that is `auto`.
    pub fn layers(&self) -> &[HeadLayer] {
        match &self.layers {
            Auto::Value(layers) => layers,
            Auto::Auto => &[],
        }
    }
}
