//! A bundle in memory, ready to predict.

use std::{fs, path::Path};

use serde::Deserialize;
use tch::{Device, Kind, Tensor, nn};

use crate::{
    data::source::BatchSource,
    domain::{
        input::Input,
        recipe::{self, Task},
        work::{CHECKPOINT_MODEL, CheckpointModel, ImageOutcome, PlanModel},
    },
    models::{head::Head, inference::Extractor, registry, weights},
    process::{error::TrainError, json},
    train::{
        eval::metrics::{OutputDecoding, calibration::TEMPERATURES, multi::sigmoid},
        network::{checkpoint, cut_at},
        output::{
            bundle::{CONFIG, LABELS, MODEL, PREPROCESS},
            checkpoint::hash_file,
        },
    },
};

/// Pixels of one image (width times height), as for images of a data set by default.
const MAX_PIXELS: u64 = crate::domain::limits::IMAGE_PIXELS;
/// A bundle, ready to predict.
#[derive(Debug)]
pub struct Bundle {
    device: Device,
    /// Its id; `None` for a checkpoint.
    model: Option<String>,
    task: Task,
    labels: Vec<String>,
    extractor: Extractor,
    head: Head,
    decoding: OutputDecoding,
    input: Input,
    batches: BatchSource,
}

/// The part of `config.json` that loading needs.
#[derive(Deserialize)]
struct Config {
    architecture: String,
    rehead: RunFacts,
}

#[derive(Deserialize)]
struct RunFacts {
    model: Option<String>,
    cut: String,
    recipe: RecipeFacts,
    /// Present for single-label classification, except in bundles from before temperatures.
    temperature: Option<f64>,
    /// Present for multi-label classification.
    thresholds: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct RecipeFacts {
    task: Task,
    head: recipe::Head,
}

impl Bundle {
    /// Loads a bundle folder, or that of a checkpoint, to a device, strictly.
    ///
    /// # Errors
    /// `Io`; `Plan` for an architecture that is not here; `Weights` for a file that does not fit
    /// it.
    pub fn load(folder: &Path, device: Device) -> Result<Self, TrainError> {
        let checkpoint = folder.join(CHECKPOINT_MODEL);
        if checkpoint.exists() {
            return Self::load_checkpoint(folder, json::read(&checkpoint)?, device);
        }
        let config: Config = json::read(&folder.join(CONFIG))?;
        let labels: Vec<String> = json::read(&folder.join(LABELS))?;
        let decoding = read_as(&config.rehead, labels.len())?;
        let architecture = registry::find(&config.architecture).ok_or_else(|| {
            TrainError::Plan(format!(
                "{CONFIG}: `architecture` is `{}`, which this trainer does not know; use the version that exported the bundle",
                config.architecture
            ))
        })?;
        let mut vs = nn::VarStore::new(device);
        let input: Input = json::read(&folder.join(PREPROCESS))?;
        let batches = BatchSource::new(&input)?;
        let mut backbone = architecture.build(&vs.root(), &input);
        let feature_dim = cut_at(&mut backbone, architecture, &config.rehead.cut)?;
        let recipe = &config.rehead.recipe.head;
        let outputs = match decoding {
            OutputDecoding::Plain => 1,
            _ => labels.len() as u32,
        };
        // Its first weights do not matter: all are loaded.
        let head = Head::new(&vs.root(), recipe, feature_dim as u32, outputs, 0);

        let mut tensors = backbone.named();
        tensors.extend(head.named_as(architecture.classifier));
        let path = folder.join(MODEL);
        let saved = weights::read_safetensors(&path)
            .map_err(|error| TrainError::of_weights(error, TrainError::Weights))?;
        weights::load_strict(&tensors, &saved, &[])
            .map_err(|report| TrainError::Weights(format!("{}: {report}", path.display())))?;
        // Nothing trains here, and tracing takes only tensors that cannot.
        vs.freeze();
        Ok(Self {
            device,
            model: config.rehead.model,
            task: config.rehead.recipe.task,
            labels,
            extractor: Extractor::new(&backbone),
            head,
            decoding,
            input,
            batches,
        })
    }

    /// Loads a checkpoint. Nothing is fitted on its outputs: probabilities are not calibrated, and
    /// every label's threshold is one half.
    fn load_checkpoint(
        folder: &Path,
        mut checkpoint: CheckpointModel,
        device: Device,
    ) -> Result<Self, TrainError> {
        let base = &mut checkpoint.base_model;
        base.weights = folder.join(&base.weights);
        for over in &mut base.over {
            over.weights = folder.join(&over.weights);
        }
        check_hashes(base)?;
        let mut vs = nn::VarStore::new(device);
        let (backbone, head) = checkpoint::load(&checkpoint, &vs)?;
        vs.freeze();
        let CheckpointModel {
            base_model: PlanModel { input, .. },
            task,
            labels,
            ..
        } = checkpoint;
        Ok(Self {
            device,
            model: None,
            task,
            extractor: Extractor::new(&backbone),
            head,
            decoding: match task {
                Task::SingleLabelClassification => OutputDecoding::Temperature(1.0),
                Task::MultiLabelClassification => {
                    OutputDecoding::Thresholds(vec![0.5; labels.len()])
                }
                Task::Regression => OutputDecoding::Plain,
            },
            labels,
            batches: BatchSource::new(&input)?,
            input,
        })
    }

