//! The rules of crates/trainer/tests/fixtures/parity/README.md: weights that follow from a tensor's
//! name and shape, so that nobody has to store them.

use std::collections::BTreeMap;

use safetensors::{Dtype, serialize, tensor::TensorView};

/// Names and shapes of a network's tensors.
pub type Shapes = Vec<(String, Vec<usize>)>;

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn fmix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

fn draws(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = crc32(name.as_bytes());
    let draw = move |i: u32| {
        f64::from(fmix32(seed.wrapping_add(i.wrapping_mul(0x9E37_79B9)))) / 4_294_967_296.0 - 0.5
    };
    (0..count as u32).map(draw)
}

/// `u(name, i)` for the first `count` elements.
pub fn uniform(name: &str, count: usize) -> Vec<f64> {
    draws(name, count).collect()
}

/// Elements of a weight by the rules for its name and shape.
pub fn by_rules(name: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in = shape.iter().skip(1).product::<usize>() as f64;
    let (scale, shift) = if name.ends_with("running_var") {
        (1.0, 1.0)
    } else if name.ends_with("running_mean") {
        (0.02, 0.0)
    } else if shape.len() >= 2 {
        ((24.0 / fan_in).sqrt(), 0.0)
    } else if name.ends_with("weight") || name.contains(".gamma") {
        (0.2, 1.0)
    } else {
        (0.02, 0.0)
    };
    let draws = draws(name, shape.iter().product());
    draws.map(|u| (u * scale + shift) as f32).collect()
}

/// Elements of a weight as networks for images begin (He et al. 2015): BatchNorm does nothing.
pub fn untrained(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if let [outputs, inputs, kernel @ ..] = shape {
        // A convolution of one input channel is one for each channel.
        let outputs = if *inputs == 1 { 1 } else { *outputs };
        let fan_out = (outputs * kernel.iter().product::<usize>()) as f64;
        let draws = uniform(name, count).into_iter();
        return draws
            .map(|u| (u * (24.0 / fan_out).sqrt()) as f32)
            .collect();
    }
    let is_one = name.ends_with("running_var") || name.ends_with("weight");
    vec![f32::from(u8::from(is_one)); count]
}

/// A safetensors file of these tensors, filled by `rule`.
pub fn safetensors(shapes: &Shapes, rule: fn(&str, &[usize]) -> Vec<f32>) -> Vec<u8> {
    let bytes = |(name, shape): &(String, Vec<usize>)| -> Vec<u8> {
        let numbers = rule(name, shape);
        numbers.iter().flat_map(|one| one.to_le_bytes()).collect()
    };
    let data: Vec<Vec<u8>> = shapes.iter().map(bytes).collect();
    let views: BTreeMap<&str, TensorView<'_>> = shapes
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
            (name.as_str(), view)
        })
        .collect();
    serialize(views, None).unwrap()
}

/// ResNet-18 without its classifier, by torchvision's names.
pub fn resnet18() -> Shapes {
    let mut shapes = Shapes::new();
    let mut conv_bn = |conv: &str, bn: &str, size: [usize; 4]| {
        shapes.push((format!("{conv}.weight"), size.to_vec()));
        for tensor in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{bn}.{tensor}"), vec![size[0]]));
        }
    };
    conv_bn("conv1", "bn1", [64, 3, 7, 7]);
    let mut inputs = 64;
    for (layer, outputs) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let at = |part: &str| format!("layer{layer}.{block}.{part}");
            conv_bn(&at("conv1"), &at("bn1"), [outputs, inputs, 3, 3]);
            conv_bn(&at("conv2"), &at("bn2"), [outputs, outputs, 3, 3]);
            if inputs != outputs {
                let (conv, bn) = (at("downsample.0"), at("downsample.1"));
                conv_bn(&conv, &bn, [outputs, inputs, 1, 1]);
            }
            inputs = outputs;
        }
    }
    shapes
}

/// timm's `vit_tiny_patch16_224` without its classifier, for inputs of `side` pixels.
pub fn vit_tiny(side: usize) -> Shapes {
    const WIDTH: usize = 192;
    let mut shapes: Shapes = vec![
        ("cls_token".to_owned(), vec![1, 1, WIDTH]),
        (
            "pos_embed".to_owned(),
            vec![1, 1 + (side / 16).pow(2), WIDTH],
        ),
        ("patch_embed.proj.weight".to_owned(), vec![WIDTH, 3, 16, 16]),
        ("patch_embed.proj.bias".to_owned(), vec![WIDTH]),
    ];
    for block in 0..12 {
        for norm in ["norm1", "norm2"] {
            for tensor in ["weight", "bias"] {
                shapes.push((format!("blocks.{block}.{norm}.{tensor}"), vec![WIDTH]));
            }
        }
        for (layer, outputs, inputs) in [
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ] {
            let layer = format!("blocks.{block}.{layer}");
            shapes.push((format!("{layer}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{layer}.bias"), vec![outputs]));
        }
    }
    for tensor in ["weight", "bias"] {
        shapes.push((format!("norm.{tensor}"), vec![WIDTH]));
    }
    shapes
}
