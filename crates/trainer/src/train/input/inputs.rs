//! Inputs of an epoch, prepared once: features where the whole backbone is frozen, otherwise
//! decoded pixels. No epoch decodes images or runs a frozen backbone again.
#![expect(
    unsafe_code,
    reason = "threads share tensors, which tch does not allow by itself"
)]

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tch::{Device, Tensor};

use super::{
    augmented_views::Views,
    cache::make_cache,
    feature_cache::CPU_BATCH,
    meter::Meter,
    mix::Mix,
    pixel_cache::{self, Form, Pixels},
    preparation::Preparation,
    samples::select,
};
use crate::{
    data::{
        batch::{normalize, pinned},
        source::BatchSource,
    },
    domain::{base_model::Preprocessing, limits::EVALUATION_BATCH},
    process::{
        error::TrainError,
        memory,
        parallel::{self, Shared},
        protocol::{Interrupt, Reporter},
    },
    train::network::Network,
};

const EVALUATION_FEATURES: usize = 4096;

/// The prepared samples of a run, by sample number.
#[derive(Debug)]
pub enum Inputs {
    Features(Features),
    Pixels(Images),
}

/// Features of the run's samples, computed ahead.
#[derive(Debug)]
pub struct Features {
    /// f32 [samples, feature_dim] on the device: of what the evaluation sees, by sample number;
    /// then of each view of the training samples in turn.
    table: Tensor,
    views: usize,
    /// The position of each training sample among the training samples.
    places: HashMap<usize, usize>,
}

impl Features {
    /// `table` has `views` views of the samples `train` behind the features of all samples.
    pub fn new(table: Tensor, views: usize, train: &[usize]) -> Self {
        Self {
            table,
            views,
            places: train.iter().copied().zip(0..).collect(),
        }
    }

    /// Reads the rows that epoch `epoch` (from 1) trains on: each view's turn comes again after the
    /// others'.
    fn train(&self, samples: &[usize], epoch: u32) -> Tensor {
        if self.views == 0 {
            return select(&self.table, samples);
        }
        let plain = self.table.size()[0] as usize - self.views * self.places.len();
        let view = (epoch as usize - 1) % self.views;
        let start = plain + view * self.places.len();
        let rows = samples.iter().map(|sample| start + self.places[sample]);
        select(&self.table, &rows.collect::<Vec<_>>())
    }
}

/// Decoded images of the run's samples.
#[derive(Debug)]
pub struct Images {
    /// As evaluation sees them, of each source in turn.
    sources: Vec<Pixels>,
    /// Augmentation of the first source's images, and the uncropped images where it crops from
    /// them.
    views: Option<Box<(Views, Option<Pixels>)>>,
    preprocessing: Preprocessing,
    device: Device,
    threads: usize,
    /// Samples of one evaluation batch.
    evaluation: AtomicUsize,
    /// Pixels that were read before their step.
    ahead: Mutex<Option<Ahead>>,
}

/// Pixels of some samples as a training epoch sees them.
#[derive(Debug)]
struct Ahead {
    samples: Vec<usize>,
    epoch: u32,
    /// u8 [N, S, S, C]
    pixels: Tensor,
}

impl Images {
    /// Images [N, C, S, S] f32 on the device, as evaluation sees them.
    fn plain(&self, samples: &[usize]) -> Result<Tensor, TrainError> {
        let pixels = self.gather(samples)?;
        Ok(normalize(&pixels, &self.preprocessing, self.device))
    }

    /// The same as u8 [N, S, S, C] on the host.
    fn gather(&self, samples: &[usize]) -> Result<Tensor, TrainError> {
        pixel_cache::gather(&self.sources, samples, &self.preprocessing, self.threads)
    }

    /// Features [N, feature_dim] of these samples, by the network as it evaluates: as the training
    /// epoch `epoch` sees them, or as evaluation does. On a CPU, each thread runs a few samples at
    /// a time.
    fn features(
        &self,
        network: &Network,
        samples: &[usize],
        epoch: Option<u32>,
    ) -> Result<Tensor, TrainError> {
        let read = |images: &Self, samples: &[usize]| match epoch {
            Some(epoch) => images.train(samples, epoch),
            None => images.plain(samples),
        };
        if !network.is_on_cpu() {
            return Ok(network.features(&read(self, samples)?));
        }
        let chunks: Vec<&[usize]> = samples.chunks(CPU_BATCH).collect();
        // SAFETY: this only reads.
        let shared = unsafe { Shared::new((self, network)) };
        let parts = parallel::map(&chunks, self.threads, |chunk| {
            let (images, network) = *shared;
            Ok(network.features(&read(images, chunk)?))
        })?;
        Ok(Tensor::cat(&parts, 0))
    }

