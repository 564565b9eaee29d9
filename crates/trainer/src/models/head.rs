//! The new last layers of a fine-tuned model: those of the recipe, then one linear layer. What is
//! random here follows from a seed alone, never from torch's generator, so that a resumed job draws
//! the same masks on any device.
//!
//! A head of dropout and one linear layer has timm's form and, exported, timm's names. Any other is
//! a PyTorch `Sequential` named `head`: tensors are `head.<place>.weight`, places counted over all
//! layers, the last linear one included.

use tch::{Tensor, nn};

use super::{
    init_rng::{dropout_mask, fill, normal, uniform},
    pass::{Masks, Statistics, batch_norm},
};
use crate::domain::recipe::{self, HeadInit, HeadLayer, is_linear_head};

/// The head's name under the `VarStore`'s root, and the prefix of its tensors' names where timm has
/// none.
pub const NAME: &str = "head";

/// Standard deviation of `HeadInit::Normal` (Caron et al. 2021 and DINOv2's linear heads).
const NORMAL_STDEV: f64 = 0.01;
/// PyTorch's epsilon for both normalizations.
pub(super) const EPSILON: f64 = 1e-5;

/// Features [N, feature_dim] in, logits [N, classes] out.
#[derive(Debug)]
pub struct Head {
    /// Before the last linear layer, in order.
    layers: Vec<Layer>,
    /// [classes, width]: of the last linear layer
    pub weight: Tensor,
    /// `[classes]`
    pub bias: Tensor,
}

/// A layer with its tensors; each takes and gives [N, width].
#[derive(Debug)]
struct Layer {
    kind: HeadLayer,
    /// `weight` and `bias` where it has any, then BatchNorm's `running_mean` and `running_var`.
    tensors: Vec<(&'static str, Tensor)>,
}

impl Head {
    /// A fresh head under `root` (the root of the `VarStore`). `seed` keys the initial weights.
    pub fn new(
        root: &nn::Path,
        recipe: &recipe::Head,
        feature_dim: u32,
        classes: u32,
        seed: u64,
    ) -> Self {
        let path = root / NAME;
        let mut width = i64::from(feature_dim);
        let mut layers = Vec::new();
        for (place, &kind) in (0..).zip(&recipe.layers) {
            let seed = seed.wrapping_add((place + 1) << 32);
            let layer = Layer::new(&(&path / place), kind, width, seed);
            if let HeadLayer::Linear(outputs) = kind {
                width = i64::from(outputs);
            }
            layers.push(layer);
        }
        let last = &path / layers.len() as i64;
        let weight = last.var("weight", &[i64::from(classes), width], nn::Init::Const(0.0));
        if recipe.init == HeadInit::Normal {
            fill(&weight, |i| NORMAL_STDEV * normal(seed, i));
        }
        Self {
            layers,
            weight,
            bias: last.var("bias", &[i64::from(classes)], nn::Init::Const(0.0)),
        }
    }

    /// Logits [N, classes] in evaluation: no dropout, running statistics.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        self.run(features, None)
    }

    /// Logits [N, classes] in training: BatchNorm takes the batch's statistics and notes the
    /// updated running ones. Give each step dropout masks of its own.
    pub fn forward_train(
        &self,
        features: &Tensor,
        masks: Masks,
        statistics: &Statistics,
    ) -> Tensor {
        self.run(features, Some((masks, statistics)))
    }

    fn run(&self, features: &Tensor, training: Option<(Masks, &Statistics)>) -> Tensor {
        let layers = (0..).zip(&self.layers);
        layers
            .fold(features.shallow_clone(), |x, (place, layer)| {
                let training = training.map(|(masks, noted)| (masks.of_layer(place), noted));
                layer.forward(x, training)
            })
            .linear(&self.weight, Some(&self.bias))
    }

    /// The layers before the last linear one, in order, each with its tensors by name: `weight` and
    /// `bias` where it has any, then BatchNorm's `running_mean` and `running_var`.
    pub(super) fn layers(&self) -> impl Iterator<Item = (HeadLayer, Vec<(String, &Tensor)>)> {
        (0..).zip(&self.layers).map(|(place, layer): (usize, _)| {
            let tensors = layer.tensors.iter();
            let named = tensors.map(|(name, tensor)| (format!("{NAME}.{place}.{name}"), tensor));
            (layer.kind, named.collect())
        })
    }

