//! The bundle: a fine-tuned model as a folder that stands alone. timm loads its weights with `strict=True`, unless the
//! trunk is cut or the head has layers that timm's has not; the golden file says which logits come out for which input,
//! and another process checks that (`golden`) before anyone relies on the bundle.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io,
    path::Path,
};

use serde::Serialize;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::{calibration::Calibration, error::TrainError, network::Network, samples::Samples};
use crate::{
    data::batch,
    domain::{
        base_model::{Interpolation, Preprocessing},
        checkpoint::Metrics,
        cut::PRE_LOGITS,
        recipe::{Recipe, is_linear_head},
        report::{Forgetting, Report},
        work::TrainPlan,
    },
    models::weights,
};

/// The bundle's folder, in the job folder.
pub const FOLDER: &str = "bundle";
pub const MODEL: &str = "model.safetensors";
pub const CONFIG: &str = "config.json";
pub const PREPROCESS: &str = "preprocess.json";
pub const LABELS: &str = "labels.json";
const METRICS: &str = "metrics.json";
const CARD: &str = "README.md";
pub const GOLDEN: &str = "golden.safetensors";
/// Inputs in the golden file.
const GOLDEN_SAMPLES: usize = 4;

/// What a bundle is made of.
#[derive(Debug)]
pub struct Export<'a> {
    pub plan: &'a TrainPlan,
    pub samples: &'a Samples,
    /// With the best tensors in place.
    pub network: &'a Network,
    pub best: Metrics,
    pub report: &'a Report,
    /// On the report's split, of the temperature that predictions are made with.
    pub calibration: Calibration,
    pub device: Device,
}

/// Writes `job_folder/bundle`, whole or not at all.
///
/// # Errors
/// `Io`, `Data` for a sample that cannot be decoded.
pub fn export(job_folder: &Path, export: &Export) -> Result<(), TrainError> {
    let failed = "cannot write the bundle";
    let temporary = tempfile::Builder::new()
        .prefix(".bundle-")
        .tempdir_in(job_folder)
        .map_err(TrainError::io(failed))?;
    let folder = temporary.path();
    let labels = &export.samples.classes;
    write_tensors(
        &folder.join(MODEL),
        &export.network.tensors(),
        "the whole network",
    )?;
    write_json(&folder.join(CONFIG), &config(export))?;
    write_json(
        &folder.join(PREPROCESS),
        &export.plan.base_model.preprocessing,
    )?;
    write_json(&folder.join(LABELS), labels)?;
    write_json(
        &folder.join(METRICS),
        &json!({"best": export.best, "report": export.report, "calibration": export.calibration}),
    )?;
    fs::write(folder.join(CARD), card(export)).map_err(TrainError::io(failed))?;

    let inputs = golden_inputs(export)?;
    let logits = export.network.logits(&export.network.features(&inputs));
    let golden = [
        ("inputs".to_owned(), inputs.contiguous()),
        ("logits".to_owned(), logits.contiguous()),
    ];
    write_tensors(
        &folder.join(GOLDEN),
        &golden,
        "inputs [N, 3, S, S] after preprocessing, logits [N, classes]",
    )?;

    sync(folder).map_err(TrainError::io(failed))?;
    let place = job_folder.join(FOLDER);
    if place.exists() {
        fs::remove_dir_all(&place).map_err(TrainError::io(failed))?;
    }
    fs::rename(temporary.keep(), &place).map_err(TrainError::io(failed))
}

fn golden_inputs(export: &Export) -> Result<Tensor, TrainError> {
    let count = export.samples.sources[0].pack.len().min(GOLDEN_SAMPLES);
    let chosen: Vec<usize> = (0..count).collect();
    let preprocessing = &export.plan.base_model.preprocessing;
    let pixels = batch::load(
        &export.samples.sources[0].pack,
        &chosen,
        preprocessing,
        export.plan.threads as usize,
    )
    .map_err(|error| TrainError::Data(error.to_string()))?;
    Ok(batch::normalize(&pixels, preprocessing, export.device))
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
    weights::write_safetensors(path, &tensors, &metadata)
        .map_err(|error| TrainError::io("cannot write the bundle")(io::Error::other(error)))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text =
        serde_json::to_vec_pretty(value).expect("a bundle's JSON is plain data: this is a bug");
    fs::write(path, text).map_err(TrainError::io("cannot write the bundle"))
}

/// timm's `config.json` (as of its Hugging Face hub format), with our own facts under `rehead`.
fn config(export: &Export) -> Value {
    let Export {
        plan,
        samples,
        network,
        calibration,
        ..
    } = export;
    let Preprocessing {
        input_size,
        crop_fraction,
        interpolation,
        mean,
        std,
    } = &plan.base_model.preprocessing;
    let interpolation = match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    };
    json!({
        "architecture": network.architecture.name,
        "num_classes": samples.classes.len(),
        "num_features": network.feature_dim,
        "pretrained_cfg": {
            "tag": plan.fine_tuned_model,
            "input_size": [3, input_size, input_size],
            "fixed_input_size": false,
            "crop_pct": crop_fraction,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
            "num_classes": samples.classes.len(),
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
            "temperature": calibration.temperature,
            "recipe": plan.recipe,
        },
    })
}

