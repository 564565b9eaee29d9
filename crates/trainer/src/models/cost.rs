//! The cost of a sample in each stage of a backbone, measured by running one sample through it:
//! multiplications, and numbers that stay in memory for the gradient. The latter are counted by
//! rules that follow autograd, except for small tensors such as a normalization's statistics.

use std::time::{Duration, Instant};

use tch::Tensor;

use super::{
    backbone::{Backbone, Block},
    conv::Conv,
    inference::Extractor,
    ops::Op,
    pass::{Activation, Norm},
};
use crate::{
    data::source::probe,
    domain::{base_model::StageCost, input::Input},
    ticks::tick,
};

/// Largest batch that is timed; fewer samples for a large network, so that its import stays short.
const TIMED: u64 = 8;
const TIMED_MACS: u64 = 8_000_000_000;
/// A first run longer than this is not repeated.
const LONG: Duration = Duration::from_millis(500);

/// The costs of a backbone's stages, in order, for one sample of the input that it was built for.
pub fn of_stages(backbone: &Backbone, input: &Input) -> Vec<StageCost> {
    let _no_grad = tch::no_grad_guard();
    let mut x = probe(input, 1);
    let stages = backbone.stages.iter();
    stages
        .map(|stage| {
            let mut cost = StageCost::default();
            for block in &stage.blocks {
                x = of_block(block, &x, &mut cost);
            }
            cost
        })
        .collect()
}

/// Time of a multiplication in this backbone, in picoseconds: folded for inference, over a small
/// batch. A short run is repeated, because the first one includes set-up. Other machines and
/// batches differ; it is a rough estimate until a job has been measured.
pub fn picoseconds_per_mac(backbone: &Backbone, input: &Input, costs: &[StageCost]) -> u64 {
    let _no_grad = tch::no_grad_guard();
    let all = costs.iter().map(|cost| cost.macs).sum::<u64>().max(1);
    let count = (TIMED_MACS / all).clamp(1, TIMED);
    let samples = probe(input, count.cast_signed());
    let extractor = Extractor::new(backbone);
    let run = || {
        let since = Instant::now();
        let _features = extractor.features(&samples);
        since.elapsed()
    };
    let first = run();
    let took = if first < LONG { run() } else { first };
    (took.as_secs_f64() * 1e12 / (count * all) as f64) as u64
}

fn of_block(block: &Block, x: &Tensor, cost: &mut StageCost) -> Tensor {
    tick();
    let body = of_ops(&block.body, x, cost);
    let sum = match &block.shortcut {
        Some(ops) => {
            cost.kept += numbers(&body);
            body + of_ops(ops, x, cost)
        }
        None => body,
    };
    cost.kept += again(block.activation) * numbers(&sum);
    block.activation.apply(sum)
}

fn of_ops(ops: &[Op], x: &Tensor, cost: &mut StageCost) -> Tensor {
    let first = x.shallow_clone();
    ops.iter().fold(first, |x, op| of_op(op, &x, cost))
}

