//! The nodes of each operation, in evaluation: the counterpart of `Op::forward`. A further
//! operation is a further arm here, and the compiler names it.

use super::graph::{GraphBuilder, Value, Window};
use crate::{
    domain::recipe::HeadLayer,
    models::{
        attention::{Attention, AttentionPool, PatchEmbedding, Prefix},
        backbone::{Backbone, Block},
        conv::{Conv, Gate, SqueezeExcite},
        head::{self, Head},
        inference::fold,
        layer_norm::{LayerNorm, ResponseNorm},
        linear::Linear,
        ops::Op,
        pass::{Activation, Param},
        rotary::Rotary,
        windows::WindowAttention,
    },
};
use tch::Tensor;

/// Pooled features [N, C] of images.
pub(super) fn backbone(graph: &mut GraphBuilder, backbone: &Backbone, images: &Value) -> Value {
    let blocks = backbone.stages.iter().flat_map(|stage| &stage.blocks);
    let map = blocks.fold(images.clone(), |x, each| block(graph, each, &x));
    if map.dims.len() == 3 {
        return graph.entry(&map, 0);
    }
    let pooled = graph.global_average_pool(&map);
    graph.flatten(&pooled)
}

/// Logits [N, outputs] of features.
pub(super) fn head(graph: &mut GraphBuilder, head: &Head, features: Value) -> Value {
    let mut x = features;
    let mut place = 0;
    for (kind, tensors) in head.layers() {
        place += 1;
        let all: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), *tensor))
            .collect();
        x = match (kind, &all[..]) {
            (HeadLayer::Dropout(_), _) => x,
            (HeadLayer::Relu, _) => graph.activation(x, Activation::Relu),
            (HeadLayer::Gelu, _) => graph.activation(x, Activation::Gelu),
            (HeadLayer::LayerNorm, &[weight, bias]) => {
                graph.layer_norm(&x, [weight, bias], head::EPSILON)
            }
            (HeadLayer::BatchNorm, &[weight, bias, mean, variance]) => {
                graph.batch_norm_of(&x, [weight, bias, mean, variance], head::EPSILON)
            }
            (HeadLayer::Linear(_), &[weight, bias]) => graph.linear(&x, [weight, bias]),
            (HeadLayer::LayerNorm | HeadLayer::BatchNorm | HeadLayer::Linear(_), _) => {
                unreachable!("{kind:?} has other tensors: this is a bug")
            }
        };
    }
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{place}.{part}", head::NAME));
    graph.linear(&x, [(&weight, &head.weight), (&bias, &head.bias)])
}

fn block(graph: &mut GraphBuilder, block: &Block, x: &Value) -> Value {
    let body = run(graph, &block.body, x);
    let sum = match &block.shortcut {
        Some(ops) => {
            let shortcut = run(graph, ops, x);
            graph.add(&body, &shortcut)
        }
        None => body,
    };
    graph.activation(sum, block.activation)
}

/// Operations in a row.
fn run(graph: &mut GraphBuilder, ops: &[Op], x: &Value) -> Value {
    ops.iter().fold(x.clone(), |x, op| add(graph, op, &x))
}

fn add(graph: &mut GraphBuilder, op: &Op, x: &Value) -> Value {
    match op {
        Op::ConvNorm(op) => convolve(graph, &fold(op), op.activation, x),
        Op::BatchNorm(norm, activation) => {
            let normal = graph.batch_norm(x, norm);
            graph.activation(normal, *activation)
        }
        Op::Conv(conv, activation) => convolve(graph, conv, *activation, x),
        Op::FusedConv(op) => convolve(graph, &op.plain(), op.activation(), x),
        Op::SqueezeExcite(op) => squeeze_excite(graph, op, x),
        Op::LayerNorm(norm) => layer_norm(graph, norm, x),
        Op::Linear(op) => linear(graph, op, x),
        Op::LayerScale(scale) => {
            let gamma = by_channel(graph, &scale.gamma, x);
            graph.mul(x, &gamma)
        }
        Op::ResponseNorm(norm) => response_norm(graph, norm, x),
        Op::PatchEmbedding(op) => patch_embedding(graph, op, x),
        Op::Attention(op) => over_tokens(graph, x, |graph, x| {
            attention(graph, op, x, |_, scores| scores)
        }),
        Op::AttentionPool(op) => attention_pool(graph, op, x),
        Op::WindowAttention(op) => window_attention(graph, op, x),
        Op::TokenEmbedding(_) | Op::MaskedAttention(_) => {
            unreachable!("bundles of networks that read text do not load: this is a bug")
        }
        Op::Residual(ops) => {
            let body = run(graph, ops, x);
            graph.add(x, &body)
        }
        Op::Branches(branches) => {
            let maps: Vec<Value> = branches.iter().map(|ops| run(graph, ops, x)).collect();
            graph.concat(&maps.iter().collect::<Vec<_>>(), 1)
        }
        Op::MaxPool => graph.pool("MaxPool", x, padded_square(2)),
        Op::MaxPoolCeil => unpadded_pool(graph, "MaxPool", x, (3, true)),
        Op::MaxPoolInside => unpadded_pool(graph, "MaxPool", x, (3, false)),
        Op::AvgPool => unpadded_pool(graph, "AveragePool", x, (2, false)),
        Op::AvgPoolCeil => unpadded_pool(graph, "AveragePool", x, (2, true)),
        Op::AvgPoolSame => graph.padded_average_pool(x, padded_square(1)),
        Op::GlobalPool => graph.global_average_pool(x),
        Op::PatchMean { prefix } => {
            let patches: Vec<i64> = (*prefix..x.dims[1]).collect();
            let patches = graph.entries(x, 1, &patches);
            graph.reduce("ReduceMean", &patches, &[1])
        }
        Op::MergePatches => merge_patches(graph, x),
        Op::Gate => {
            let [gate, x] = graph.split(x);
            let gate = graph.activation(gate, Activation::Silu);
            graph.mul(&gate, &x)
        }
    }
}

