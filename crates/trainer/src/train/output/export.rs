//! The bundle: a fine-tuned model as a folder that stands alone. timm loads its weights with
//! `strict=True`, unless the backbone is cut or the head has layers that timm's has not; the golden
//! file says which logits come out for which input, and another process checks that (`golden`)
//! before anyone relies on the bundle.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use serde::Serialize;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::{
    bundle::{Bundle, CARD, CONFIG, FOLDER, GOLDEN, LABELS, METRICS, MODEL, PREPROCESS},
    model_card::card,
};
use crate::{
    data::source::BatchSource,
    domain::base_model::{Interpolation, Preprocessing},
    models::weights,
    process::error::TrainError,
    train::eval::metrics::OutputDecoding,
};

/// Inputs in the golden file.
const GOLDEN_SAMPLES: usize = 4;

/// Writes `job_folder/bundle`, whole or not at all.
///
/// # Errors
/// `Io`, `Data` for a sample that cannot be decoded.
pub fn export(job_folder: &Path, bundle: &Bundle) -> Result<(), TrainError> {
    let failed = || {
        format!(
            "cannot write the bundle {}",
            job_folder.join(FOLDER).display()
        )
    };
    let temporary = tempfile::Builder::new()
        .prefix(".bundle-")
        .tempdir_in(job_folder)
        .map_err(TrainError::io(failed()))?;
    let folder = temporary.path();
    let labels = &bundle.samples.classes;
    write_tensors(
        &folder.join(MODEL),
        &bundle.network.tensors(),
        "the whole network",
    )?;
    write_json(&folder.join(CONFIG), &config(bundle)?)?;
    write_json(&folder.join(PREPROCESS), &bundle.plan.base_model.input)?;
    write_json(&folder.join(LABELS), labels)?;
    write_json(
        &folder.join(METRICS),
        &json!({"best": bundle.best, "report": bundle.report}),
    )?;
    fs::write(folder.join(CARD), card(bundle)).map_err(TrainError::io(failed()))?;

    let inputs = golden_inputs(bundle)?;
    let logits = bundle.network.logits(&bundle.network.features(&inputs));
    let golden = [
        ("inputs".to_owned(), inputs.contiguous()),
        ("logits".to_owned(), logits.contiguous()),
    ];
    write_tensors(
        &folder.join(GOLDEN),
        &golden,
        "inputs [N, C, S, S] after preprocessing, logits [N, classes]",
    )?;

    sync(folder).map_err(TrainError::io(failed()))?;
    let place = job_folder.join(FOLDER);
    if place.exists() {
        fs::remove_dir_all(&place).map_err(TrainError::io(failed()))?;
    }
    fs::rename(temporary.keep(), &place).map_err(TrainError::io(failed()))
}

fn golden_inputs(bundle: &Bundle) -> Result<Tensor, TrainError> {
    let count = bundle.samples.sources[0].pack.len().min(GOLDEN_SAMPLES);
    let chosen: Vec<usize> = (0..count).collect();
    let batches = BatchSource::new(&bundle.plan.base_model.input)?;
    let pack = &bundle.samples.sources[0].pack;
    let decoded = batches
        .load(pack, &chosen, bundle.plan.threads as usize)
        .map_err(|error| TrainError::Data(error.to_string()))?;
    Ok(batches.collate(&decoded, bundle.device))
}

fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn write_tensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    contents: &str,
) -> Result<(), TrainError> {
    let metadata = BTreeMap::from(
        [("format", "pt"), ("contents", contents)].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_device(Device::Cpu)))
        .collect();
    weights::write_safetensors(path, &tensors, &metadata).map_err(|error| {
        TrainError::io(format!("cannot write {}", path.display()))(io::Error::other(error))
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text =
        serde_json::to_vec_pretty(value).expect("a bundle's JSON is plain data: this is a bug");
    fs::write(path, text).map_err(TrainError::io(format!("cannot write {}", path.display())))
}

/// timm's `config.json` (as of its Hugging Face hub format), with our own facts under `rehead`.
fn config(bundle: &Bundle) -> Result<Value, TrainError> {
    let Bundle {
        plan,
        samples,
        network,
        decoding,
        ..
    } = bundle;
    let BatchSource::Image(Preprocessing {
        input_size,
        channels,
        crop_fraction,
        interpolation,
        mean,
        std,
    }) = BatchSource::new(&plan.base_model.input)?;
    let interpolation = match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    };
    let (mut temperature, mut thresholds) = (None, None);
    match decoding {
        OutputDecoding::Temperature(found) => temperature = Some(found),
        OutputDecoding::Thresholds(found) => thresholds = Some(found),
        OutputDecoding::Plain => {}
    }
    let arguments = network.architecture.model_args(&plan.base_model.input);
    let arguments: serde_json::Map<String, Value> = arguments
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    Ok(json!({
        "architecture": network.architecture.name,
        "model_args": arguments,
        "num_classes": samples.outputs(),
        "num_features": network.feature_dim,
        "pretrained_cfg": {
            "tag": plan.fine_tuned_model,
            "input_size": [channels, input_size, input_size],
            "fixed_input_size": false,
            "crop_pct": crop_fraction,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
            "num_classes": samples.outputs(),
            "classifier": network.architecture.classifier,
            "label_names": samples.classes,
        },
        "rehead": {
            "model": plan.fine_tuned_model,
            "base_model": plan.base_model.id,
            "base_weights_sha256": plan.base_model.weights_sha256,
            "parents_sha256": plan.base_model.over.iter().map(|over| &over.sha256).collect::<Vec<_>>(),
            "data_sha256": plan.pack_sha256,
            "cut": plan.recipe.cut,
            "temperature": temperature,
            "thresholds": thresholds,
            "recipe": plan.recipe,
        },
    }))
}
