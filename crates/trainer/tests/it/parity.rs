//! Every architecture gives the numbers of its reference implementation, for the same weights and
//! images.

use rehead_domain::{
    base_model::Preprocessing,
    input::{Input, Tokenization},
};
use rehead_trainer::models::{
    adapt::adapt,
    architecture::{Architecture, Family},
    bert::{BERT, Config, DISTILBERT},
    inference::Extractor,
    pass::{Norm, Pass, Statistics},
    registry,
    weights::{Tensors, load_strict},
};
use serde_json::Value;
use tch::{Device, Tensor, nn};

use crate::support::{device, numbers};

/// Each recording of a forward pass; the training runs are `train_parity`'s.
#[test]
fn architectures_compute_what_their_references_computed() {
    numbers::check_all(
        |name| !name.starts_with("train-"),
        |file, recording| match file.starts_with("hf-") {
            true => check_text(recording),
            false => check(recording),
        },
    );
}

fn check(recording: &Value) -> Result<(), String> {
    let device = device::open();
    let name = recording["name"]
        .as_str()
        .ok_or("the recording has no name")?;
    let architecture =
        registry::find(name).ok_or(format!("the registry lacks the architecture `{name}`"))?;
    let size: Vec<i64> = serde_json::from_value(recording["input"]["shape"].clone()).unwrap();
    let input = |side: i64| {
        Input::Image(Preprocessing {
            input_size: side as u32,
            channels: size[1] as u32,
            ..architecture.input.image().unwrap().clone()
        })
    };
    let vs = nn::VarStore::new(device);
    let stored = architecture.build(&vs.root(), &input(stored_side(architecture, recording)));
    let classes = recording["logits_shape"][1].as_i64().unwrap();
    let width = i64::from(architecture.feature_dim);
    let zeros = |size: &[i64]| Tensor::zeros(size, (tch::Kind::Float, device));
    // torchvision's SqueezeNet has a 1x1 convolution and a ReLU before it pools, where others have
    // a linear layer.
    let key = format!("{}.weight", architecture.classifier);
    let convolves = recording["state_dict"][&key]
        .as_array()
        .is_some_and(|shape| shape.len() == 4);
    let (weight, bias) = (zeros(&[classes, width]), zeros(&[classes]));
    let weight = if convolves {
        weight.reshape([classes, width, 1, 1])
    } else {
        weight
    };
    let mut named = stored.named();
    named.push((
        format!("{}.weight", architecture.classifier),
        weight.shallow_clone(),
    ));
    named.push((
        format!("{}.bias", architecture.classifier),
        bias.shallow_clone(),
    ));
    same_state_dict(&named, &recording["state_dict"])?;
    numbers::fill_for(&named, recording);

    // The same weights for the images' size: timm resampled a ViT's and a Swin's positions.
    let vs = nn::VarStore::new(device);
    let backbone = architecture.build(&vs.root(), &input(size[2]));
    let mut tensors: Tensors = stored.named().into_iter().collect();
    adapt(architecture, &backbone.named(), &mut tensors);
    load_strict(&backbone.named(), &tensors, &[]).map_err(|report| report.to_string())?;

    let images = numbers::images("input", &size).to_device(device);
    let plain = tch::no_grad(|| backbone.forward(&images, 0, Norm::Running));
    let extractor = Extractor::new(&backbone);
    if convolves {
        let logits = |map: Tensor| {
            map.conv2d(&weight, Some(&bias), 1, 0, 1, 1)
                .relu()
                .mean_dim(&[2i64, 3][..], false, None)
        };
        let map = tch::no_grad(|| backbone.forward_until(&images, backbone.stages.len()));
        compare("logits", &logits(map), recording, "logits")?;
        return compare(
            "fast logits",
            &logits(extractor.map(&images)),
            recording,
            "logits",
        );
    }
    compare("features", &plain, recording, "pre_logits")?;
    let logits = plain.linear(&weight, Some(&bias));
    compare("logits", &logits, recording, "logits")?;
    compare(
        "fast features",
        &extractor.features(&images),
        recording,
        "pre_logits",
    )
}

