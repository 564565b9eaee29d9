//! What an epoch reads, made once: features where the whole backbone is frozen, otherwise decoded pixels. No image is
//! decoded, and no frozen backbone is run, once per epoch.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::{
    error::TrainError,
    features, memory,
    mix::Mix,
    network::Network,
    pixels::{self, Form, Pixels},
    protocol::{Reporter, Stop},
    samples::Samples,
    views::Views,
};
use crate::{
    data::batch::normalize,
    domain::{
        augmentation::Augmentation, base_model::Preprocessing, progress::Progress, work::TrainPlan,
    },
};

/// Samples of one evaluation batch, unless memory runs out. Part of what an evaluation is to the last bit.
const EVALUATION_PIXELS: usize = 32;
const EVALUATION_FEATURES: usize = 4096;

/// What samples are prepared from.
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    pub plan: &'a TrainPlan,
    pub samples: &'a Samples,
    pub device: Device,
    pub stop: &'a Stop,
}

/// The prepared samples of a run, by sample number.
#[derive(Debug)]
pub enum Inputs {
    Features(Features),
    Pixels {
        /// What the evaluation sees of each source in turn.
        sources: Vec<Pixels>,
        /// How training alters the first source's images, and the whole ones where it crops from them.
        views: Option<Box<(Views, Option<Pixels>)>>,
        preprocessing: Preprocessing,
        device: Device,
        threads: usize,
        /// Samples of one evaluation batch.
        evaluation: Cell<usize>,
    },
}

/// Features of the run's samples, computed ahead.
#[derive(Debug)]
pub struct Features {
    /// f32 [samples, feature_dim] on the device: of what the evaluation sees, by sample number; then of each view of the
    /// training samples in turn.
    table: Tensor,
    views: usize,
    /// Of each training sample, its place among them.
    places: HashMap<usize, usize>,
}

impl Features {
    /// Of a run's samples by the backbone as it was loaded, which it must still be: found or kept in the cache, whatever trains
    /// later. `None` when a stop was asked for.
    ///
    /// # Errors
    /// As `Inputs::prepare`.
    pub fn at_start(
        run: &Preparation<'_>,
        network: &Network,
        say: &mut Reporter,
    ) -> Result<Option<Self>, TrainError> {
        make_cache(run.plan)?;
        let mut meter = Meter::new(say, run.samples.len());
        let table = features::of_samples(run, network, &mut meter)?;
        Ok(table.map(Self::from))
    }

    /// Features [N, feature_dim] of these samples, as the evaluation sees them.
    pub fn of(&self, samples: &[usize]) -> Tensor {
        select(&self.table, samples)
    }

    /// The rows that epoch `epoch` (from 1) trains on: each view's turn comes again after the others'.
    fn train_rows(&self, samples: &[usize], epoch: u32) -> Vec<usize> {
        if self.views == 0 {
            return samples.to_vec();
        }
        let plain = self.table.size()[0] as usize - self.views * self.places.len();
        let view = (epoch as usize - 1) % self.views;
        let start = plain + view * self.places.len();
        samples
            .iter()
            .map(|sample| start + self.places[sample])
            .collect()
    }
}

/// Features [samples, feature_dim] that nothing alters.
impl From<Tensor> for Features {
    fn from(table: Tensor) -> Self {
        Self {
            table,
            views: 0,
            places: HashMap::new(),
        }
    }
}

/// Samples that run through the network together in training.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub samples: &'a [usize],
    /// From 1.
    pub epoch: u32,
    /// Of the run, from 1: keys dropout.
    pub number: u64,
    /// How they are joined, and each one's partner.
    pub mixed: Option<(&'a Mix, &'a [usize])>,
}

/// What a cache entry depends on; its hash is the entry's name. Threads and device are in it because they decide the
/// last bits, and a resumed run must find the bits it began with.
#[derive(Debug, Serialize)]
pub struct CacheKey<'a> {
    pub what: &'a str,
    /// Of the code that makes the entry; raised when that code's results change.
    pub version: u32,
    pub pack_sha256: &'a str,
    pub preprocessing: &'a Preprocessing,
    /// Weights, architecture, cut, device kind, threads and samples of a batch, where a backbone ran.
    pub backbone: Option<(&'a str, &'a str, &'a str, &'a str, u32, usize)>,
    /// Where training samples were altered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<View<'a>>,
}

/// What an altered view of the training samples depends on.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    pub augmentation: Option<&'a Augmentation>,
    /// Of the code that alters.
    pub version: u32,
    pub seed: u64,
    pub number: u32,
    /// Whether the pack's validation split trains too.
    pub validates_elsewhere: bool,
}

impl CacheKey<'_> {
    /// Lower-case hex.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).expect("a key is plain data: this is a bug");
        hex::encode(Sha256::digest(text))
    }
}

/// Says how far a long preparation is, a few times a second.
pub struct Meter<'a> {
    say: &'a mut Reporter,
    total: u64,
    done: u64,
    /// Samples that were computed, not found; they make the speed.
    computed: u64,
    started: Instant,
    said: Instant,
}

