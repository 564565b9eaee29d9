//! Names of tensors in other libraries, transformers and torchvision, turned into timm's: tables of
//! the names of modules, and what is stored in another shape. Only networks that compute the same
//! are here.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Tensor, nn};

use super::{architecture::Architecture, weights::Tensors};

/// A module's or tensor's name there, and here.
type Rules = &'static [(&'static str, &'static str)];

/// The names of one family in one library.
#[derive(Debug)]
struct Table {
    /// A part that the names of its architectures have, and one that they lack.
    is_for: (&'static str, &'static str),
    /// Prefix of most names, which models without a head lack.
    prefix: &'static str,
    /// The name of a tensor that tells these names from others, behind `prefix`.
    sign: &'static str,
    /// A module's or tensor's name there, and here. `#` is a number; `{0}` is the first of them,
    /// `{0+1}` the one behind it, `{0-1}` the one before it, `{0/2}` half of it, and `{block}` the
    /// network's block of that number, from 1. An empty name leaves it out.
    rules: Rules,
}

#[rustfmt::skip]
static TABLES: [Table; 15] = [
    // transformers
    Table {
        is_for: ("resnet", "resnetv2"),
        prefix: "resnet.",
        sign: "embedder.embedder.convolution.weight",
        rules: &[
            ("embedder.embedder.convolution", "conv1"),
            ("embedder.embedder.normalization", "bn1"),
            ("encoder.stages.#.layers.#.shortcut.convolution", "layer{0+1}.{1}.downsample.0"),
            ("encoder.stages.#.layers.#.shortcut.normalization", "layer{0+1}.{1}.downsample.1"),
            ("encoder.stages.#.layers.#.layer.#.convolution", "layer{0+1}.{1}.conv{2+1}"),
            ("encoder.stages.#.layers.#.layer.#.normalization", "layer{0+1}.{1}.bn{2+1}"),
            ("classifier.1", "fc"),
        ],
    },
    Table {
        is_for: ("regnety", "resnet"),
        prefix: "regnet.",
        sign: "embedder.embedder.convolution.weight",
        rules: &[
            ("embedder.embedder.convolution", "stem.conv"),
            ("embedder.embedder.normalization", "stem.bn"),
            ("encoder.stages.#.layers.#.shortcut.convolution", "s{0+1}.b{1+1}.downsample.conv"),
            ("encoder.stages.#.layers.#.shortcut.normalization", "s{0+1}.b{1+1}.downsample.bn"),
            ("encoder.stages.#.layers.#.layer.2.attention.0", "s{0+1}.b{1+1}.se.fc1"),
            ("encoder.stages.#.layers.#.layer.2.attention.2", "s{0+1}.b{1+1}.se.fc2"),
            ("encoder.stages.#.layers.#.layer.3.convolution", "s{0+1}.b{1+1}.conv3.conv"),
            ("encoder.stages.#.layers.#.layer.3.normalization", "s{0+1}.b{1+1}.conv3.bn"),
            ("encoder.stages.#.layers.#.layer.#.convolution", "s{0+1}.b{1+1}.conv{2+1}.conv"),
            ("encoder.stages.#.layers.#.layer.#.normalization", "s{0+1}.b{1+1}.conv{2+1}.bn"),
            ("classifier.1", "head.fc"),
        ],
    },
    Table {
        is_for: ("convnext_", "v2"),
        prefix: "convnext.",
        sign: "embeddings.patch_embeddings.weight",
        rules: CONVNEXT,
    },
    Table {
        is_for: ("convnextv2_", "resnet"),
        prefix: "convnextv2.",
        sign: "embeddings.patch_embeddings.weight",
        rules: CONVNEXT,
    },
    Table {
        is_for: ("_dinov2", "reg4"),
        prefix: "dinov2.",
        sign: "embeddings.patch_embeddings.projection.weight",
        rules: DINOV2,
    },
    Table {
        is_for: ("_reg4_dinov2", "resnet"),
        prefix: "dinov2_with_registers.",
        sign: "embeddings.patch_embeddings.projection.weight",
        rules: DINOV2,
    },
    Table {
        is_for: ("_patch16_224", "deit3"),
        prefix: "vit.",
        sign: "embeddings.patch_embeddings.projection.weight",
        rules: &[
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("embeddings.mask_token", ""),
            ("encoder.layer.#.layernorm_before", "blocks.{0}.norm1"),
            ("encoder.layer.#.attention.attention.query", "blocks.{0}.attn.q"),
            ("encoder.layer.#.attention.attention.key", "blocks.{0}.attn.k"),
            ("encoder.layer.#.attention.attention.value", "blocks.{0}.attn.v"),
            ("encoder.layer.#.attention.output.dense", "blocks.{0}.attn.proj"),
            ("encoder.layer.#.layernorm_after", "blocks.{0}.norm2"),
            ("encoder.layer.#.intermediate.dense", "blocks.{0}.mlp.fc1"),
            ("encoder.layer.#.output.dense", "blocks.{0}.mlp.fc2"),
            ("layernorm", "norm"),
            ("pooler", ""),
            ("classifier", "head"),
        ],
    },
    Table {
        is_for: ("_clip_", "resnet"),
        prefix: "vision_model.",
        sign: "embeddings.patch_embedding.weight",
        rules: &[
            ("embeddings.class_embedding", "cls_token"),
            ("embeddings.position_embedding.weight", "pos_embed"),
            ("embeddings.position_ids", ""),
            ("embeddings.patch_embedding", "patch_embed.proj"),
            ("pre_layrnorm", "norm_pre"),
            ("encoder.layers.#.layer_norm1", "blocks.{0}.norm1"),
            ("encoder.layers.#.self_attn.q_proj", "blocks.{0}.attn.q"),
            ("encoder.layers.#.self_attn.k_proj", "blocks.{0}.attn.k"),
            ("encoder.layers.#.self_attn.v_proj", "blocks.{0}.attn.v"),
            ("encoder.layers.#.self_attn.out_proj", "blocks.{0}.attn.proj"),
            ("encoder.layers.#.layer_norm2", "blocks.{0}.norm2"),
            ("encoder.layers.#.mlp", "blocks.{0}.mlp"),
            ("post_layernorm", "norm"),
            // What leads to texts has no use here.
            ("visual_projection", ""),
            ("text_model", ""),
            ("text_projection", ""),
            ("logit_scale", ""),
            // It reads the mean of the patches.
            ("classifier", ""),
        ],
    },
    Table {
        is_for: ("swin_", "resnet"),
        prefix: "swin.",
        sign: "embeddings.patch_embeddings.projection.weight",
        rules: &[
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("embeddings.norm", "patch_embed.norm"),
            ("embeddings.mask_token", ""),
            ("encoder.layers.#.blocks.#.attention.self.query", "layers.{0}.blocks.{1}.attn.q"),
            ("encoder.layers.#.blocks.#.attention.self.key", "layers.{0}.blocks.{1}.attn.k"),
            ("encoder.layers.#.blocks.#.attention.self.value", "layers.{0}.blocks.{1}.attn.v"),
            ("encoder.layers.#.blocks.#.attention.self.relative_position_index", ""),
            ("encoder.layers.#.blocks.#.attention.self", "layers.{0}.blocks.{1}.attn"),
            ("encoder.layers.#.blocks.#.attention.output.dense", "layers.{0}.blocks.{1}.attn.proj"),
            ("encoder.layers.#.blocks.#.layernorm_before", "layers.{0}.blocks.{1}.norm1"),
            ("encoder.layers.#.blocks.#.layernorm_after", "layers.{0}.blocks.{1}.norm2"),
            ("encoder.layers.#.blocks.#.intermediate.dense", "layers.{0}.blocks.{1}.mlp.fc1"),
            ("encoder.layers.#.blocks.#.output.dense", "layers.{0}.blocks.{1}.mlp.fc2"),
            // timm has it at the start of the next stage.
            ("encoder.layers.#.downsample", "layers.{0+1}.downsample"),
            ("layernorm", "norm"),
            ("classifier", "head.fc"),
        ],
    },
    // torchvision
    Table {
        is_for: ("mobilenetv2_", "resnet"),
        prefix: "",
        sign: "features.1.conv.0.0.weight",
        rules: &[
            ("features.0.0", "conv_stem"),
            ("features.0.1", "bn1"),
            ("features.1.conv.0.0", "blocks.0.0.conv_dw"),
            ("features.1.conv.0.1", "blocks.0.0.bn1"),
            ("features.1.conv.1", "blocks.0.0.conv_pw"),
            ("features.1.conv.2", "blocks.0.0.bn2"),
            ("features.#.conv.0.0", "{block}.conv_pw"),
            ("features.#.conv.0.1", "{block}.bn1"),
            ("features.#.conv.1.0", "{block}.conv_dw"),
            ("features.#.conv.1.1", "{block}.bn2"),
            ("features.#.conv.2", "{block}.conv_pwl"),
            ("features.#.conv.3", "{block}.bn3"),
            ("features.18.0", "conv_head"),
            ("features.18.1", "bn2"),
            ("classifier.1", "classifier"),
        ],
    },
    Table {
        is_for: ("mobilenetv3_", "resnet"),
        prefix: "",
        sign: "features.1.block.0.0.weight",
        rules: &[
            ("features.0.0", "conv_stem"),
            ("features.0.1", "bn1"),
            ("features.1.block.0.0", "blocks.0.0.conv_dw"),
            ("features.1.block.0.1", "blocks.0.0.bn1"),
            ("features.1.block.1.fc1", "blocks.0.0.se.conv_reduce"),
            ("features.1.block.1.fc2", "blocks.0.0.se.conv_expand"),
            // Behind squeeze-and-excitation, or without it.
            ("features.1.block.#.0", "blocks.0.0.conv_pw"),
            ("features.1.block.#.1", "blocks.0.0.bn2"),
            ("features.#.block.0.0", "{block}.conv_pw"),
            ("features.#.block.0.1", "{block}.bn1"),
            ("features.#.block.1.0", "{block}.conv_dw"),
            ("features.#.block.1.1", "{block}.bn2"),
            ("features.#.block.2.fc1", "{block}.se.conv_reduce"),
            ("features.#.block.2.fc2", "{block}.se.conv_expand"),
            ("features.#.block.#.0", "{block}.conv_pwl"),
            ("features.#.block.#.1", "{block}.bn3"),
            // The last one, after 11 or 15 blocks.
            ("features.#.0", "{block}.conv"),
            ("features.#.1", "{block}.bn1"),
            ("classifier.0", "conv_head"),
            ("classifier.3", "classifier"),
        ],
    },
    Table {
        is_for: ("efficientnet_b", "tf_"),
        prefix: "",
        sign: "features.1.0.block.0.0.weight",
        rules: &[
            ("features.0.0", "conv_stem"),
            ("features.0.1", "bn1"),
            ("features.8.0", "conv_head"),
            ("features.8.1", "bn2"),
            ("features.1.#.block.0.0", "blocks.0.{0}.conv_dw"),
            ("features.1.#.block.0.1", "blocks.0.{0}.bn1"),
            ("features.1.#.block.1.fc1", "blocks.0.{0}.se.conv_reduce"),
            ("features.1.#.block.1.fc2", "blocks.0.{0}.se.conv_expand"),
            ("features.1.#.block.2.0", "blocks.0.{0}.conv_pw"),
            ("features.1.#.block.2.1", "blocks.0.{0}.bn2"),
            ("features.#.#.block.0.0", "blocks.{0-1}.{1}.conv_pw"),
            ("features.#.#.block.0.1", "blocks.{0-1}.{1}.bn1"),
            ("features.#.#.block.1.0", "blocks.{0-1}.{1}.conv_dw"),
            ("features.#.#.block.1.1", "blocks.{0-1}.{1}.bn2"),
            ("features.#.#.block.2.fc1", "blocks.{0-1}.{1}.se.conv_reduce"),
            ("features.#.#.block.2.fc2", "blocks.{0-1}.{1}.se.conv_expand"),
            ("features.#.#.block.3.0", "blocks.{0-1}.{1}.conv_pwl"),
            ("features.#.#.block.3.1", "blocks.{0-1}.{1}.bn3"),
            ("classifier.1", "classifier"),
        ],
    },
    Table {
        is_for: ("_patch16_224", "deit3"),
        prefix: "",
        sign: "conv_proj.weight",
        rules: &[
            ("class_token", "cls_token"),
            ("conv_proj", "patch_embed.proj"),
            ("encoder.pos_embedding", "pos_embed"),
            ("encoder.layers.encoder_layer_#.ln_1", "blocks.{0}.norm1"),
            ("encoder.layers.encoder_layer_#.self_attention.in_proj_weight", "blocks.{0}.attn.qkv.weight"),
            ("encoder.layers.encoder_layer_#.self_attention.in_proj_bias", "blocks.{0}.attn.qkv.bias"),
            ("encoder.layers.encoder_layer_#.self_attention.out_proj", "blocks.{0}.attn.proj"),
            ("encoder.layers.encoder_layer_#.ln_2", "blocks.{0}.norm2"),
            ("encoder.layers.encoder_layer_#.mlp.0", "blocks.{0}.mlp.fc1"),
            ("encoder.layers.encoder_layer_#.mlp.linear_1", "blocks.{0}.mlp.fc1"),
            ("encoder.layers.encoder_layer_#.mlp.3", "blocks.{0}.mlp.fc2"),
            ("encoder.layers.encoder_layer_#.mlp.linear_2", "blocks.{0}.mlp.fc2"),
            ("encoder.ln", "norm"),
            ("heads.head", "head"),
        ],
    },
    Table {
        is_for: ("convnext_", "v2"),
        prefix: "",
        sign: "features.0.0.weight",
        rules: &[
            ("features.#.#.layer_scale", "stages.{0/2}.blocks.{1}.gamma"),
            ("features.#.#.block.0", "stages.{0/2}.blocks.{1}.conv_dw"),
            ("features.#.#.block.2", "stages.{0/2}.blocks.{1}.norm"),
            ("features.#.#.block.3", "stages.{0/2}.blocks.{1}.mlp.fc1"),
            ("features.#.#.block.5", "stages.{0/2}.blocks.{1}.mlp.fc2"),
            ("features.0", "stem"),
            ("features.#", "stages.{0/2}.downsample"),
            ("classifier.0", "head.norm"),
            ("classifier.2", "head.fc"),
        ],
    },
    Table {
        is_for: ("regnety", "resnet"),
        prefix: "",
        sign: "trunk_output.block1.block1-0.f.a.0.weight",
        rules: &[
            ("stem.0", "stem.conv"),
            ("stem.1", "stem.bn"),
            ("trunk_output.block#.block#-#.proj.0", "s{0}.b{2+1}.downsample.conv"),
            ("trunk_output.block#.block#-#.proj.1", "s{0}.b{2+1}.downsample.bn"),
            ("trunk_output.block#.block#-#.f.a.0", "s{0}.b{2+1}.conv1.conv"),
            ("trunk_output.block#.block#-#.f.a.1", "s{0}.b{2+1}.conv1.bn"),
            ("trunk_output.block#.block#-#.f.b.0", "s{0}.b{2+1}.conv2.conv"),
            ("trunk_output.block#.block#-#.f.b.1", "s{0}.b{2+1}.conv2.bn"),
            ("trunk_output.block#.block#-#.f.se", "s{0}.b{2+1}.se"),
            ("trunk_output.block#.block#-#.f.c.0", "s{0}.b{2+1}.conv3.conv"),
            ("trunk_output.block#.block#-#.f.c.1", "s{0}.b{2+1}.conv3.bn"),
            ("fc", "head.fc"),
        ],
    },
];

