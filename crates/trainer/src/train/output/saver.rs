//! When and what a run saves: the changing tensors, the optimizer, the counters, and the best
//! tensors so far. Resuming or exporting needs one checkpoint and the base weights that it names,
//! nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use super::checkpoint::{self, Checkpoint, Identity, State, Tensors};
use crate::{
    domain::{checkpoint::Metrics, progress::Progress},
    models::lora,
    process::{error::TrainError, protocol::Reporter},
    train::{
        counters::Counters,
        input::samples::Scale,
        network::{Network, checkpoint::TARGET},
        step::optimizer::Optimizer,
    },
};

/// The least time between two saves for a new best: an epoch over cached features takes
/// milliseconds, a save more.
const BEST_EVERY: Duration = Duration::from_secs(1);
/// Folders that are kept. The parent uploads a folder right after its `Saved` line, so older ones
/// are uploaded already.
const KEEP: usize = 3;

#[derive(Debug)]
pub struct Saver {
    folder: PathBuf,
    identity: Identity,
    /// Scale of a regression's targets.
    scale: Option<Scale>,
    every: Duration,
    saved: Instant,
    unsaved_best: bool,
    kept: VecDeque<PathBuf>,
    /// The changing tensors at the best evaluation; empty before the first.
    best: Tensors,
}

impl Saver {
    pub fn new(folder: &Path, identity: Identity, scale: Option<Scale>) -> Self {
        Self {
            scale,
            folder: folder.to_owned(),
            every: Duration::from_secs(identity.recipe.checkpoint_every_seconds.into()),
            identity,
            saved: Instant::now(),
            unsaved_best: false,
            kept: VecDeque::new(),
            best: Vec::new(),
        }
    }

    /// Keeps the tensors as they are now as the best.
    pub fn keep_best(&mut self, network: &Network) {
        self.best = copies(&network.changing());
        self.unsaved_best = true;
    }

    pub fn due(&self) -> bool {
        self.saved.elapsed() >= self.every
            || (self.unsaved_best && self.saved.elapsed() >= BEST_EVERY)
    }

    /// Saves where training is now. `evaluated` is this step's evaluation, if it has one.
    ///
    /// # Errors
    /// `Diverged` when a tensor is not finite (the checkpoints before stay), `Io`.
    pub fn save(
        &mut self,
        (network, optimizer, counters): (&Network, &Optimizer, &Counters),
        evaluated: Option<Metrics>,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let mut rest = optimizer.state();
        if !counters.is_at_best() {
            let best = self.best.iter();
            rest.extend(best.map(|(name, tensor)| (best_name(name), tensor.shallow_clone())));
        }
        self.write((network, counters), &rest, evaluated, reporter)
    }

