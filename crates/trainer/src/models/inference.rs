//! Feature extraction by a frozen backbone: the first stages, copied for inference only. BatchNorm
//! is folded into the convolutions (in f64, Jacob et al. 2018, section 3.2), a convolution or
//! linear layer and what follows it are one operation (`fused`), maps are laid out channels last,
//! and adapters and layer scales are merged.
//! Features differ from the backbone's own by rounding only: less than 1e-4 of their norm.

use tch::{Device, Kind, Tensor};

use super::{
    backbone::{Backbone, Block, Stage, pool},
    conv::{Conv, ConvNorm},
    fused::FusedConv,
    ops::Op,
    pass::{Activation, channels_last},
};

/// Part of a feature's cache key. Raise it when the features of the same backbone and images may
/// change.
pub const VERSION: u32 = 3;

/// True if the device multiplies bfloat16 numbers. Other processors emulate it, thirty times slower
/// than float32.
pub fn has_bfloat16(device: Device) -> bool {
    match device {
        #[cfg(target_arch = "x86_64")]
        Device::Cpu => is_x86_feature_detected!("avx512bf16"),
        #[cfg(target_arch = "aarch64")]
        Device::Cpu => std::arch::is_aarch64_feature_detected!("bf16"),
        _ => true,
    }
}

/// A frozen copy of a backbone's first stages. Threads share it.
#[derive(Debug)]
pub struct Extractor {
    folded: Backbone,
    /// The kind of the numbers that it computes with.
    kind: Kind,
}

#[expect(
    unsafe_code,
    reason = "tch does not say which uses of a tensor are shared"
)]
// SAFETY: inference only reads the tensors, which torch allows of several threads; what is made at
// the first use lies behind a lock.
unsafe impl Sync for Extractor {}

impl Extractor {
    /// A copy of the whole backbone as it is now: later changes of its weights do not reach the
    /// copy.
    pub fn new(backbone: &Backbone) -> Self {
        Self::with_kind(backbone, Kind::Float)
    }

    /// The same, which computes with numbers of this kind: with bf16, features differ from the
    /// backbone's own by some hundredths of their norm.
    pub fn with_kind(backbone: &Backbone, kind: Kind) -> Self {
        Self::of_stages(&backbone.stages, kind)
    }

    /// A copy of the stages before `stage`.
    pub fn prefix(backbone: &Backbone, stage: usize) -> Self {
        Self::of_stages(&backbone.stages[..stage], Kind::Float)
    }

    fn of_stages(stages: &[Stage], kind: Kind) -> Self {
        let stages = stages.iter().map(|stage| fold_stage(stage, kind));
        Self {
            folded: Backbone {
                stages: tch::no_grad(|| stages.collect()),
            },
            kind,
        }
    }

    /// The folded stages.
    pub(super) fn folded(&self) -> &Backbone {
        &self.folded
    }

    /// Pooled features [N, channels] of images [N, C, H, W], both f32.
    pub fn features(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| pool(&self.map(images)))
    }

    /// The last copied stage's output before pooling: [N, channels, h, w], or tokens [N, T,
    /// channels]. With no stage copied, the images themselves.
    pub fn map(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let images = channels_last(images);
            // Token ids stay what they are.
            let images = match images.is_floating_point() {
                true => images.to_kind(self.kind),
                false => images,
            };
            let map = self.folded.forward_until(&images, self.folded.stages.len());
            map.to_kind(Kind::Float)
        })
    }
}

fn fold_stage(stage: &Stage, kind: Kind) -> Stage {
    let fold_block = |block: &Block| Block {
        name: block.name.clone(),
        body: fold_ops(&block.body, kind),
        shortcut: block.shortcut.as_deref().map(|ops| fold_ops(ops, kind)),
        activation: block.activation,
    };
    Stage {
        name: stage.name.clone(),
        blocks: stage.blocks.iter().map(fold_block).collect(),
        channels: stage.channels,
    }
}

fn fold_ops(ops: &[Op], kind: Kind) -> Vec<Op> {
    let mut folded: Vec<Op> = Vec::with_capacity(ops.len());
    for op in ops {
        if let (Op::LayerScale(scale), Some(last)) = (op, folded.last_mut())
            && scale_outputs(last, &scale.gamma)
        {
            continue;
        }
        folded.push(match op {
            Op::ConvNorm(op) => {
                Op::FusedConv(FusedConv::new(fold(op).to_kind(kind), op.activation))
            }
            Op::Conv(conv, activation) => {
                Op::FusedConv(FusedConv::new(conv.to_kind(kind), *activation))
            }
            Op::Residual(ops) => Op::Residual(fold_ops(ops, kind)),
            Op::Branches(branches) => {
                Op::Branches(branches.iter().map(|ops| fold_ops(ops, kind)).collect())
            }
            op => op.clone(),
        });
    }
    for op in &mut folded {
        op.for_each_linear(&mut |linear| linear.fuse(kind));
    }
    folded
}