/// 3x3 with one pixel of padding.
fn padded_square(stride: i64) -> Window {
    Window {
        kernel: [3, 3],
        stride,
        padding: [(1, 1); 2],
    }
}

/// At stride 2.
fn unpadded_pool(
    graph: &mut GraphBuilder,
    op_type: &str,
    x: &Value,
    (kernel, ceil): (i64, bool),
) -> Value {
    let window = Window::unpadded([x.dims[2], x.dims[3]], (kernel, 2), ceil);
    graph.pool(op_type, x, window)
}

fn convolve(graph: &mut GraphBuilder, conv: &Conv, activation: Activation, x: &Value) -> Value {
    let map = graph.conv(x, conv);
    graph.activation(map, activation)
}

fn squeeze_excite(graph: &mut GraphBuilder, op: &SqueezeExcite, x: &Value) -> Value {
    let mean = graph.global_average_pool(x);
    let inner = match op.gate {
        Gate::Sigmoid => Activation::Silu,
        Gate::HardSigmoid | Gate::ReluSigmoid => Activation::Relu,
    };
    let inner = convolve(graph, &op.reduce, inner, &mean);
    let expanded = graph.conv(&inner, &op.expand);
    let scale = match op.gate {
        Gate::Sigmoid | Gate::ReluSigmoid => graph.unary("Sigmoid", &expanded),
        Gate::HardSigmoid => graph.hard_sigmoid(&expanded),
    };
    graph.mul(x, &scale)
}

/// Applies `of_last`, which works on the last side, to the channels, as `pass::over_channels`.
fn over_channels(
    graph: &mut GraphBuilder,
    x: &Value,
    of_last: impl FnOnce(&mut GraphBuilder, &Value) -> Value,
) -> Value {
    if x.dims.len() == 3 {
        return of_last(graph, x);
    }
    let channels_last = graph.transpose(x, &[0, 2, 3, 1]);
    let out = of_last(graph, &channels_last);
    graph.transpose(&out, &[0, 3, 1, 2])
}

fn layer_norm(graph: &mut GraphBuilder, norm: &LayerNorm, x: &Value) -> Value {
    over_channels(graph, x, |graph, x| {
        graph.layer_norm(x, [named(&norm.weight), named(&norm.bias)], norm.eps)
    })
}

fn linear(graph: &mut GraphBuilder, op: &Linear, x: &Value) -> Value {
    let weight = op.whole_weight();
    let weight = (op.weight.name.as_str(), &weight);
    let bias = format!("{}.bias", op.name);
    let out = over_channels(graph, x, |graph, x| match op.bias.value() {
        Some(value) => graph.linear(x, [weight, (&bias, &value)]),
        None => graph.product(x, weight),
    });
    graph.activation(out, op.activation)
}

/// The positions of a map as tokens [N, T, C]; tokens stay.
fn tokens(graph: &mut GraphBuilder, x: &Value) -> Value {
    if x.dims.len() == 3 {
        return x.clone();
    }
    let rows = graph.reshape(x, &[x.dims[1], x.dims[2] * x.dims[3]]);
    graph.transpose(&rows, &[0, 2, 1])
}

/// Tokens as a map [N, C, h, w].
fn map(graph: &mut GraphBuilder, x: &Value, [height, width]: [i64; 2]) -> Value {
    let rows = graph.transpose(x, &[0, 2, 1]);
    graph.reshape(&rows, &[x.dims[2], height, width])
}

