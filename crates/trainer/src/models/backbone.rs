//! A backbone is a list of stages, a stage a list of blocks, a block a list of operations with or
//! without a shortcut around them. Every network is such a list, so that one `forward`, one walk
//! over the tensors, one set of adapters and one folding of BatchNorm serve all architectures.

use tch::{Kind, Tensor, nn};

use super::{
    linear::Linear,
    lora::Adapter,
    ops::Op,
    pass::{Activation, Norm, Pass, channels_last},
};
use crate::{domain::recipe, ticks::tick};

/// A network without its last layer: images in, features out.
#[derive(Debug)]
pub struct Backbone {
    /// In forward order.
    pub stages: Vec<Stage>,
}

/// A named part of a backbone; `freeze` and `cut` name it.
#[derive(Debug)]
pub struct Stage {
    pub name: String,
    pub blocks: Vec<Block>,
    /// Channels of its output.
    pub channels: i64,
}

/// Operations in a row: `activation(shortcut(x) + body(x))`, or `activation(body(x))` without a
/// shortcut.
#[derive(Debug)]
pub struct Block {
    /// Prefix of its tensors' names; the stage's name where a stage is not made of blocks.
    pub name: String,
    pub body: Vec<Op>,
    /// `Some` of an empty list adds the input itself.
    pub shortcut: Option<Vec<Op>>,
    pub activation: Activation,
}

/// One tensor of a backbone, with its stage and block. `tensor` shares storage with the backbone.
#[derive(Debug)]
pub struct BackboneTensor {
    /// As in timm's state dict.
    pub name: String,
    pub tensor: Tensor,
    /// True for parameters, false for BatchNorm's running statistics.
    pub trainable: bool,
    pub stage: String,
    pub block: String,
}

impl Backbone {
    /// The pooled features [N, feature_dim], f32, of `x`, the input of stage `from_stage`: images
    /// [N, C, H, W] for 0, or what `forward_until` returned for that stage. All stages compute in
    /// the number type of `x`.
    ///
    /// With `Norm::Batch`, each BatchNorm whose own weight trains (`requires_grad`) uses the
    /// batch's statistics and notes the updated running ones; all others use their running
    /// statistics.
    pub fn forward<'a>(&self, x: &Tensor, from_stage: usize, pass: impl Into<Pass<'a>>) -> Tensor {
        let pass = pass.into();
        let map = self.stages[from_stage..]
            .iter()
            .fold(x.shallow_clone(), |x, stage| stage.forward(&x, pass));
        pool(&map.to_kind(Kind::Float))
    }

    /// The input of stage `stage`, with every BatchNorm on its running statistics: the output [N,
    /// C, h, w] of the stages before it. For the number of stages, the last stage's output before
    /// pooling.
    pub fn forward_until(&self, x: &Tensor, stage: usize) -> Tensor {
        self.stages[..stage]
            .iter()
            .fold(x.shallow_clone(), |x, stage| {
                stage.forward(&x, Norm::Running.into())
            })
    }

    /// Removes every stage after `stage`, whose output is pooled from then on. Returns the new
    /// width of the features, or `None` (and no change) where there is no such stage.
    pub fn cut_after(&mut self, stage: &str) -> Option<i64> {
        let index = self.stages.iter().position(|known| known.name == stage)?;
        self.stages.truncate(index + 1);
        Some(self.stages[index].channels)
    }

    /// Every parameter and running statistic, in forward order (timm's order).
    pub fn tensors(&self) -> Vec<BackboneTensor> {
        let mut all = Vec::new();
        for stage in &self.stages {
            for block in &stage.blocks {
                let start = all.len();
                for op in block.body.iter().chain(block.shortcut.iter().flatten()) {
                    all.extend(op.params().into_iter().map(|param| BackboneTensor {
                        name: param.name.clone(),
                        tensor: param.shallow_clone(),
                        trainable: param.trainable,
                        stage: stage.name.clone(),
                        block: block.name.clone(),
                    }));
                }
                // PyTorch lists a module's own parameters (ConvNeXt's `gamma`) before those of its
                // parts.
                all[start..].sort_by_key(|entry: &BackboneTensor| {
                    entry.name.rsplit_once('.').map(|(module, _)| module)
                        != Some(block.name.as_str())
                });
            }
        }
        all
    }

    /// Lays the weights of convolutions out channels last, as images are: otherwise each pass would
    /// copy them so. Numbers and shapes stay.
    pub fn lay_out_channels_last(&self) {
        let _no_grad = tch::no_grad_guard();
        for BackboneTensor { mut tensor, .. } in self.tensors() {
            if tensor.dim() == 4 {
                tensor.set_data(&channels_last(&tensor));
            }
        }
    }

    /// Names and tensors, as `weights::load_strict` and `weights::write_safetensors` take them.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors()
            .into_iter()
            .map(|entry| (entry.name, entry.tensor))
            .collect()
    }

    /// Adds an adapter to each linear layer that `recipe` names, its tensors under `root`. `seed`
    /// keys their initial values.
    ///
    /// # Errors
    /// The first named layer that the backbone does not have.
    pub fn add_adapters(
        &mut self,
        root: &nn::Path,
        recipe: &recipe::Adapter,
        seed: u64,
    ) -> Result<(), String> {
        let mut missing: Vec<&String> = recipe.layers.iter().collect();
        let mut add = |linear: &mut Linear| {
            let index = recipe.layers.iter().position(|name| *name == linear.name);
            let Some(index) = index else { return };
            missing.retain(|name| **name != linear.name);
            let layer = (linear.name.as_str(), &*linear.weight);
            linear.adapter = Some(Adapter::new(root, layer, recipe, (index as u64, seed)));
        };
        for block in self.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
            let shortcut = block.shortcut.iter_mut().flatten();
            for op in block.body.iter_mut().chain(shortcut) {
                op.for_each_linear(&mut add);
            }
        }
        missing.first().map_or(Ok(()), |name| Err((*name).clone()))
    }
}

/// Features [N, C] of a stage's output: the mean over the positions of a map [N, C, h, w], or the
/// first of tokens [N, T, C], which is the class token.
pub fn pool(map: &Tensor) -> Tensor {
    if map.dim() == 3 {
        return map.select(1, 0);
    }
    map.mean_dim(&[2i64, 3][..], false, None)
}

impl Stage {
    /// A stage that is not made of blocks.
    pub(super) fn plain(name: &str, body: Vec<Op>, channels: i64) -> Self {
        Self {
            name: name.to_owned(),
            blocks: vec![Block::plain(name, body)],
            channels,
        }
    }

    /// This stage's output [N, `channels`, h', w'].
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        self.blocks
            .iter()
            .fold(x.shallow_clone(), |x, block| block.forward(&x, pass))
    }
}

impl Block {
    /// Without a shortcut.
    pub(super) fn plain(name: &str, body: Vec<Op>) -> Self {
        Self {
            name: name.to_owned(),
            body,
            shortcut: None,
            activation: Activation::None,
        }
    }

    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        tick();
        let Some(ops) = &self.shortcut else {
            return self.activation.apply(Op::run(&self.body, x, pass));
        };
        let shortcut = Op::run(ops, x, pass);
        if let Some((Op::FusedConv(last), before)) = self.body.split_last() {
            let inner = Op::run(before, x, pass);
            return last.forward_onto(&inner, &shortcut, self.activation);
        }
        self.activation
            .apply(Op::run(&self.body, x, pass) + shortcut)
    }
}