/// Scales the outputs of `op` by a factor for each channel, if it ends with a linear layer.
fn scale_outputs(op: &mut Op, factors: &Tensor) -> bool {
    match op {
        Op::Linear(linear) if linear.activation == Activation::None => {
            linear.scale_outputs(factors);
        }
        Op::Attention(attention) => attention.proj.scale_outputs(factors),
        _ => return false,
    }
    true
}

/// One convolution equal to the convolution and BatchNorm on its running statistics.
pub(super) fn fold(op: &ConvNorm) -> Conv {
    let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
    let (conv, norm) = (&op.conv, &op.norm);
    let scale = double(&norm.weight) / (double(&norm.running_var) + norm.eps).sqrt();
    let weight = double(&conv.weight) * scale.view([-1, 1, 1, 1]);
    let shift = match &conv.bias {
        Some(bias) => double(bias) - double(&norm.running_mean),
        None => -double(&norm.running_mean),
    };
    let bias = double(&norm.bias) + shift * scale;
    let weight = channels_last(&weight.to_kind(Kind::Float));
    Conv {
        weight: conv.weight.replaced(weight),
        bias: Some(norm.bias.replaced(bias.to_kind(Kind::Float))),
        shape: conv.shape,
    }
}

#[cfg(test)]
mod tests {
    use tch::nn;

    use super::*;
    use crate::{
        domain::{
            base_model::Preprocessing,
            input::{Input, Modality},
        },
        models::{pass::Norm, registry},
    };

    /// Numbers of a network that is left out: smaller ones, of the same families, run the same
    /// code.
    const LARGE: usize = 100_000_000;

    /// Random statistics and scales, as of a trained network: a fresh one's are the identity.
    fn randomize(backbone: &Backbone) {
        tch::manual_seed(1);
        tch::no_grad(|| {
            for mut entry in backbone.tensors() {
                if entry.tensor.dim() != 1 {
                    continue;
                }
                let noise = entry.tensor.rand_like();
                if entry.name.ends_with("running_var") {
                    // Wide, so that sums of many blocks stay small: rounding would grow with them.
                    entry.tensor.copy_(&(noise * 2.0 + 1.0));
                } else {
                    entry.tensor += (noise - 0.5) * 0.2;
                }
            }
        });
    }

    #[test]
    fn folding_changes_features_by_rounding_only() {
        for architecture in registry::of(Modality::Image) {
            let input = Preprocessing {
                input_size: architecture
                    .patch()
                    .map_or(64, |patch| patch * (56 / patch).max(5))
                    .max(architecture.smallest_side()),
                ..architecture.input.image().unwrap().clone()
            };
            let side = i64::from(input.input_size);
            let input = Input::Image(input);
            let vs = nn::VarStore::new(Device::Cpu);
            let backbone = architecture.build(&vs.root(), &input);
            let all = backbone.tensors().into_iter();
            if all.map(|one| one.tensor.numel()).sum::<usize>() > LARGE {
                continue;
            }
            randomize(&backbone);
            let images = Tensor::randn([2, 3, side, side], (Kind::Float, Device::Cpu));
            let plain = tch::no_grad(|| backbone.forward(&images, 0, Norm::Running));
            let fast = Extractor::new(&backbone).features(&images);
            assert_eq!(fast.size(), [2, i64::from(architecture.feature_dim)]);
            let error = (&fast - &plain).abs().max().double_value(&[])
                / plain.abs().max().double_value(&[]);
            assert!(error < 1e-4, "{}: {error}", architecture.name);

            if has_bfloat16(Device::Cpu) {
                let coarse = Extractor::with_kind(&backbone, Kind::BFloat16).features(&images);
                let error = (&coarse - &plain).norm() / plain.norm();
                let error = error.double_value(&[]);
                assert_eq!(coarse.kind(), Kind::Float);
                assert!(
                    (1e-5..0.15).contains(&error),
                    "{}: {error} in bf16",
                    architecture.name
                );
            }

            let map = Extractor::prefix(&backbone, 2).map(&images);
            let rest = tch::no_grad(|| backbone.forward(&map, 2, Norm::Running));
            let error = (&rest - &plain).abs().max().double_value(&[])
                / plain.abs().max().double_value(&[]);
            assert!(error < 1e-4, "{}: {error}", architecture.name);
        }
    }
}
