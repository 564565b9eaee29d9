//! Checkpoint folders: everything that another process needs to go on exactly here, or an error that says why it cannot.
//!
//! A folder appears under its name only when every byte of it is on disk (temp name, fsync, rename), and its manifest
//! holds the size and SHA-256 of every file, so a half-written or altered one is never taken for a checkpoint.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::{error::TrainError, forgetting::AtStart};
use crate::{
    domain::{
        base_model::Preprocessing,
        checkpoint::{Manifest, ManifestEntry, Metrics},
        id::JobId,
        recipe::{Metric, Recipe},
        report::Transferability,
    },
    models::weights::{self, WeightsError},
};

/// Where a job folder keeps its checkpoints, each in a folder named after its step.
pub const FOLDER: &str = "checkpoints";
/// The trained tensors under timm's names.
pub const MODEL: &str = "model.safetensors";
/// What only resuming needs: the optimizer's state, and under `best.` the best tensors where they are not the model's.
pub const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
/// Of the layout of a checkpoint folder.
const VERSION: u32 = 1;
/// Bytes of `state.json` or `manifest.json`: far above any real one.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// An f64 that JSON brings back bit for bit: written as text, because a JSON number may be read with the last bit off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// `Metrics`, to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExactMetrics {
    step: u64,
    epoch: u32,
    train_loss: Option<Exact>,
    /// All that was measured on the validation split.
    #[serde(flatten)]
    measured: BTreeMap<Metric, Exact>,
}

impl From<Metrics> for ExactMetrics {
    fn from(metrics: Metrics) -> Self {
        let all = Metric::ALL.into_iter();
        Self {
            step: metrics.step,
            epoch: metrics.epoch,
            train_loss: metrics.train_loss.map(Exact),
            measured: all
                .filter_map(|metric| Some((metric, Exact(metrics.get(metric)?))))
                .collect(),
        }
    }
}

impl From<&ExactMetrics> for Metrics {
    fn from(exact: &ExactMetrics) -> Self {
        let mut metrics = Self {
            step: exact.step,
            epoch: exact.epoch,
            train_loss: exact.train_loss.map(|Exact(loss)| loss),
            ..Self::default()
        };
        for (&metric, &Exact(value)) in &exact.measured {
            metrics.set(metric, value);
        }
        metrics
    }
}

/// What a run is, so that a checkpoint of another is refused. Floats of the recipe are not compared: they came by way of
/// JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub job: JobId,
    pub architecture: String,
    pub base_weights_sha256: String,
    /// Of the weights that the run went on from, lowest first.
    #[serde(default)]
    pub parents_sha256: Vec<String>,
    pub pack_sha256: String,
    pub validation_pack_sha256: Option<String>,
    /// In label order.
    pub labels: Vec<String>,
    pub preprocessing: Preprocessing,
    pub recipe: Recipe,
}

impl Identity {
    /// The first thing in which another run differs.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let (a, b) = (&self.recipe, &other.recipe);
        [
            (self.job == other.job, "job"),
            (self.architecture == other.architecture, "architecture"),
            (
                self.base_weights_sha256 == other.base_weights_sha256,
                "base weights",
            ),
            (
                self.parents_sha256 == other.parents_sha256,
                "parent (the model or checkpoint that it goes on from)",
            ),
            (self.pack_sha256 == other.pack_sha256, "training data"),
            (
                self.validation_pack_sha256 == other.validation_pack_sha256,
                "validation data",
            ),
            (self.labels == other.labels, "labels"),
            (a.seed == b.seed, "seed"),
            (a.trainable == b.trainable, "trained part"),
            (a.batch_size == b.batch_size, "batch size"),
            (a.n_epochs == b.n_epochs, "number of epochs"),
            (a.optimizer == b.optimizer, "optimizer"),
            (a.learning_rate == b.learning_rate, "learning rate"),
            (a.is_same_training(b), "recipe"),
        ]
        .into_iter()
        .find_map(|(same, what)| (!same).then_some(what))
    }
}