impl<'a> Meter<'a> {
    pub fn new(say: &'a mut Reporter, total: usize) -> Self {
        let now = Instant::now();
        Self {
            say,
            total: total as u64,
            done: 0,
            computed: 0,
            started: now,
            said: now,
        }
    }

    /// Takes back what was counted, for a preparation that begins again.
    pub fn begin_again(&mut self, progress: &Progress) {
        self.say.say(progress);
        (self.done, self.computed) = (0, 0);
    }

    pub fn found(&mut self, samples: usize) {
        self.done += samples as u64;
    }

    pub fn computed(&mut self, samples: usize) {
        self.done += samples as u64;
        self.computed += samples as u64;
        self.say.usage.prepared_samples += samples as u64;
        if self.said.elapsed() >= Duration::from_millis(250) || self.done == self.total {
            let samples_per_second =
                self.computed as f64 / self.started.elapsed().as_secs_f64().max(1e-6);
            self.say.say(&Progress::Fraction {
                done: self.done,
                total: self.total,
                samples_per_second,
            });
            self.said = Instant::now();
        }
    }
}

fn make_cache(plan: &TrainPlan) -> Result<(), TrainError> {
    let failed = format!("cannot make the cache folder {}", plan.cache.display());
    std::fs::create_dir_all(&plan.cache).map_err(TrainError::io(failed))
}

/// Sets an entry's time to now: the least recently used are evicted first, by whoever keeps the cache.
pub fn mark_used(entry: &std::path::Path) {
    // An entry of another user keeps its time.
    if let Ok(file) = std::fs::File::open(entry) {
        let _ = file.set_modified(std::time::SystemTime::now());
    }
}

impl Inputs {
    /// Makes or finds what the network's training reads: the features that it started with while they are fixed, altered views
    /// of them where the recipe has some, otherwise pixels. `None` when a stop was asked for meanwhile; what was made so far stays
    /// in the cache.
    ///
    /// # Errors
    /// `Data` for an image that cannot be decoded, `Io` for the cache.
    pub fn prepare(
        run: &Preparation<'_>,
        network: &Network,
        start: &Features,
        say: &mut Reporter,
    ) -> Result<Option<Self>, TrainError> {
        if !network.has_fixed_features() {
            return Self::pixels(run, say);
        }
        let views = run.plan.recipe.augmented_views as usize;
        let mut parts = vec![start.table.shallow_clone()];
        if let Some(altered) = Views::of(run.plan).filter(|_| views > 0) {
            let mut meter = Meter::new(say, views * run.samples.train.len());
            let Some(altered) = altered.features(run, network, &mut meter)? else {
                return Ok(None);
            };
            parts.extend(altered);
        }
        let table = match &parts[..] {
            [plain] => plain.shallow_clone(),
            all => Tensor::cat(all, 0),
        };
        Ok(Some(Self::Features(Features {
            table: table.to_device(run.device),
            views,
            places: run.samples.train.iter().copied().zip(0..).collect(),
        })))
    }

    /// Decodes every image once, or finds its pixels in the cache.
    ///
    /// # Errors
    /// As `prepare`.
    pub fn pixels(run: &Preparation<'_>, say: &mut Reporter) -> Result<Option<Self>, TrainError> {
        let Preparation {
            plan,
            samples,
            device,
            stop,
        } = *run;
        make_cache(plan)?;
        let mut meter = Meter::new(say, samples.len());
        let mut sources = Vec::new();
        let mut views = Views::of(plan).map(|views| (views, None));
        for (number, source) in samples.sources.iter().enumerate() {
            let canvas = views.as_ref().filter(|_| number == 0);
            let canvas = canvas.and_then(|(views, _)| views.form());
            let forms: Vec<Form> = std::iter::once(Form::Square).chain(canvas).collect();
            let found = pixels::of_pack(plan, source, &forms, stop, &mut meter)?;
            let Some(mut found) = found.map(Vec::into_iter) else {
                return Ok(None);
            };
            sources.extend(found.next());
            if let Some((_, whole)) = &mut views {
                *whole = whole.take().or_else(|| found.next());
            }
        }
        Ok(Some(Self::Pixels {
            sources,
            views: views.map(Box::new),
            preprocessing: plan.base_model.preprocessing.clone(),
            device,
            threads: plan.threads as usize,
            evaluation: Cell::new(EVALUATION_PIXELS),
        }))
    }

    /// Whether this is what the network reads in its present phase.
    pub fn fit(&self, network: &Network) -> bool {
        matches!(self, Self::Features(_)) == network.has_fixed_features()
    }

    /// Side of the images that are joined in training, in pixels; `None` where features are: while the whole backbone is frozen.
    pub fn mixed_side(&self, network: &Network) -> Option<u32> {
        match self {
            Self::Pixels { preprocessing, .. } if !network.is_backbone_frozen() => {
                Some(preprocessing.input_size)
            }
            _ => None,
        }
    }