/// Applies `of_tokens` to tokens, or to the positions of a map, as `pass::over_tokens`.
fn over_tokens(
    graph: &mut GraphBuilder,
    x: &Value,
    of_tokens: impl FnOnce(&mut GraphBuilder, &Value) -> Value,
) -> Value {
    let all = tokens(graph, x);
    let out = of_tokens(graph, &all);
    match x.dims[..] {
        [_, _, height, width] => map(graph, &out, [height, width]),
        _ => out,
    }
}

fn response_norm(graph: &mut GraphBuilder, norm: &ResponseNorm, x: &Value) -> Value {
    let norms = graph.reduce("ReduceL2", x, &[2, 3]);
    let mean = graph.reduce("ReduceMean", &norms, &[1]);
    let epsilon = graph.scalar(ResponseNorm::EPS);
    let mean = graph.add(&mean, &epsilon);
    let response = graph.binary("Div", &norms, &mean);
    let scaled = graph.mul(x, &response);
    let [weight, bias] = [&norm.weight, &norm.bias].map(|param| by_channel(graph, param, x));
    let weighted = graph.mul(&scaled, &weight);
    let sum = graph.add(x, &weighted);
    graph.add(&sum, &bias)
}

/// Images to tokens: zeros stand before the patches where the prefix goes, then one table of all
/// that does not depend on the image is added.
fn patch_embedding(graph: &mut GraphBuilder, op: &PatchEmbedding, x: &Value) -> Value {
    let map = graph.conv(x, &op.patches);
    let size = [1, map.dims[2] * map.dims[3], map.dims[1]];
    let options = (tch::Kind::Float, op.patches.weight.device());
    let none = Tensor::zeros(size, options);
    let positions = op.positions.as_deref().unwrap_or(&none);
    let mut parts: Vec<Tensor> = Vec::new();
    if let Some(class) = &op.class_token {
        parts.push(match op.prefix {
            Prefix::PositionedClass => &**class + positions.narrow(1, 0, 1),
            Prefix::None | Prefix::Class { .. } => class.shallow_clone(),
        });
    }
    parts.extend(
        op.registers
            .iter()
            .map(|registers| registers.shallow_clone()),
    );
    let before = positions.size()[1] - size[1];
    parts.push(positions.narrow(1, before, size[1]));
    let table = Tensor::cat(&parts, 1);
    let prefix = op.prefix.tokens();
    let add = |graph: &mut GraphBuilder, x: &Value| {
        let table = graph.constant("embedding", &table);
        graph.add(x, &table)
    };
    if prefix == 0 {
        return over_tokens(graph, &map, add);
    }
    let patches = tokens(graph, &map);
    let padded = graph.zeros_before(&patches, prefix);
    add(graph, &padded)
}

/// Attention among tokens, by `altered` scores [N, heads, T, T].
fn attention(
    graph: &mut GraphBuilder,
    op: &Attention,
    x: &Value,
    altered: impl FnOnce(&mut GraphBuilder, Value) -> Value,
) -> Value {
    let (tokens, width) = (x.dims[1], x.dims[2]);
    let side = width / op.heads;
    let all = linear(graph, &op.qkv, x);
    let parts: [Value; 3] = graph.split(&all);
    let by_head = parts.map(|part| graph.reshape(&part, &[tokens, op.heads, side]));
    let [query, key, value] = by_head.map(|part| graph.transpose(&part, &[0, 2, 1, 3]));
    let [query, key] = [query, key].map(|x| match &op.rotary {
        Some(rotary) => rotate(graph, rotary, &x),
        None => x,
    });
    let query = graph.scale(&query, (side as f64).powf(-0.5));
    let key = graph.transpose(&key, &[0, 1, 3, 2]);
    let scores = graph.matmul(&query, &key);
    let scores = altered(graph, scores);
    let shares = graph.softmax(&scores);
    let mixed = graph.matmul(&shares, &value);
    let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = graph.reshape(&mixed, &[tokens, width]);
    linear(graph, &op.proj, &mixed)
}

fn rotate(graph: &mut GraphBuilder, rotary: &Rotary, x: &Value) -> Value {
    let (tables, partners) = rotary.tables();
    let [cos, sin] = tables.map(|table| graph.constant("rotary", &table));
    let partners = graph.entries(x, 3, &partners);
    let turned = graph.mul(&partners, &sin);
    let kept = graph.mul(x, &cos);
    graph.add(&kept, &turned)
}