/// Where a run is: all that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Optimizer steps taken.
    pub step: u64,
    /// Of the last of them, from 1.
    pub epoch: u32,
    /// Training is over; only evaluation and export are left, and `model.safetensors` holds the best tensors.
    pub finished: bool,
    pub stopped_early: bool,
    /// Sum over the samples trained on since the last evaluation.
    #[serde(alias = "epoch_loss")]
    pub loss: Exact,
    #[serde(alias = "epoch_samples")]
    pub loss_samples: u64,
    pub best: Option<ExactMetrics>,
    /// The metric value that the next improvement is measured from.
    pub gain_from: Option<Exact>,
    pub evaluations_without_gain: u32,
    /// Samples that run together in training, since memory ran out with the recipe's `batch_size`.
    #[serde(default)]
    pub micro_batch: Option<u32>,
    /// What was known before the first step, where that was evaluated.
    #[serde(default)]
    pub at_start: Option<AtStart>,
    /// Of the features before the first step, where they were all there.
    #[serde(default)]
    pub transferability: Option<Transferability>,
}

impl Counters {
    pub fn start() -> Self {
        Self {
            step: 0,
            epoch: 0,
            finished: false,
            stopped_early: false,
            loss: Exact(0.0),
            loss_samples: 0,
            best: None,
            gain_from: None,
            evaluations_without_gain: 0,
            micro_batch: None,
            at_start: None,
            transferability: None,
        }
    }

    /// Whether there is a step to take, of `n_steps` in all.
    pub fn is_training(&self, n_steps: u64) -> bool {
        !self.finished && !self.stopped_early && self.step < n_steps
    }
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub identity: Identity,
    pub counters: Counters,
}

/// Named tensors, in a fixed order.
pub type Tensors = Vec<(String, Tensor)>;

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it was read.
    pub folder: String,
    pub state: State,
    pub model: BTreeMap<String, Tensor>,
    pub optimizer: BTreeMap<String, Tensor>,
}

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub folder: PathBuf,
    pub bytes: u64,
    pub manifest_sha256: String,
}

/// Writes the checkpoint `job_folder/checkpoints/<step>`, durably; one that is already there is replaced.
///
/// `metadata` goes into the header of `model.safetensors`.
///
/// # Errors
/// `Io`: nothing is left under the checkpoint's name then but, perhaps, the whole of it.
pub fn save(
    job_folder: &Path,
    state: &State,
    model: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
    optimizer: &[(String, Tensor)],
) -> Result<Written, TrainError> {
    let parent = job_folder.join(FOLDER);
    let folder = parent.join(state.counters.step.to_string());
    let write = || -> io::Result<(u64, String)> {
        fs::create_dir_all(&parent)?;
        let temporary = tempfile::Builder::new()
            .prefix(".saving-")
            .tempdir_in(&parent)?;
        let tensors = [
            (MODEL, model, metadata),
            (OPTIMIZER, optimizer, &BTreeMap::new()),
        ];
        for (name, tensors, metadata) in tensors {
            weights::write_safetensors(&temporary.path().join(name), tensors, metadata)
                .map_err(io_error)?;
        }
        fs::write(
            temporary.path().join(STATE),
            serde_json::to_vec_pretty(state)?,
        )?;
        let mut files = BTreeMap::new();
        for name in [MODEL, OPTIMIZER, STATE] {
            let path = temporary.path().join(name);
            File::open(&path)?.sync_all()?;
            let (bytes, sha256) = hash_file(&path)?;
            files.insert(name.to_owned(), ManifestEntry { bytes, sha256 });
        }
        let bytes: u64 = files.values().map(|entry| entry.bytes).sum();
        let manifest = serde_json::to_vec_pretty(&Manifest {
            version: VERSION,
            step: state.counters.step,
            files,
        })?;
        let mut file = File::create(temporary.path().join(MANIFEST))?;
        file.write_all(&manifest)?;
        file.sync_all()?;
        File::open(temporary.path())?.sync_all()?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(temporary.keep(), &folder)?;
        File::open(&parent)?.sync_all()?;
        Ok((
            bytes + manifest.len() as u64,
            hex::encode(Sha256::digest(&manifest)),
        ))
    };
    let (bytes, manifest_sha256) = write().map_err(TrainError::io(format!(
        "cannot save checkpoint {}",
        folder.display()
    )))?;
    Ok(Written {
        folder,
        bytes,
        manifest_sha256,
    })
}