    /// Names of classes or labels, in the order of the outputs.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The network's input.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The id of the model; `None` for a checkpoint.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub fn task(&self) -> Task {
        self.task
    }

    /// How logits become an outcome.
    pub fn decoding(&self) -> &OutputDecoding {
        &self.decoding
    }

    /// The network without its head, and the head.
    pub fn network(&self) -> (&Extractor, &Head) {
        (&self.extractor, &self.head)
    }

    /// Logits [N, classes] of images [N, C, S, S] f32.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.head.forward(&self.extractor.features(images)))
    }

    /// The outcome of each image file, in order. They run through the network together.
    ///
    /// # Errors
    /// `Torch`, `OutOfMemory`. An image that cannot be read is an outcome, not an error.
    pub(super) fn predict(&self, images: &[&Path]) -> Result<Vec<ImageOutcome>, TrainError> {
        let batches = &self.batches;
        let decoded: Vec<Result<Vec<u8>, String>> =
            images.iter().map(|path| decode(path, batches)).collect();
        let pixels: Vec<u8> = decoded.iter().flatten().flatten().copied().collect();
        let count = decoded.iter().flatten().count() as i64;
        let rows = match count {
            0 => Vec::new(),
            _ => self.read(&pixels, count)?,
        };
        let mut rows = rows.into_iter();
        let outcomes = decoded.into_iter().map(|image| match image {
            Ok(_) => rows.next().expect("a row for each image: this is a bug"),
            Err(reason) => ImageOutcome::Unreadable(reason),
        });
        Ok(outcomes.collect())
    }

    fn read(&self, pixels: &[u8], count: i64) -> Result<Vec<ImageOutcome>, TrainError> {
        let rows = self.batches.stack(pixels, count)?;
        let logits = self.logits(&self.batches.collate(&rows, self.device));
        let logits = logits.to_device(Device::Cpu);
        let outputs = self.head.bias.size()[0] as usize;
        let decoded = match &self.decoding {
            OutputDecoding::Temperature(temperature) => (logits.to_kind(Kind::Double)
                / *temperature)
                .softmax(-1, Kind::Double)
                .to_kind(Kind::Float),
            OutputDecoding::Thresholds(_) | OutputDecoding::Plain => logits,
        };
        let decoded = Vec::<f32>::try_from(&decoded.contiguous().view(-1))?;
        let outcome = |row: &[f32]| match &self.decoding {
            OutputDecoding::Temperature(_) => ImageOutcome::Probabilities(row.to_vec()),
            OutputDecoding::Thresholds(thresholds) => labels(row, thresholds),
            OutputDecoding::Plain => ImageOutcome::Value(f64::from(row[0])),
        };
        Ok(decoded.chunks_exact(outputs).map(outcome).collect())
    }
}

/// # Errors
/// `Weights` for a file that is not the one that was stored.
fn check_hashes(base: &PlanModel) -> Result<(), TrainError> {
    let over = base.over.iter().map(|over| (&over.weights, &over.sha256));
    for (path, sha256) in over.chain([(&base.weights, &base.weights_sha256)]) {
        let failed = format!("cannot read {}", path.display());
        let (_, found) = hash_file(path).map_err(TrainError::io(failed))?;
        if found != *sha256 {
            let path = path.display();
            return Err(TrainError::Weights(format!(
                "{path} is not what was stored: its SHA-256 is {found}, not {sha256}"
            )));
        }
    }
    Ok(())
}

fn labels(logits: &[f32], thresholds: &[f64]) -> ImageOutcome {
    let probabilities = logits.iter().map(|&logit| sigmoid(logit));
    let reached = probabilities.clone().zip(thresholds).enumerate();
    let reached = reached.filter(|(_, (probability, threshold))| probability >= *threshold);
    ImageOutcome::Labels {
        chosen: reached.map(|(label, _)| label).collect(),
        probabilities: probabilities.map(|one| one as f32).collect(),
    }
}

fn read_as(facts: &RunFacts, classes: usize) -> Result<OutputDecoding, TrainError> {
    let wrong = |what: String| Err(TrainError::Plan(format!("{CONFIG}: {what}")));
    match facts.recipe.task {
        Task::SingleLabelClassification => {
            let temperature = facts.temperature.unwrap_or(1.0);
            let [low, high] = TEMPERATURES;
            if !(low..=high).contains(&temperature) {
                return wrong(format!(
                    "`rehead.temperature` is {temperature}; it must be from {low} to {high}"
                ));
            }
            Ok(OutputDecoding::Temperature(temperature))
        }
        Task::MultiLabelClassification => match &facts.thresholds {
            Some(all) if all.len() == classes && all.iter().all(|at| (0.0..=1.0).contains(at)) => {
                Ok(OutputDecoding::Thresholds(all.clone()))
            }
            _ => wrong(format!(
                "`rehead.thresholds` must be {classes} numbers from 0 to 1, one a label"
            )),
        },
        Task::Regression => Ok(OutputDecoding::Plain),
    }
}

fn decode(path: &Path, batches: &BatchSource) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read the image: {error}"))?;
    batches
        .decode(&bytes, MAX_PIXELS)
        .map_err(|error| error.to_string())
}