    /// Makes the outputs `output * factor + shift`, by the last layer's weights.
    pub fn rescale_outputs(&self, factor: f64, shift: f64) {
        tch::no_grad(|| {
            let (mut weight, mut bias) = (self.weight.shallow_clone(), self.bias.shallow_clone());
            let _ = weight.g_mul_scalar_(factor);
            let _ = bias.g_mul_scalar_(factor).g_add_scalar_(shift);
        });
    }

    /// Every tensor that trains, sharing storage with the head; `classifier` is timm's name for a
    /// linear head.
    pub fn parameters(&self, classifier: &str) -> Vec<(String, Tensor)> {
        self.named_as(classifier)
            .into_iter()
            .filter(|(_, tensor)| tensor.requires_grad())
            .collect()
    }

    /// Every tensor, sharing storage with the head; `classifier` is timm's name for a linear head.
    pub fn named_as(&self, classifier: &str) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (place, layer) in self.layers.iter().enumerate() {
            for (name, tensor) in &layer.tensors {
                all.push((format!("{NAME}.{place}.{name}"), tensor.shallow_clone()));
            }
        }
        let last = if is_linear_head(self.layers.iter().map(|layer| &layer.kind)) {
            classifier.to_owned()
        } else {
            format!("{NAME}.{}", self.layers.len())
        };
        all.push((format!("{last}.weight"), self.weight.shallow_clone()));
        all.push((format!("{last}.bias"), self.bias.shallow_clone()));
        all
    }
}

impl Layer {
    /// Linear weights are uniform within 1 / sqrt(inputs), as PyTorch's `nn.Linear`, biases 0;
    /// normalizations begin as the identity.
    fn new(path: &nn::Path, kind: HeadLayer, width: i64, seed: u64) -> Self {
        let affine = || {
            vec![
                ("weight", path.ones("weight", &[width])),
                ("bias", path.zeros("bias", &[width])),
            ]
        };
        let tensors = match kind {
            HeadLayer::Dropout(_) | HeadLayer::Relu | HeadLayer::Gelu => Vec::new(),
            HeadLayer::LayerNorm => affine(),
            HeadLayer::BatchNorm => {
                let mut tensors = affine();
                let mean = path.zeros_no_train("running_mean", &[width]);
                let variance = path.ones_no_train("running_var", &[width]);
                tensors.extend([("running_mean", mean), ("running_var", variance)]);
                tensors
            }
            HeadLayer::Linear(outputs) => {
                let outputs = i64::from(outputs);
                let weight = path.zeros("weight", &[outputs, width]);
                let bound = 1.0 / (width as f64).sqrt();
                fill(&weight, |i| bound * (2.0 * uniform(seed, i) - 1.0));
                let bias = path.zeros("bias", &[outputs]);
                vec![("weight", weight), ("bias", bias)]
            }
        };
        Self { kind, tensors }
    }

    /// In training with its dropout masks.
    fn forward(&self, x: Tensor, training: Option<(Masks, &Statistics)>) -> Tensor {
        let tensor = |place: usize| &self.tensors[place].1;
        match (self.kind, training) {
            (HeadLayer::Dropout(share), Some((masks, _))) if share > 0.0 => {
                let mask = dropout_mask(&x, share, masks);
                x * mask
            }
            (HeadLayer::Dropout(_), _) => x,
            (HeadLayer::Linear(_), _) => x.linear(tensor(0), Some(tensor(1))),
            (HeadLayer::Relu, _) => x.relu(),
            (HeadLayer::Gelu, _) => x.gelu("none"),
            (HeadLayer::LayerNorm, _) => {
                let width = [x.size()[1]];
                x.layer_norm(width, Some(tensor(0)), Some(tensor(1)), EPSILON, false)
            }
            (HeadLayer::BatchNorm, training) => {
                let layer = [tensor(0), tensor(1), tensor(2), tensor(3)];
                batch_norm(&x, layer, training.map(|(_, noted)| noted), EPSILON, false)
            }
        }
    }
}