/// Reads a checkpoint of the run `identity`, after checking every byte of it against its manifest.
///
/// # Errors
/// `Checkpoint` when it is incomplete, altered or of a later layout, `OtherRun`, `Io`, `OutOfMemory`.
pub fn load(folder: &Path, identity: &Identity) -> Result<Checkpoint, TrainError> {
    let wrong = |reason: String| TrainError::Checkpoint {
        folder: folder.display().to_string(),
        reason,
    };
    verify(folder).map_err(wrong)?;
    let state: State = read_json(&folder.join(STATE)).map_err(wrong)?;
    if let Some(what) = identity.difference(&state.identity) {
        return Err(TrainError::OtherRun {
            folder: folder.display().to_string(),
            what,
        });
    }
    let read = |name: &str| {
        weights::read_safetensors(&folder.join(name)).map_err(|error| {
            TrainError::of_weights(error, |reason| wrong(format!("{name}: {reason}")))
        })
    };
    Ok(Checkpoint {
        folder: folder.display().to_string(),
        model: read(MODEL)?,
        optimizer: read(OPTIMIZER)?,
        state,
    })
}

fn verify(folder: &Path) -> Result<(), String> {
    let manifest: Manifest = read_json(&folder.join(MANIFEST))?;
    if manifest.version != VERSION {
        return Err(format!(
            "has layout {}, this trainer reads {VERSION}",
            manifest.version
        ));
    }
    for name in [MODEL, OPTIMIZER, STATE] {
        let entry = manifest
            .files
            .get(name)
            .ok_or_else(|| format!("{MANIFEST} does not list {name}"))?;
        let (bytes, sha256) =
            hash_file(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if bytes != entry.bytes {
            return Err(format!(
                "{name} has {bytes} bytes, not the {} that were saved",
                entry.bytes
            ));
        }
        if sha256 != entry.sha256 {
            return Err(format!("{name} is not what was saved: its SHA-256 differs"));
        }
    }
    Ok(())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_JSON_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("{name}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
}

fn io_error(error: WeightsError) -> io::Error {
    match error {
        WeightsError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// Size and SHA-256 (lower-case hex) of a file.
pub fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_back_bit_for_bit() {
        for value in [
            0.1 + 0.2,
            1.0 / 3.0,
            f64::MIN_POSITIVE,
            5e-324,
            -0.0,
            1.797_693_134_862_315_7e308,
        ] {
            let text = serde_json::to_string(&Exact(value)).unwrap();
            let back: Exact = serde_json::from_str(&text).unwrap();
            assert_eq!(back.0.to_bits(), value.to_bits(), "{text}");
        }
    }

    #[test]
    fn metrics_of_every_task_come_back() {
        let mut metrics = Metrics {
            step: 3,
            epoch: 2,
            train_loss: Some(0.1 + 0.2),
            valid_loss: 1.0 / 3.0,
            ..Metrics::default()
        };
        metrics.set(Metric::ValidRmse, 0.1);
        let text = serde_json::to_string(&ExactMetrics::from(metrics)).unwrap();
        let back: ExactMetrics = serde_json::from_str(&text).unwrap();
        assert_eq!(Metrics::from(&back), metrics, "{text}");
    }
}