    /// The same as epoch `epoch` (from 1) sees them.
    fn train(&self, samples: &[usize], epoch: u32) -> Result<Tensor, TrainError> {
        let ahead = self.ahead().take();
        let pixels = match ahead.filter(|one| (&*one.samples, one.epoch) == (samples, epoch)) {
            Some(ahead) => ahead.pixels,
            None => self.pixels(samples, epoch)?,
        };
        Ok(normalize(&pixels, &self.preprocessing, self.device))
    }

    /// The same before it is normalized: u8 [N, S, S, C] on the host.
    fn pixels(&self, samples: &[usize], epoch: u32) -> Result<Tensor, TrainError> {
        let Some((views, whole)) = self.views.as_deref() else {
            return self.gather(samples);
        };
        let pixels = whole.as_ref().unwrap_or(&self.sources[0]);
        views.images(pixels, samples, epoch)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples that run through the network together in training.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub samples: &'a [usize],
    /// From 1.
    pub epoch: u32,
    /// Mixup or CutMix, and the partner of each sample.
    pub mixed: Option<(&'a Mix, &'a [usize])>,
}

impl Inputs {
    /// Prepares the inputs of training: features while those of the start are fixed, with augmented
    /// views where the recipe has some, otherwise pixels. `start` is [samples, feature_dim].
    ///
    /// # Errors
    /// `Data` for an image that cannot be decoded, `Io` for the cache, `Interrupted`: everything
    /// made so far stays in the cache.
    pub fn prepare(
        run: &Preparation<'_>,
        network: &Network,
        start: &Tensor,
        reporter: &mut Reporter,
    ) -> Result<Self, TrainError> {
        if !network.has_fixed_features() {
            return Self::pixels(run, reporter);
        }
        let views = run.plan.recipe.augmented_views as usize;
        let mut table = start.shallow_clone();
        if let Some(altered) = Views::of(run.plan)?.filter(|_| views > 0) {
            let mut meter = Meter::new(reporter, views * run.samples.train.len());
            let mut parts = altered.features(run, network, &mut meter)?;
            parts.insert(0, table);
            table = Tensor::cat(&parts, 0);
        }
        let table = table.to_device(run.device);
        let features = Features::new(table, views, &run.samples.train);
        Ok(Self::Features(features))
    }

    /// Decodes every image once, or finds its pixels in the cache.
    ///
    /// # Errors
    /// As `prepare`.
    pub fn pixels(run: &Preparation<'_>, reporter: &mut Reporter) -> Result<Self, TrainError> {
        let Preparation {
            plan,
            samples,
            device,
            interrupt,
        } = *run;
        make_cache(plan)?;
        let BatchSource::Image(preprocessing) = BatchSource::new(&plan.base_model.input)?;
        let mut meter = Meter::new(reporter, samples.count());
        let mut sources = Vec::new();
        let mut views = Views::of(plan)?.map(|views| (views, None));
        for (number, source) in samples.sources.iter().enumerate() {
            let canvas = views.as_ref().filter(|_| number == 0);
            let canvas = canvas.and_then(|(views, _)| views.form());
            let forms: Vec<Form> = std::iter::once(Form::Square).chain(canvas).collect();
            let found = pixel_cache::of_pack(plan, source, &forms, interrupt, &mut meter)?;
            let mut found = found.into_iter();
            sources.extend(found.next());
            if let Some((_, whole)) = &mut views {
                *whole = whole.take().or_else(|| found.next());
            }
        }
        Ok(Self::Pixels(Images {
            sources,
            views: views.map(Box::new),
            preprocessing,
            device,
            threads: plan.threads as usize,
            evaluation: AtomicUsize::new(EVALUATION_BATCH),
            ahead: Mutex::default(),
        }))
    }

    /// Reads and augments images before epoch `epoch` (from 1) asks for them. What fails here fails
    /// again, and is reported, when it is asked for.
    pub fn read_ahead(&self, samples: &[usize], epoch: u32) {
        if let Self::Pixels(images) = self
            && let Ok(pixels) = images.pixels(samples, epoch)
        {
            *images.ahead() = Some(Ahead {
                samples: samples.to_vec(),
                epoch,
                pixels: pinned(pixels, images.device),
            });
        }
    }