    /// Puts the best tensors into the network and saves them as the run's result: training is over.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(
        &mut self,
        network: &mut Network,
        counters: &mut Counters,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let best: BTreeMap<String, Tensor> = std::mem::take(&mut self.best).into_iter().collect();
        network.restore(&best).map_err(TrainError::Torch)?;
        counters.finished = true;
        let metrics = counters.best.as_ref().map(Metrics::from);
        self.write((network, counters), &[], metrics, reporter)
    }

    /// Puts a checkpoint's state into a run that is about to go on from it; an epoch has
    /// `epoch_steps` steps.
    ///
    /// # Errors
    /// `Checkpoint` when it does not fit.
    pub fn resume(
        &mut self,
        saved: Checkpoint,
        network: &mut Network,
        optimizer: &mut Optimizer,
        epoch_steps: u64,
    ) -> Result<(), TrainError> {
        let Checkpoint {
            folder,
            state,
            model,
            optimizer: rest,
        } = saved;
        let unfit = |reason: String| TrainError::Checkpoint {
            folder: folder.clone(),
            reason,
        };
        let counters = &state.counters;
        let recipe = &self.identity.recipe;
        optimizer.enter_phases(network, recipe, counters.epoch, epoch_steps)?;
        network.restore(&model).map_err(unfit)?;
        if counters.finished {
            return Ok(());
        }
        optimizer.restore(&rest).map_err(unfit)?;
        if counters.best.is_some() {
            self.best = copies(&network.changing());
            if !counters.is_at_best() {
                for (name, tensor) in &mut self.best {
                    let name = best_name(name);
                    let saved = rest.get(&name).filter(|best| best.size() == tensor.size());
                    let saved = saved.ok_or_else(|| unfit(format!("has no tensor `{name}`")))?;
                    *tensor = saved.copy();
                }
            }
        }
        Ok(())
    }

    /// Saves `counters` and the changing tensors; `rest` is what only resuming needs.
    fn write(
        &mut self,
        (network, counters): (&Network, &Counters),
        rest: &[(String, Tensor)],
        metrics: Option<Metrics>,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let begun = Instant::now();
        let step = counters.step;
        let best = counters.finished || counters.is_at_best();
        let model = copies(&network.changing());
        if !all_finite(&model) {
            return Err(TrainError::Diverged { step });
        }
        let state = State {
            identity: self.identity.clone(),
            counters: counters.clone(),
        };
        let metadata = self.metadata(network, counters);
        let written = checkpoint::save(&self.folder, &state, &model, &metadata, rest)?;
        let folder = written.folder.strip_prefix(&self.folder);
        reporter.send(&Progress::Saved {
            step,
            epoch: metrics.map_or(counters.epoch, |metrics| metrics.epoch),
            folder: folder.unwrap_or(&written.folder).to_owned(),
            bytes: written.bytes,
            manifest_sha256: written.manifest_sha256,
            metrics,
            best,
            stall_ms: begun.elapsed().as_millis() as u64,
        });
        self.saved = Instant::now();
        self.unsaved_best &= !best;
        self.kept.retain(|folder| *folder != written.folder);
        self.kept.push_back(written.folder);
        while self.kept.len() > KEEP {
            // A folder that stays costs only disk space; the whole job folder is deleted in the
            // end.
            let _ = self.kept.pop_front().map(fs::remove_dir_all);
        }
        Ok(())
    }

    /// The metadata of `model.safetensors`, for readers of that file alone.
    fn metadata(&self, network: &Network, counters: &Counters) -> BTreeMap<String, String> {
        let adapter = self.identity.recipe.adapter.as_ref();
        let contents = match adapter {
            Some(_) => {
                "adapters and head; a layer's weight is that of the weights that training started from plus lora_scale * lora_B @ lora_A, and all others are as they were"
            }
            None if network.changes_wholly() => "the whole network",
            None => {
                "trained tensors only; all others are those of the weights that training started from"
            }
        };
        let labels =
            serde_json::to_string(&self.identity.labels).expect("labels are text: this is a bug");
        let scale = adapter.map(|adapter| (lora::SCALE, format!("{:?}", adapter.scale())));
        let [mean, std] = TARGET;
        let target = self.scale.map(|scale| {
            let numbers = [(mean, scale.mean), (std, scale.std)];
            numbers.map(|(name, number)| (name, format!("{number:?}")))
        });
        [
            ("format", "pt".to_owned()),
            ("architecture", self.identity.architecture.clone()),
            (
                "base_weights_sha256",
                self.identity.base_weights_sha256.clone(),
            ),
            ("parents_sha256", self.identity.parents_sha256.join(" ")),
            ("contents", contents.to_owned()),
            ("labels", labels),
            ("step", counters.step.to_string()),
        ]
        .into_iter()
        .chain(scale)
        .chain(target.into_iter().flatten())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// The name in `optimizer.safetensors` of a best tensor that is not the model's.
fn best_name(name: &str) -> String {
    format!("best.{name}")
}

fn copies(tensors: &[(String, Tensor)]) -> Tensors {
    tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_device(Device::Cpu).copy()))
        .collect()
}

fn all_finite(tensors: &[(String, Tensor)]) -> bool {
    tensors.iter().all(|(_, tensor)| {
        tensor.kind() != Kind::Float || tensor.isfinite().all().int64_value(&[]) == 1
    })
}