#[rustfmt::skip]
const CONVNEXT: Rules = &[
    ("embeddings.patch_embeddings", "stem.0"),
    ("embeddings.layernorm", "stem.1"),
    ("encoder.stages.#.downsampling_layer", "stages.{0}.downsample"),
    ("encoder.stages.#.layers.#.dwconv", "stages.{0}.blocks.{1}.conv_dw"),
    ("encoder.stages.#.layers.#.layernorm", "stages.{0}.blocks.{1}.norm"),
    ("encoder.stages.#.layers.#.pwconv1", "stages.{0}.blocks.{1}.mlp.fc1"),
    ("encoder.stages.#.layers.#.grn", "stages.{0}.blocks.{1}.mlp.grn"),
    ("encoder.stages.#.layers.#.pwconv2", "stages.{0}.blocks.{1}.mlp.fc2"),
    ("encoder.stages.#.layers.#.layer_scale_parameter", "stages.{0}.blocks.{1}.gamma"),
    ("layernorm", "head.norm"),
    ("classifier", "head.fc"),
];

#[rustfmt::skip]
const DINOV2: Rules = &[
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", ""),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.#.norm1", "blocks.{0}.norm1"),
    ("encoder.layer.#.attention.attention.query", "blocks.{0}.attn.q"),
    ("encoder.layer.#.attention.attention.key", "blocks.{0}.attn.k"),
    ("encoder.layer.#.attention.attention.value", "blocks.{0}.attn.v"),
    ("encoder.layer.#.attention.output.dense", "blocks.{0}.attn.proj"),
    ("encoder.layer.#.layer_scale1.lambda1", "blocks.{0}.ls1.gamma"),
    ("encoder.layer.#.norm2", "blocks.{0}.norm2"),
    ("encoder.layer.#.mlp", "blocks.{0}.mlp"),
    ("encoder.layer.#.layer_scale2.lambda1", "blocks.{0}.ls2.gamma"),
    ("layernorm", "norm"),
    // It reads the class token and the mean of the patches.
    ("classifier", ""),
];