fn check_text(recording: &Value) -> Result<(), String> {
    let (config, tokenization) = text_config(recording)?;
    let vs = nn::VarStore::new(Device::Cpu);
    let encoder = config.build(&vs.root(), &tokenization);
    assert_eq!(encoder.named().len(), vs.len());
    let mut named = encoder.named();
    if recording["state_dict"]["pooler.dense.weight"].is_array() {
        // BERT's pooler is no part of the backbone.
        let zeros = |size: &[i64]| Tensor::zeros(size, (tch::Kind::Float, Device::Cpu));
        named.push((
            "pooler.dense.weight".to_owned(),
            zeros(&[config.width, config.width]),
        ));
        named.push(("pooler.dense.bias".to_owned(), zeros(&[config.width])));
    }
    same_state_dict(&named, &recording["state_dict"])?;
    numbers::fill(&named);
    let input = |key: &str| numbers::tokens(&recording["input"][key]);
    let (ids, mask) = (input("input_ids"), input("attention_mask"));
    let pass = Pass {
        mask: Some(&mask),
        ..Norm::Running.into()
    };
    let hidden = tch::no_grad(|| {
        let stages = encoder.stages.iter();
        stages.fold(ids.shallow_clone(), |x, stage| stage.forward(&x, pass))
    });
    let features = tch::no_grad(|| encoder.forward(&ids, 0, pass));
    assert_eq!(features, hidden.select(1, 0));
    let folded = Extractor::new(&encoder);
    let ids_of_one_length = ids.narrow(0, 0, 1);
    assert_eq!(
        folded.features(&ids_of_one_length),
        encoder.forward(&ids_of_one_length, 0, Norm::Running)
    );
    let mask = mask.unsqueeze(-1).to_kind(tch::Kind::Float);
    let count = mask.sum_dim_intlist(1, false, None);
    let mean = (&hidden * &mask).sum_dim_intlist(1, false, None) / count;
    compare("mean", &mean, recording, "mean")?;
    for (i, first) in (0..).zip(recording["cls_first8"].as_array().unwrap()) {
        let norm = recording["mean_l2"][i].as_f64().unwrap();
        let found = hidden.get(i as i64).get(0);
        numbers::compare_first(&format!("first token of text {i}"), &found, first, norm)?;
    }
    Ok(())
}

/// A recording's sizes, by the names of the library's two configurations.
fn text_config(recording: &Value) -> Result<(Config, Tokenization), String> {
    let config = &recording["config"];
    let size = |name: &str| {
        config[name]
            .as_i64()
            .ok_or(format!("the recording's config has no {name}"))
    };
    let (names, [width, inner, depth, heads]) = match recording["model_type"].as_str() {
        Some("Bert") => (
            &BERT,
            [
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
            ],
        ),
        Some("DistilBert") => (&DISTILBERT, ["dim", "hidden_dim", "n_layers", "n_heads"]),
        other => return Err(format!("no text encoder is called {other:?}")),
    };
    let config = Config {
        names,
        width: size(width)?,
        inner: size(inner)?,
        depth: size(depth)?,
        heads: size(heads)?,
    };
    let tokenization = Tokenization {
        vocabulary: size("vocab_size")? as u32,
        max_tokens: size("max_position_embeddings")? as u32,
    };
    Ok((config, tokenization))
}

/// Side of the images that a recorded ViT's positions are for; other weights fit any.
fn stored_side(architecture: &Architecture, recording: &Value) -> i64 {
    let usual = i64::from(architecture.input.image().unwrap().input_size);
    let grid = recording["state_dict"]["pos_embed"][1]
        .as_i64()
        .map(|tokens| tokens.isqrt());
    match (grid, architecture.patch()) {
        (Some(grid), Some(patch)) => grid * i64::from(patch),
        _ => usual,
    }
}

/// Names, shapes and order, but for BatchNorm's counters, which nothing reads.
fn same_state_dict(named: &[(String, Tensor)], recorded: &Value) -> Result<(), String> {
    let recorded = recorded
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    let recorded: Vec<(String, Value)> = recorded
        .map(|(name, shape)| (name.clone(), shape.clone()))
        .collect();
    let ours: Vec<(String, Value)> = named
        .iter()
        .map(|(name, tensor)| (name.clone(), serde_json::json!(tensor.size())))
        .collect();
    match ours
        .iter()
        .zip(&recorded)
        .find(|(ours, recorded)| ours != recorded)
    {
        Some((ours, recorded)) => Err(format!(
            "state dict: {ours:?} where the reference has {recorded:?}"
        )),
        None if ours.len() != recorded.len() => {
            Err(format!("{} tensors for {}", ours.len(), recorded.len()))
        }
        None => Ok(()),
    }
}