    /// True when the network reads these inputs in its present phase.
    pub fn fit(&self, network: &Network) -> bool {
        matches!(self, Self::Features(_)) == network.has_fixed_features()
    }

    /// Side of the images that are joined in training, in pixels; `None` where features are: while
    /// the whole backbone is frozen.
    pub fn mixed_side(&self, network: &Network) -> Option<u32> {
        match self {
            Self::Pixels(images) if !network.is_backbone_frozen() => {
                Some(images.preprocessing.input_size)
            }
            _ => None,
        }
    }

    /// The inputs of the trained part of the network for a batch: features [N, feature_dim] while
    /// the whole backbone is frozen, otherwise images [N, C, S, S].
    ///
    /// # Errors
    /// `Io` when the cache cannot be read.
    pub fn read_train(&self, network: &Network, batch: Batch<'_>) -> Result<Tensor, TrainError> {
        let Some((mix, partners)) = batch.mixed else {
            return self.read_epoch(network, batch.samples, batch.epoch);
        };
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
        let read = self.read_epoch(network, &all, batch.epoch)?;
        let ours = read.narrow(0, 0, batch.samples.len() as i64);
        Ok(mix.apply(&ours, &select(&read, &partners)))
    }

    /// `read_train` of samples as epoch `epoch` (from 1) sees them, not mixed.
    fn read_epoch(
        &self,
        network: &Network,
        samples: &[usize],
        epoch: u32,
    ) -> Result<Tensor, TrainError> {
        match self {
            Self::Features(features) => Ok(features.train(samples, epoch)),
            Self::Pixels(images) if network.is_backbone_frozen() => {
                images.features(network, samples, Some(epoch))
            }
            Self::Pixels(images) => images.train(samples, epoch),
        }
    }

    /// Logits [N, classes] of these samples in evaluation, f32 on the host, in batches of a fixed
    /// size: less only since memory ran out.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read, `OutOfMemory`.
    pub fn logits(&self, network: &Network, samples: &[usize]) -> Result<Vec<f32>, TrainError> {
        let parts = self.evaluate(samples, |chunk| {
            let features = match self {
                Self::Features(features) => select(&features.table, chunk),
                Self::Pixels(images) => images.features(network, chunk, None)?,
            };
            Ok(network.logits(&features))
        })?;
        on_host(&parts)
    }

    /// Features [N, feature_dim] of these samples in evaluation, by the backbone as it is now.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read, `Interrupted`.
    pub fn features(
        &self,
        network: &Network,
        samples: &[usize],
        interrupt: &Interrupt,
    ) -> Result<Tensor, TrainError> {
        let images = match self {
            Self::Features(features) => return Ok(select(&features.table, samples)),
            Self::Pixels(images) => images,
        };
        let parts = self.evaluate(samples, |chunk| {
            interrupt.check()?;
            images.features(network, chunk, None)
        })?;
        Ok(Tensor::cat(&parts, 0))
    }

    /// Runs `work` over evaluation batches of these samples.
    fn evaluate<T>(
        &self,
        samples: &[usize],
        work: impl FnMut(&[usize]) -> Result<T, TrainError>,
    ) -> Result<Vec<T>, TrainError> {
        let mut size = match self {
            Self::Features(_) => EVALUATION_FEATURES,
            Self::Pixels(images) => images.evaluation.load(Ordering::Relaxed),
        };
        let parts = memory::in_batches(samples, &mut size, work);
        if let Self::Pixels(images) = self {
            images.evaluation.store(size, Ordering::Relaxed);
        }
        parts
    }

    /// Samples of one evaluation batch, where memory ran out with the usual number.
    pub fn reduced_evaluation(&self) -> Option<u32> {
        let Self::Pixels(images) = self else {
            return None;
        };
        let size = images.evaluation.load(Ordering::Relaxed);
        (size < EVALUATION_BATCH).then_some(size as u32)
    }
}

/// Rows of f32 on the host, one after the other.
///
/// # Errors
/// `Torch`, `OutOfMemory`.
pub fn on_host(parts: &[Tensor]) -> Result<Vec<f32>, TrainError> {
    let all = Tensor::cat(parts, 0).to_device(Device::Cpu).contiguous();
    Ok(Vec::<f32>::try_from(&all.view(-1))?)
}