/// Least share of a network's tensors in a file whose names are translated. The report on a
/// fragment is to say whose names these are, rather than all that it lacks.
const LEAST_SHARE: f64 = 0.25;

/// The tensors under timm's names and in its shapes, where their names are those of another
/// library.
pub(super) fn to_timm(architecture: &Architecture, tensors: Tensors) -> Tensors {
    translated(architecture, tensors, LEAST_SHARE)
}

fn translated(architecture: &Architecture, tensors: Tensors, least_share: f64) -> Tensors {
    let found = TABLES.iter().find_map(|table| {
        let (with, without) = table.is_for;
        let is_for = architecture.name.contains(with) && !architecture.name.contains(without);
        let prefix = is_for.then(|| table.prefix_of(&tensors))??;
        Some((table, prefix))
    });
    let Some((table, prefix)) = found else {
        return tensors;
    };
    let named = own_tensors(architecture);
    let blocks = blocks(&named);
    // That of wrappers, which the head has, too.
    let outer = prefix.strip_suffix(table.prefix).unwrap_or(&prefix);
    let new_name = |name: &String| {
        let inner = name.strip_prefix(&prefix);
        let inner = inner.or_else(|| name.strip_prefix(outer)).unwrap_or(name);
        table
            .timm_name(inner, &blocks)
            .unwrap_or_else(|| name.clone())
    };
    let names: Vec<String> = tensors.keys().map(new_name).collect();
    let known = names.iter().filter(|name| named.contains_key(*name));
    if (known.count() as f64) < least_share * named.len() as f64 {
        return tensors;
    }
    let needed = names.iter().filter(|name| !name.is_empty());
    if needed.clone().collect::<BTreeSet<_>>().len() < needed.count() {
        // Two tensors would become one: the report is to name all.
        return tensors;
    }
    let renamed = names.into_iter().zip(tensors.into_values());
    let mut renamed: Tensors = renamed.filter(|(name, _)| !name.is_empty()).collect();
    join_attention(&mut renamed);
    give_shapes(&named, &mut renamed);
    place_class_position(architecture, &mut renamed);
    give_epsilon(architecture, &mut renamed);
    renamed
}

