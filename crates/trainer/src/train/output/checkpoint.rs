//! Checkpoint folders: everything that another process needs to resume exactly here.
//!
//! A folder appears under its name only when every byte of it is on disk (`write_folder`), and its
//! manifest holds the size and SHA-256 of every file, so a half-written or altered one is never
//! taken for a checkpoint.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::folder::write_folder;
use crate::{
    domain::{
        checkpoint::{Manifest, ManifestEntry},
        id::JobId,
        input::Input,
        recipe::Recipe,
    },
    models::weights,
    process::error::TrainError,
    train::counters::Counters,
};

/// The checkpoints of a job folder, each in a folder named after its step.
pub const FOLDER: &str = "checkpoints";
/// The trained tensors under timm's names.
pub const MODEL: &str = "model.safetensors";
/// State that only resuming needs: the optimizer's, and under `best.` the best tensors where they
/// are not the model's.
pub const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
/// Version of the layout of a checkpoint folder.
const VERSION: u32 = 1;
/// Bytes of `state.json` or `manifest.json`: far above any real one.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Identity of a run, so that a checkpoint of another one is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub job: JobId,
    pub architecture: String,
    pub base_weights_sha256: String,
    /// Hashes of the weights that the run continues from, lowest first.
    #[serde(default)]
    pub parents_sha256: Vec<String>,
    pub pack_sha256: String,
    pub validation_pack_sha256: Option<String>,
    /// In label order.
    pub labels: Vec<String>,
    pub input: Input,
    pub recipe: Recipe,
}

impl Identity {
    /// The first property in which another run differs.
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
    /// The folder it was read from.
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

/// Writes the checkpoint `job_folder/checkpoints/<step>`, durably; one that is already there is
/// replaced.
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
    let step = state.counters.step;
    let folder = job_folder.join(FOLDER).join(step.to_string());
    let write = |temporary: &Path| -> io::Result<(u64, String)> {
        let tensors = [
            (MODEL, model, metadata),
            (OPTIMIZER, optimizer, &BTreeMap::new()),
        ];
        for (name, tensors, metadata) in tensors {
            weights::write_safetensors(&temporary.join(name), tensors, metadata)?;
        }
        fs::write(temporary.join(STATE), serde_json::to_vec_pretty(state)?)?;
        let mut files = BTreeMap::new();
        for name in [MODEL, OPTIMIZER, STATE] {
            let (bytes, sha256) = hash_file(&temporary.join(name))?;
            files.insert(name.to_owned(), ManifestEntry { bytes, sha256 });
        }
        let bytes: u64 = files.values().map(|entry| entry.bytes).sum();
        let manifest = serde_json::to_vec_pretty(&Manifest {
            version: VERSION,
            step,
            files,
        })?;
        fs::write(temporary.join(MANIFEST), &manifest)?;
        Ok((
            bytes + manifest.len() as u64,
            hex::encode(Sha256::digest(&manifest)),
        ))
    };
    let failed = format!("cannot save checkpoint {}", folder.display());
    let (bytes, manifest_sha256) = write_folder(&folder, &failed, |temporary| {
        write(temporary).map_err(TrainError::io(failed.as_str()))
    })?;
    Ok(Written {
        folder,
        bytes,
        manifest_sha256,
    })
}

/// Reads a checkpoint of the run `identity`, after checking every byte of it against its manifest.
///
/// # Errors
/// `Checkpoint` when it is incomplete, altered or of a later layout, `OtherRun`, `Io`,
/// `OutOfMemory`.
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