/// Attention by one query, which does not depend on the image: scores are computed for each key,
/// [N, heads, T, 1].
fn attention_pool(graph: &mut GraphBuilder, op: &AttentionPool, x: &Value) -> Value {
    let x = tokens(graph, x);
    let (count, width) = (x.dims[1], x.dims[2]);
    let side = width / op.heads;
    let [query, keys_values, out] = &*op.layers;
    let latent = op.latent.view([width]);
    let query = query.whole_weight().mv(&latent)
        + query.bias.value().unwrap_or_else(|| latent.zeros_like());
    let query = query * (side as f64).powf(-0.5);
    let query = graph.constant("query", &query.view([op.heads, side, 1]));
    let all = linear(graph, keys_values, &x);
    let parts: [Value; 2] = graph.split(&all);
    let by_head = parts.map(|part| graph.reshape(&part, &[count, op.heads, side]));
    let [key, value] = by_head.map(|part| graph.transpose(&part, &[0, 2, 1, 3]));
    let scores = graph.matmul(&key, &query);
    let scores = graph.transpose(&scores, &[0, 1, 3, 2]);
    let shares = graph.softmax(&scores);
    let mixed = graph.matmul(&shares, &value);
    let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = graph.reshape(&mixed, &[1, width]);
    linear(graph, out, &mixed)
}

/// Windows are entries of the map's positions in another order, with a zero for those behind its
/// end.
fn window_attention(graph: &mut GraphBuilder, op: &WindowAttention, x: &Value) -> Value {
    let windows = op.windows;
    let (side, along) = (windows.side, windows.along());
    let (area, count) = (side * side, along * along);
    let mut order = Vec::new();
    for (window, position) in (0..count).flat_map(|one| (0..area).map(move |at| (one, at))) {
        let row = window / along * side + position / side;
        let column = window % along * side + position % side;
        let from = |place: i64| (place + windows.shift) % windows.map;
        order.push(match row < windows.map && column < windows.map {
            true => from(row) * windows.map + from(column),
            false => windows.map * windows.map,
        });
    }
    let mut back = vec![0; (windows.map * windows.map) as usize];
    for (place, &position) in (0..).zip(&order) {
        if let Some(found) = back.get_mut(position as usize) {
            *found = place;
        }
    }
    over_tokens(graph, x, |graph, x| {
        let width = x.dims[2];
        let padded = graph.zero_after(x);
        let ordered = graph.entries(&padded, 1, &order);
        let inside = graph.reshape(&ordered, &[area, width]);
        let mixed = attention(graph, &op.attention, &inside, |graph, scores| {
            biased(graph, op, &scores)
        });
        let mixed = graph.reshape(&mixed, &[count * area, width]);
        graph.entries(&mixed, 1, &back)
    })
}

/// Scores [N * windows, heads, positions, positions] with the biases.
fn biased(graph: &mut GraphBuilder, op: &WindowAttention, scores: &Value) -> Value {
    let (area, heads) = (scores.dims[2], op.attention.heads);
    let bias = op.table.index_select(0, &op.pairs);
    let bias = bias.view([area, area, heads]).permute([2, 0, 1]);
    let bias = graph.constant(&op.table.name, &bias);
    let scores = graph.add(scores, &bias);
    let Some(apart) = &op.apart else {
        return scores;
    };
    let by_window = graph.reshape(&scores, &[apart.size()[0], heads, area, area]);
    let apart = graph.constant("apart", apart);
    let masked = graph.add(&by_window, &apart);
    graph.reshape(&masked, &[heads, area, area])
}

fn merge_patches(graph: &mut GraphBuilder, x: &Value) -> Value {
    let (width, height, length) = (x.dims[1], x.dims[2], x.dims[3]);
    let halves = [(height + 1) / 2, (length + 1) / 2];
    let mut order = Vec::new();
    for place in 0..halves[0] * halves[1] {
        let (row, column) = (place / halves[1] * 2, place % halves[1] * 2);
        for (below, right) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let (row, column) = (row + below, column + right);
            order.push(match row < height && column < length {
                true => row * length + column,
                false => height * length,
            });
        }
    }
    let positions = tokens(graph, x);
    let padded = graph.zero_after(&positions);
    let ordered = graph.entries(&padded, 1, &order);
    let merged = graph.reshape(&ordered, &[halves[0] * halves[1], 4 * width]);
    map(graph, &merged, halves)
}

/// A number for each channel of `x`, in a shape that is repeated along all other sides.
fn by_channel(graph: &mut GraphBuilder, param: &Param, x: &Value) -> Value {
    match x.dims.len() {
        4 => graph.constant(&param.name, &param.view([-1, 1, 1])),
        _ => graph.constant(&param.name, param),
    }
}

fn named(param: &Param) -> (&str, &Tensor) {
    (&param.name, param)
}