/// The shapes of a network's tensors by name.
fn own_tensors(architecture: &Architecture) -> BTreeMap<String, Vec<i64>> {
    let vs = nn::VarStore::new(Device::Cpu);
    let named = architecture.build(&vs.root(), &architecture.input).named();
    let named = named.into_iter();
    named.map(|(name, tensor)| (name, tensor.size())).collect()
}

/// Names of the blocks of blocks in order, such as `blocks.2.0`, which other libraries count
/// through.
fn blocks(named: &BTreeMap<String, Vec<i64>>) -> Vec<String> {
    let places = named.keys().filter_map(|name| {
        let (numbers, _) = match_start("blocks.#.#", name)?;
        Some((numbers[0], numbers[1]))
    });
    let places: BTreeSet<(u32, u32)> = places.collect();
    let names = places.into_iter();
    names
        .map(|(stage, block)| format!("blocks.{stage}.{block}"))
        .collect()
}

impl Table {
    /// The part of the names before this library's, if these are its names.
    fn prefix_of(&self, tensors: &Tensors) -> Option<String> {
        let mut prefixes = tensors.keys().filter_map(|name| {
            let prefix = name.strip_suffix(self.sign)?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_owned())
        });
        prefixes.next()
    }

    /// timm's name, empty for a tensor that is left out; `None` for one that is not known.
    fn timm_name(&self, name: &str, blocks: &[String]) -> Option<String> {
        self.rules.iter().find_map(|(theirs, ours)| {
            let (numbers, rest) = match_start(theirs, name)?;
            if ours.is_empty() {
                return Some(String::new());
            }
            let mut new = (*ours).to_owned();
            if new.contains("{block}") {
                let place = (*numbers.first()? as usize).checked_sub(1)?;
                new = new.replace("{block}", blocks.get(place)?);
            }
            for (index, number) in numbers.iter().enumerate() {
                new = new
                    .replace(&format!("{{{index}}}"), &number.to_string())
                    .replace(&format!("{{{index}+1}}"), &(number + 1).to_string())
                    .replace(
                        &format!("{{{index}-1}}"),
                        &number.saturating_sub(1).to_string(),
                    )
                    .replace(&format!("{{{index}/2}}"), &(number / 2).to_string());
            }
            Some(new + rest)
        })
    }
}