/// The model card, in the Hugging Face hub's form.
fn card(export: &Export) -> String {
    let Export {
        plan,
        samples,
        report,
        best,
        ..
    } = export;
    let source = &plan.base_model.source_task;
    let [low, high] = report.accuracy_interval.map(|share| share * 100.0);
    let dataset = source
        .dataset
        .as_deref()
        .unwrap_or("data that its publisher did not name");
    let trained = match plan.recipe.trainable.len() {
        0 => "the trunk kept its weights, only a new head was trained".to_owned(),
        count => format!("{count} tensors of the trunk and a new head were trained"),
    };
    let mut card = format!(
        "---\nlibrary_name: timm\npipeline_tag: image-classification\n---\n\n# {name}\n\n\
         `{base}` ({architecture}, {task} on {dataset}), fine-tuned to tell {classes} classes apart: {trained}.\n\n\
         Accuracy on {samples} samples of the {split} split: **{accuracy:.1} %** (95 % interval {low:.1} to {high:.1} %), \
         against {majority:.1} % for always answering the commonest class. Chosen after epoch {epoch}.\n\n\
         | class | precision | recall | samples |\n|---|---|---|---|\n",
        name = plan.fine_tuned_model,
        base = plan.base_model.id,
        architecture = plan.base_model.architecture,
        task = source.name,
        classes = samples.classes.len(),
        samples = report.samples,
        split = match report.split {
            crate::domain::file::Split::Train => "training",
            crate::domain::file::Split::Validation => "validation",
            crate::domain::file::Split::Test => "test",
        },
        accuracy = report.accuracy * 100.0,
        majority = report.majority_baseline * 100.0,
        epoch = best.epoch,
    );
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    for class in &report.classes {
        let name = class.name.replace('|', "\\|").replace(['\n', '\r'], " ");
        let (precision, recall) = (percent(class.precision), percent(class.recall));
        let _ = writeln!(
            card,
            "| {name} | {precision} | {recall} | {} |",
            class.support
        );
    }
    if let Some(forgetting) = &report.forgetting {
        card.push_str(&known_before(forgetting));
    }
    let Calibration {
        temperature,
        log_loss_before,
        log_loss_after,
        ece_before,
        ece_after,
    } = export.calibration;
    let _ = write!(
        card,
        "\nProbabilities are softmax(logits / {temperature:.4}); that temperature was fitted on the validation split and is in \
         `config.json` under `rehead`. It takes the calibration error (15 bins) from {ece_before:.4} to {ece_after:.4} and the log \
         loss from {log_loss_before:.4} to {log_loss_after:.4} nats; the predicted class stays.\n",
    );
    if plan.recipe.cut != PRE_LOGITS || !is_linear_head(&plan.recipe.head.layers) {
        card.push_str(&own_form(&plan.recipe));
        return card;
    }
    let _ = write!(
        card,
        "\n## Use\n\n```python\nimport json, timm\nfrom safetensors.torch import load_file\n\n\
         labels = json.load(open(\"labels.json\"))\n\
         model = timm.create_model(\"{}\", num_classes=len(labels))\n\
         model.load_state_dict(load_file(\"model.safetensors\"), strict=True)\nmodel.eval()\n```\n\n\
         `preprocess.json` says how an image becomes the input, `golden.safetensors` holds inputs and the logits, before \
         any temperature, that must come out.\n",
        plan.base_model.architecture,
    );
    card
}

/// What became of the classes that the model knew which this one went on from.
fn known_before(forgetting: &Forgetting) -> String {
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    let mut text = format!(
        "\nIt went on from a model that knew {} of these classes. On the {} validation samples of those, accuracy was {} before \
         and is {} after:\n\n| class | recall before | recall after | samples |\n|---|---|---|---|\n",
        forgetting.classes.len(),
        forgetting.samples,
        percent(forgetting.accuracy_before),
        percent(forgetting.accuracy_after),
    );
    for class in &forgetting.classes {
        let name = class.name.replace('|', "\\|").replace(['\n', '\r'], " ");
        let (before, after) = (percent(class.recall_before), percent(class.recall_after));
        let _ = writeln!(text, "| {name} | {before} | {after} | {} |", class.support);
    }
    text
}

/// How to use a model that is not one of timm's: cut earlier, or with more layers in its head.
fn own_form(recipe: &Recipe) -> String {
    let mut text = "\n## Use\n\ntimm has no model of this form, so that its `load_state_dict` does not take all of \
        `model.safetensors`: `config.json` says how it is built, and the tensors of the trunk have timm's names.\n"
        .to_owned();
    if recipe.cut != PRE_LOGITS {
        let _ = write!(
            text,
            "\nThe trunk ends after stage `{}`; its features are the mean over the places of that \
             stage's output, or the class token of a network that has one.\n",
            recipe.cut
        );
    }
    if !is_linear_head(&recipe.head.layers) {
        text.push_str(
            "\nThe head is a `torch.nn.Sequential` of the layers in `rehead.recipe.head.layers` and a last linear one: its \
             tensors are `head.N.*`, N being a layer's place.\n",
        );
    }
    text.push_str(
        "\n`preprocess.json` says how an image becomes the input, `golden.safetensors` holds inputs and the logits that must \
         come out.\n",
    );
    text
}
