//! The bundle: a fine-tuned model as a folder that stands alone. timm loads its weights with
//! `strict=True`, unless the backbone is cut or the head has layers that timm's has not; the golden
//! file says which logits come out for which input, and another process checks that (`golden`)
//! before anyone relies on the bundle.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::{
    bundle::{Bundle, CARD, CONFIG, FOLDER, GOLDEN, LABELS, METRICS, MODEL, PREPROCESS},
    folder::write_folder,
    model_card::card,
};
use crate::{
    data::source::BatchSource,
    domain::base_model::Preprocessing,
    models::weights,
    process::{error::TrainError, json},
    train::{eval::metrics::OutputDecoding, input::preparation::Preparation},
};

/// Inputs in the golden file.
const GOLDEN_SAMPLES: usize = 4;

/// Writes `job_folder/bundle`, whole or not at all.
///
/// # Errors
/// `Io`, `Data` for a sample that cannot be decoded.
pub fn export(job_folder: &Path, bundle: &Bundle) -> Result<(), TrainError> {
    let place = job_folder.join(FOLDER);
    let failed = format!("cannot write the bundle {}", place.display());
    write_folder(&place, &failed, |folder| {
        write_tensors(
            &folder.join(MODEL),
            &bundle.network.tensors(),
            "the whole network",
        )?;
        json::write(&folder.join(CONFIG), &config(bundle)?)?;
        json::write(&folder.join(PREPROCESS), &bundle.run.plan.base_model.input)?;
        json::write(&folder.join(LABELS), &bundle.run.samples.classes)?;
        let metrics = json!({"best": bundle.best, "report": bundle.report});
        json::write(&folder.join(METRICS), &metrics)?;
        fs::write(folder.join(CARD), card(bundle)).map_err(TrainError::io(failed.as_str()))?;

        let inputs = golden_inputs(bundle)?;
        let logits = bundle.network.logits(&bundle.network.features(&inputs));
        let golden = [("inputs", inputs), ("logits", logits)];
        write_tensors(
            &folder.join(GOLDEN),
            &golden.map(|(name, tensor)| (name.to_owned(), tensor.contiguous())),
            "inputs [N, C, S, S] after preprocessing, logits [N, classes]",
        )
    })
}

fn golden_inputs(bundle: &Bundle) -> Result<Tensor, TrainError> {
    let Preparation {
        plan,
        samples,
        device,
        ..
    } = bundle.run;
    let pack = &samples.sources[0].pack;
    let chosen: Vec<usize> = (0..pack.len().min(GOLDEN_SAMPLES)).collect();
    let batches = BatchSource::new(&plan.base_model.input)?;
    let decoded = batches.load(pack, &chosen, plan.threads as usize)?;
    Ok(batches.collate(&decoded, device))
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
    let failed = format!("cannot write {}", path.display());
    weights::write_safetensors(path, &tensors, &metadata)
        .map_err(|error| TrainError::io(failed)(error.into()))
}

/// timm's `config.json` (as of its Hugging Face hub format), with our own facts under `rehead`.
fn config(bundle: &Bundle) -> Result<Value, TrainError> {
    let Bundle {
        run: Preparation { plan, samples, .. },
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
    let (mut temperature, mut thresholds) = (None, None);
    match decoding {
        OutputDecoding::Temperature(found) => temperature = Some(found),
        OutputDecoding::Thresholds(found) => thresholds = Some(found),
        OutputDecoding::Plain => {}
    }
    let arguments = network.architecture.model_args(&plan.base_model.input);
    let arguments: BTreeMap<_, _> = arguments.into_iter().collect();
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