/// The numbers in a name that starts as a pattern says, and the rest of the name.
fn match_start<'a>(pattern: &str, name: &'a str) -> Option<(Vec<u32>, &'a str)> {
    let mut parts = pattern.split('#');
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut numbers = Vec::new();
    for part in parts {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        numbers.push(rest[..digits].parse::<u16>().ok()?.into());
        rest = rest[digits..].strip_prefix(part)?;
    }
    (rest.is_empty() || rest.starts_with('.')).then_some((numbers, rest))
}

/// Joins queries, keys and values to one tensor, as timm has them.
fn join_attention(tensors: &mut Tensors) {
    let queries: Vec<String> = tensors
        .keys()
        .filter(|name| name.contains(".attn.q."))
        .cloned()
        .collect();
    for query in queries {
        let names =
            ["q", "k", "v"].map(|part| query.replace(".attn.q.", &format!(".attn.{part}.")));
        let parts: Vec<&Tensor> = names.iter().filter_map(|name| tensors.get(name)).collect();
        let sizes: Vec<_> = parts.iter().map(|part| part.size()).collect();
        if parts.len() < 3 || sizes[0].is_empty() || sizes.iter().any(|size| *size != sizes[0]) {
            continue;
        }
        let joined = Tensor::cat(&parts, 0);
        for name in &names {
            tensors.remove(name);
        }
        tensors.insert(query.replace(".attn.q.", ".attn.qkv."), joined);
    }
}