fn compare(what: &str, found: &Tensor, recording: &Value, key: &str) -> Result<(), String> {
    let norms = recording[format!("{key}_l2")].as_array().unwrap();
    for (i, norm) in norms.iter().enumerate() {
        let first = &recording[format!("{key}_first8")][i];
        numbers::compare(
            &format!("{what} of image {i}"),
            &found.get(i as i64),
            first,
            norm.as_f64().unwrap(),
        )?;
    }
    Ok(())
}

/// The list of `GET /v1/models/{id}/layers` covers every tensor once, and every stage has
/// parameters.
#[test]
fn layers_cover_the_backbone() {
    for architecture in registry::all() {
        let layers = registry::layers(architecture, &architecture.input);
        let names: std::collections::BTreeSet<&str> = layers
            .tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(names.len(), layers.tensors.len(), "{}", architecture.name);
        let stem = layers
            .tensors
            .iter()
            .find(|tensor| tensor.name == architecture.stem);
        let reads = match &architecture.input {
            Input::Image(_) => (1, 3),
            Input::Text(text) => (0, text.vocabulary),
        };
        assert_eq!(
            stem.unwrap().shape[reads.0],
            reads.1,
            "{}",
            architecture.name
        );
        let mut blocks = std::collections::BTreeSet::new();
        for stage in &layers.stages {
            assert!(stage.parameters > 0, "{} {}", architecture.name, stage.name);
            for block in &stage.blocks {
                // A name means one block, or the stage that is made of it.
                assert!(blocks.insert(block), "{block} of {}", stage.name);
                let mut others = layers
                    .stages
                    .iter()
                    .filter(|other| other.name != stage.name);
                assert!(others.all(|other| other.name != *block), "{block}");
            }
        }
        for tensor in &layers.tensors {
            let stage = layers
                .stages
                .iter()
                .find(|stage| stage.name == tensor.stage)
                .unwrap();
            assert!(
                stage.blocks.contains(&tensor.block) || tensor.block == stage.name,
                "{}",
                tensor.name
            );
        }
        let vs = nn::VarStore::new(Device::Cpu);
        let backbone = architecture.build(&vs.root(), &architecture.input);
        assert_eq!(vs.len(), layers.tensors.len(), "{}", architecture.name);
        assert_eq!(
            backbone.stages.last().unwrap().channels,
            i64::from(architecture.feature_dim)
        );
    }
}

/// A BatchNorm that does not train keeps its statistics and does not look at the batch, whatever
/// the mode.
#[test]
fn frozen_batch_norm_never_moves() {
    let architecture = registry::find("resnet18").unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), &architecture.input);
    numbers::fill(&backbone.named());
    for entry in backbone.tensors() {
        let _ = entry
            .tensor
            .set_requires_grad(entry.trainable && entry.stage == "layer4");
    }
    let before: Vec<(String, Tensor)> = backbone
        .named()
        .into_iter()
        .map(|(name, t)| (name, t.copy()))
        .collect();
    let images = numbers::images("input", &[4, 3, 64, 64]);
    let statistics = Statistics::default();
    let features = backbone.forward(&images, 0, Norm::Batch(&statistics));
    Statistics::keep([statistics]);
    assert!(features.requires_grad());
    for ((name, before), (_, after)) in before.iter().zip(backbone.named()) {
        let moves = name.starts_with("layer4") && name.contains("running_");
        assert_eq!(*before != after, moves, "{name}");
    }
    // The frozen part gives each image what it gives it alone.
    let together = backbone.forward_until(&images, 4);
    let alone = backbone.forward_until(&images.narrow(0, 1, 1), 4);
    let error = (together.narrow(0, 1, 1) - &alone)
        .abs()
        .max()
        .double_value(&[]);
    assert!(
        error <= 1e-5 * alone.abs().max().double_value(&[]),
        "{error}"
    );
}