    /// Features [N, feature_dim] of a batch, as training sees them.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read.
    pub fn features_train(
        &self,
        network: &Network,
        batch: Batch<'_>,
    ) -> Result<Tensor, TrainError> {
        let read = match batch.mixed {
            None => self.read_train(network, batch.samples, batch)?,
            Some((mix, partners)) => {
                // A partner is read once, also where it is in the batch itself.
                let mut all = batch.samples.to_vec();
                let mut places: HashMap<usize, usize> = all.iter().copied().zip(0..).collect();
                let partners = partners.iter().map(|&partner| {
                    *places.entry(partner).or_insert_with(|| {
                        all.push(partner);
                        all.len() - 1
                    })
                });
                let partners: Vec<usize> = partners.collect();
                let read = self.read_train(network, &all, batch)?;
                let ours = read.narrow(0, 0, batch.samples.len() as i64);
                mix.apply(&ours, &select(&read, &partners))
            }
        };
        if network.is_backbone_frozen() {
            Ok(read)
        } else {
            Ok(network.features_train(&read, batch.number))
        }
    }

    /// What is mixed, of `samples` as `batch` sees them: features [N, feature_dim] while the whole backbone is frozen, otherwise
    /// images [N, C, S, S].
    fn read_train(
        &self,
        network: &Network,
        samples: &[usize],
        batch: Batch<'_>,
    ) -> Result<Tensor, TrainError> {
        let epoch = batch.epoch;
        let images = match self {
            Self::Features(features) => {
                let rows = features.train_rows(samples, epoch);
                return Ok(select(&features.table, &rows));
            }
            Self::Pixels {
                sources,
                views: Some(views),
                preprocessing,
                device,
                ..
            } => {
                let (views, whole) = views.as_ref();
                let pixels = whole.as_ref().unwrap_or(&sources[0]);
                let images = views.images(pixels, samples, epoch)?;
                normalize(&images, preprocessing, *device)
            }
            Self::Pixels { .. } => self.images(samples)?,
        };
        if network.is_backbone_frozen() {
            Ok(network.features_train(&images, batch.number))
        } else {
            Ok(images)
        }
    }

    /// Logits [N, classes] of these samples in evaluation, f32 on the host, in batches of a fixed size: less only since
    /// memory ran out.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read, `OutOfMemory`.
    pub fn logits(&self, network: &Network, samples: &[usize]) -> Result<Vec<f32>, TrainError> {
        let parts = self.evaluate(samples, |chunk| {
            let features = match self {
                Self::Features(features) => select(&features.table, chunk),
                Self::Pixels { .. } => network.features(&self.images(chunk)?),
            };
            Ok(network.logits(&features))
        })?;
        let all = Tensor::cat(&parts, 0)
            .to_device(Device::Cpu)
            .contiguous()
            .view(-1);
        Ok(Vec::<f32>::try_from(&all)?)
    }

    /// Features [N, feature_dim] of these samples in evaluation, by the backbone as it is now. `None` when a stop was asked
    /// for.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read.
    pub fn features(
        &self,
        network: &Network,
        samples: &[usize],
        stop: &Stop,
    ) -> Result<Option<Tensor>, TrainError> {
        if let Some(features) = self.fixed_features(samples) {
            return Ok(Some(features));
        }
        let parts = self.evaluate(samples, |chunk| {
            if stop.requested() {
                return Ok(None);
            }
            Ok(Some(network.features(&self.images(chunk)?)))
        })?;
        let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
        Ok(parts.map(|parts| Tensor::cat(&parts, 0)))
    }

    /// Features [N, feature_dim] of these samples in evaluation, where they were computed ahead: while the whole backbone is frozen.
    pub fn fixed_features(&self, samples: &[usize]) -> Option<Tensor> {
        match self {
            Self::Features(features) => Some(features.of(samples)),
            Self::Pixels { .. } => None,
        }
    }

    /// Runs `work` over evaluation batches of these samples.
    fn evaluate<T>(
        &self,
        samples: &[usize],
        work: impl FnMut(&[usize]) -> Result<T, TrainError>,
    ) -> Result<Vec<T>, TrainError> {
        let mut size = match self {
            Self::Features(_) => EVALUATION_FEATURES,
            Self::Pixels { evaluation, .. } => evaluation.get(),
        };
        let parts = memory::in_batches(samples, &mut size, work);
        if let Self::Pixels { evaluation, .. } = self {
            evaluation.set(size);
        }
        parts
    }

    /// Samples of one evaluation batch, where memory ran out with the usual number.
    pub fn shrunk_evaluation(&self) -> Option<u32> {
        match self {
            Self::Pixels { evaluation, .. } if evaluation.get() < EVALUATION_PIXELS => {
                Some(evaluation.get() as u32)
            }
            _ => None,
        }
    }

    /// Images [N, C, S, S] f32 on the device.
    fn images(&self, samples: &[usize]) -> Result<Tensor, TrainError> {
        let Self::Pixels {
            sources,
            preprocessing,
            device,
            threads,
            ..
        } = self
        else {
            unreachable!("features have no images: this is a bug")
        };
        let pixels = pixels::gather(sources, samples, preprocessing, *threads)?;
        Ok(normalize(&pixels, preprocessing, *device))
    }
}

fn select(tensor: &Tensor, rows: &[usize]) -> Tensor {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    tensor.index_select(0, &Tensor::from_slice(&rows).to_device(tensor.device()))
}