/// Adds and removes sides of 1, as the network's tensors have them.
fn give_shapes(wanted: &BTreeMap<String, Vec<i64>>, tensors: &mut Tensors) {
    for (name, tensor) in tensors.iter_mut() {
        let Some(wanted) = wanted
            .get(name)
            .filter(|wanted| wanted.len() != tensor.dim())
        else {
            continue;
        };
        let mut sides = tensor.size().into_iter().filter(|side| *side != 1);
        let shape = wanted.iter().map(|side| match side {
            1 => Some(1),
            _ => sides.next(),
        });
        let shape: Option<Vec<i64>> = shape.collect();
        if let Some(shape) = shape
            && shape.iter().product::<i64>() == tensor.numel() as i64
        {
            *tensor = tensor.reshape(shape);
        }
    }
}

/// Adds the class token's position to the token itself, in networks whose positions are those of
/// patches only, as timm does with DINOv2 with registers.
fn place_class_position(architecture: &Architecture, tensors: &mut Tensors) {
    if !architecture.name.contains("_reg4_") {
        return;
    }
    let (Some(class), Some(positions)) = (tensors.get("cls_token"), tensors.get("pos_embed"))
    else {
        return;
    };
    let (size, of_class) = (positions.size(), class.size());
    let [1, count, width] = size[..] else { return };
    if of_class != [1, 1, width] || count < 2 {
        return;
    }
    let class = class + positions.narrow(1, 0, 1);
    let positions = positions.narrow(1, 1, count - 1);
    tensors.insert("cls_token".to_owned(), class);
    tensors.insert("pos_embed".to_owned(), positions);
}