fn of_op(op: &Op, x: &Tensor, cost: &mut StageCost) -> Tensor {
    if let Op::Residual(ops) = op {
        let sum = x + of_ops(ops, x, cost);
        cost.kept += numbers(&sum);
        return sum;
    }
    if let Op::Branches(branches) = op {
        let maps = branches.iter().map(|ops| of_ops(ops, x, cost));
        let all = Tensor::cat(&maps.collect::<Vec<_>>(), 1);
        cost.kept += numbers(&all);
        return all;
    }
    let out = op.forward(x, Norm::Running.into());
    let (inputs, outputs) = (numbers(x), numbers(&out));
    cost.largest = cost.largest.max(inputs + outputs);
    let (macs, kept) = match op {
        // The inputs of BatchNorm and of the next operation.
        Op::ConvNorm(op) => (
            of_conv(&op.conv, outputs),
            (2 + again(op.activation)) * outputs,
        ),
        Op::BatchNorm(_, activation) => (0, (1 + again(*activation)) * outputs),
        Op::Conv(conv, activation) => (of_conv(conv, outputs), (1 + again(*activation)) * outputs),
        Op::Linear(op) => {
            let width = op.weight.size()[1].unsigned_abs();
            (outputs * width, (1 + again(op.activation)) * outputs)
        }
        Op::Attention(op) => {
            let width = op.proj.weight.size()[0].unsigned_abs();
            of_attention(inputs / width, (inputs / width, width), op.heads)
        }
        Op::MaskedAttention(op) => {
            let width = x.size()[2].unsigned_abs();
            of_attention(inputs / width, (inputs / width, width), op.heads)
        }
        Op::WindowAttention(op) => {
            // Windows in part behind the map's end are computed whole.
            let (along, side) = (op.windows.along(), op.windows.side);
            let (count, window) = ((along * along).unsigned_abs(), (side * side).unsigned_abs());
            let width = x.size()[1].unsigned_abs();
            of_attention(count * window, (window, width), op.attention.heads)
        }
        Op::AttentionPool(op) => {
            let scores = op.heads.unsigned_abs() * inputs / outputs;
            let macs = 2 * inputs * (outputs + 1) + 2 * outputs * outputs;
            (macs, 4 * inputs + scores + 4 * outputs)
        }
        Op::SqueezeExcite(op) => {
            let inner = numbers(&op.reduce.weight) + numbers(&op.expand.weight);
            (inner, outputs)
        }
        Op::PatchEmbedding(op) => (of_conv(&op.patches, outputs), 2 * outputs),
        // Each half as the other's factor.
        Op::Gate => (0, 2 * outputs),
        // Values, and where they came from, as 64-bit integers.
        Op::MaxPool | Op::MaxPoolCeil | Op::MaxPoolInside => (0, 3 * outputs),
        _ => (0, outputs),
    };
    cost.macs += macs;
    cost.kept += kept;
    out
}

/// Multiplications of attention among `window` of all tokens at a time, and what is kept: queries,
/// keys and values, once as computed and once in the order of heads; scores after the softmax; the
/// mixed values, in both orders; the output.
fn of_attention(tokens: u64, (window, width): (u64, u64), heads: i64) -> (u64, u64) {
    let (inputs, scores) = (tokens * width, tokens * window);
    (
        4 * inputs * width + 2 * scores * width,
        9 * inputs + heads.unsigned_abs() * scores,
    )
}

fn of_conv(conv: &Conv, outputs: u64) -> u64 {
    let filter = numbers(&conv.weight) / conv.weight.size()[0].unsigned_abs();
    outputs * filter
}

/// Copies that an activation keeps besides its output: in-place activations keep none.
fn again(activation: Activation) -> u64 {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => 0,
        Activation::Silu | Activation::HardSwish | Activation::Gelu => 1,
        Activation::QuickGelu => 2,
    }
}

fn numbers(tensor: &Tensor) -> u64 {
    tensor.numel() as u64
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::models::registry;

    /// Multiply-adds at 224 pixels, in 10^9, as their authors give them, within rounding and the
    /// classifier's share.
    #[test]
    fn multiplications_are_the_published_ones() {
        for (name, published) in [
            ("resnet18", 1.82),
            ("tf_efficientnet_lite0", 0.40),
            ("vit_tiny_patch16_224", 1.26),
            ("swin_tiny_patch4_window7_224", 4.5),
            ("inception_v3", 5.73),
        ] {
            let vs = nn::VarStore::new(Device::Cpu);
            let architecture = registry::find(name).unwrap();
            let input = &architecture.input;
            let costs = of_stages(&architecture.build(&vs.root(), input), input);
            let macs = costs.iter().map(|cost| cost.macs).sum::<u64>() as f64 / 1e9;
            assert!((macs / published - 1.0).abs() < 0.05, "{name}: {macs}");
        }
    }
}