/// Adds the difference of the epsilons to the variances of MobileNetV3, whose BatchNorm has 0.001
/// in torchvision and 0.00001 in timm: the sum of both stays.
fn give_epsilon(architecture: &Architecture, tensors: &mut Tensors) {
    if !architecture.name.starts_with("mobilenetv3_") {
        return;
    }
    for (name, tensor) in tensors.iter_mut() {
        if name.ends_with(".running_var") && tensor.is_floating_point() {
            *tensor = &*tensor + (1e-3 - 1e-5);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};
    use tch::Kind;

    use super::*;
    use crate::{
        domain::repository::{Description, describe},
        models::registry,
    };

    const NETWORKS: &str = include_str!("../../../domain/src/repository/transformers.json");

    fn zeros(size: &[i64]) -> Tensor {
        Tensor::zeros(size, (Kind::Float, Device::Cpu))
    }

    fn renamed(architecture: &str, tensors: &[(&str, &[i64])]) -> Vec<(String, Vec<i64>)> {
        let architecture = registry::find(architecture).unwrap();
        let tensors = tensors.iter();
        let tensors = tensors.map(|(name, size)| ((*name).to_owned(), zeros(size)));
        let renamed = translated(architecture, tensors.collect(), 0.0);
        let pairs = renamed
            .into_iter()
            .map(|(name, tensor)| (name, tensor.size()));
        pairs.collect()
    }

    fn names(architecture: &str, names: &[&str]) -> Vec<String> {
        let tensors: Vec<(&str, &[i64])> = names.iter().map(|name| (*name, &[5][..])).collect();
        let renamed = renamed(architecture, &tensors).into_iter();
        renamed.map(|(name, _)| name).collect()
    }

    /// Every network of transformers that a repository may have is built here, has the width that
    /// its configuration says, and has a table of names.
    #[test]
    fn networks_of_transformers_are_built_here() {
        let types: Map<String, Value> = serde_json::from_str(NETWORKS).unwrap();
        for (model_type, known) in types {
            for (name, network) in known["networks"].as_object().unwrap() {
                let mut config = known["defaults"].as_object().unwrap().clone();
                config.extend(network.as_object().unwrap().clone());
                config.insert("model_type".to_owned(), model_type.clone().into());
                let width = match &config.get("hidden_sizes") {
                    Some(sizes) => sizes[3].clone(),
                    None => config["hidden_size"].clone(),
                };
                let found: Description = describe(&config.into(), None).unwrap();
                assert_eq!(found.architecture, *name);
                let architecture = registry::find(name).unwrap();
                assert_eq!(width, architecture.feature_dim, "{name}");
                let tables = TABLES.iter().filter(|table| {
                    let (with, without) = table.is_for;
                    name.contains(with) && !name.contains(without) && !table.prefix.is_empty()
                });
                assert_eq!(tables.count(), 1, "{name}");
            }
        }
    }

    #[test]
    fn modules_are_renamed_by_their_numbers() {
        let found = names(
            "resnet50",
            &[
                "resnet.embedder.embedder.convolution.weight",
                "resnet.encoder.stages.2.layers.5.layer.1.normalization.running_var",
                "resnet.encoder.stages.3.layers.0.shortcut.convolution.weight",
                "classifier.1.bias",
                "resnet.unknown",
            ],
        );
        let expected = [
            "conv1.weight",
            "fc.bias",
            "layer3.5.bn2.running_var",
            "layer4.0.downsample.0.weight",
            "resnet.unknown",
        ];
        assert_eq!(found, expected);
        // Inside a wrapper, and without the prefix of models with a head.
        let wrapped = [
            "model.resnet.embedder.embedder.convolution.weight",
            "model.classifier.1.bias",
        ];
        assert_eq!(names("resnet50", &wrapped), ["conv1.weight", "fc.bias"]);
        let bare = [
            "embedder.embedder.normalization.bias",
            "embedder.embedder.convolution.weight",
        ];
        assert_eq!(names("resnet50", &bare), ["bn1.bias", "conv1.weight"]);
        let torchvision = [
            "features.0.0.weight",
            "features.6.1.bias",
            "features.5.11.block.3.weight",
            "features.7.2.layer_scale",
            "classifier.2.weight",
        ];
        let expected = [
            "head.fc.weight",
            "stages.2.blocks.11.mlp.fc1.weight",
            "stages.3.blocks.2.gamma",
            "stages.3.downsample.1.bias",
            "stem.0.weight",
        ];
        assert_eq!(names("convnext_tiny", &torchvision), expected);
        // timm's own names stay, and so do names that only begin alike.
        let own = ["conv1.weight", "embedder.embedder.convolution.weights"];
        assert_eq!(names("resnet18", &own), own);
        // Two that would become one stay as they are, and so does a number past all.
        let twice = ["embeddings.patch_embeddings.weight", "stem.0.weight"];
        assert_eq!(names("convnext_tiny", &twice), twice);
        let large = "encoder.stages.99999999999.layers.0.dwconv.weight";
        let found = names("convnext_tiny", &[twice[0], large]);
        assert_eq!(found, [large, "stem.0.weight"]);
    }

    /// Inverted residuals are counted through in torchvision, and by stage in timm.
    #[test]
    fn blocks_are_found_by_their_number() {
        for (architecture, tensors) in [
            (
                "mobilenetv2_100",
                &[
                    ("features.1.conv.0.0.weight", "blocks.0.0.conv_dw.weight"),
                    ("features.1.conv.2.bias", "blocks.0.0.bn2.bias"),
                    ("features.5.conv.0.0.weight", "blocks.2.1.conv_pw.weight"),
                    ("features.17.conv.3.bias", "blocks.6.0.bn3.bias"),
                    ("features.18.1.bias", "bn2.bias"),
                    ("features.99.conv.3.bias", "features.99.conv.3.bias"),
                ][..],
            ),
            (
                "mobilenetv3_small_100",
                &[
                    ("features.1.block.0.0.weight", "blocks.0.0.conv_dw.weight"),
                    (
                        "features.1.block.1.fc1.bias",
                        "blocks.0.0.se.conv_reduce.bias",
                    ),
                    ("features.1.block.2.1.bias", "blocks.0.0.bn2.bias"),
                    ("features.2.block.2.0.weight", "blocks.1.0.conv_pwl.weight"),
                    ("features.11.block.3.1.bias", "blocks.4.2.bn3.bias"),
                    ("features.12.0.weight", "blocks.5.0.conv.weight"),
                    ("classifier.0.bias", "conv_head.bias"),
                    ("classifier.3.bias", "classifier.bias"),
                ],
            ),
            (
                "efficientnet_b0",
                &[
                    ("features.1.0.block.0.0.weight", "blocks.0.0.conv_dw.weight"),
                    ("features.1.0.block.2.0.weight", "blocks.0.0.conv_pw.weight"),
                    (
                        "features.6.3.block.2.fc2.bias",
                        "blocks.5.3.se.conv_expand.bias",
                    ),
                    ("features.8.0.weight", "conv_head.weight"),
                ],
            ),
        ] {
            let theirs: Vec<&str> = tensors.iter().map(|(theirs, _)| *theirs).collect();
            let mut ours: Vec<&str> = tensors.iter().map(|(_, ours)| *ours).collect();
            ours.sort_unstable();
            assert_eq!(names(architecture, &theirs), ours);
        }
    }

    #[test]
    fn attention_is_joined_and_shapes_are_timms() {
        let clip = [
            (
                "vision_model.embeddings.patch_embedding.weight",
                &[768, 3, 32, 32][..],
            ),
            ("vision_model.embeddings.class_embedding", &[768]),
            (
                "vision_model.embeddings.position_embedding.weight",
                &[50, 768],
            ),
            ("vision_model.embeddings.position_ids", &[1, 50]),
            (
                "vision_model.encoder.layers.3.self_attn.q_proj.weight",
                &[768, 768],
            ),
            (
                "vision_model.encoder.layers.3.self_attn.k_proj.weight",
                &[768, 768],
            ),
            (
                "vision_model.encoder.layers.3.self_attn.v_proj.weight",
                &[768, 768],
            ),
            // One part alone is left for the report.
            (
                "vision_model.encoder.layers.4.self_attn.q_proj.bias",
                &[768],
            ),
            ("text_model.embeddings.token_embedding.weight", &[9, 9]),
        ];
        let found = renamed("vit_base_patch32_clip_224", &clip);
        let expected = [
            ("blocks.3.attn.qkv.weight", vec![3 * 768, 768]),
            ("blocks.4.attn.q.bias", vec![768]),
            ("cls_token", vec![1, 1, 768]),
            ("patch_embed.proj.weight", vec![768, 3, 32, 32]),
            ("pos_embed", vec![1, 50, 768]),
        ];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));

        let sizes = [
            ("embeddings.patch_embeddings.weight", &[40, 3, 4, 4][..]),
            ("encoder.stages.0.layers.0.pwconv1.weight", &[160, 40]),
            ("encoder.stages.0.layers.0.grn.weight", &[1, 1, 1, 160]),
        ];
        let found = renamed("convnextv2_atto", &sizes);
        let expected = [
            ("stages.0.blocks.0.mlp.fc1.weight", vec![160, 40, 1, 1]),
            ("stages.0.blocks.0.mlp.grn.weight", vec![160]),
            ("stem.0.weight", vec![40, 3, 4, 4]),
        ];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn the_class_tokens_position_is_added_to_it() {
        let architecture = registry::find("vit_small_patch14_reg4_dinov2").unwrap();
        let tensors = Tensors::from([
            (
                "embeddings.patch_embeddings.projection.weight".to_owned(),
                zeros(&[384, 3, 14, 14]),
            ),
            ("embeddings.cls_token".to_owned(), zeros(&[1, 1, 384]) + 1.0),
            (
                "embeddings.position_embeddings".to_owned(),
                zeros(&[1, 5, 384]) + 2.0,
            ),
        ]);
        let renamed = translated(architecture, tensors, 0.0);
        assert_eq!(renamed["cls_token"], zeros(&[1, 1, 384]) + 3.0);
        assert_eq!(renamed["pos_embed"], zeros(&[1, 4, 384]) + 2.0);
    }
}
