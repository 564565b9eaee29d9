//! Inputs of an epoch, prepared once: features where the whole backbone is frozen, otherwise
//! decoded pixels. No epoch decodes images or runs a frozen backbone again.

use std::{cell::Cell, collections::HashMap};

use tch::{Device, Tensor};

use super::{
    augmented_views::Views,
    cache::make_cache,
    feature_cache,
    meter::Meter,
    mix::Mix,
    pixel_cache::{self, Form, Pixels},
    preparation::Preparation,
};
use crate::{
    data::{batch::normalize, source::BatchSource},
    domain::{base_model::Preprocessing, limits::EVALUATION_BATCH},
    process::{
        error::TrainError,
        memory,
        protocol::{Interrupt, Reporter},
    },
    train::network::Network,
};

const EVALUATION_FEATURES: usize = 4096;

/// The prepared samples of a run, by sample number.
#[derive(Debug)]
pub enum Inputs {
    Features(Features),
    Pixels {
        /// Images as evaluation sees them, of each source in turn.
        sources: Vec<Pixels>,
        /// Augmentation of the first source's images, and the uncropped images where it crops from
        /// them.
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
    /// f32 [samples, feature_dim] on the device: of what the evaluation sees, by sample number;
    /// then of each view of the training samples in turn.
    table: Tensor,
    views: usize,
    /// The position of each training sample among the training samples.
    places: HashMap<usize, usize>,
}

impl Features {
    /// Computes features of a run's samples by the backbone as it was loaded, through the cache,
    /// whatever trains later. `None` when interrupted.
    ///
    /// # Errors
    /// As `Inputs::prepare`.
    pub fn at_start(
        run: &Preparation<'_>,
        network: &Network,
        reporter: &mut Reporter,
    ) -> Result<Option<Self>, TrainError> {
        make_cache(run.plan)?;
        let mut meter = Meter::new(reporter, run.samples.len());
        let table = feature_cache::of_samples(run, network, &mut meter)?;
        Ok(table.map(Self::from))
    }

    /// Features [N, feature_dim] of these samples, as the evaluation sees them.
    pub fn of(&self, samples: &[usize]) -> Tensor {
        select(&self.table, samples)
    }

    /// The rows that epoch `epoch` (from 1) trains on: each view's turn comes again after the
    /// others'.
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
    /// The number of the batch in the run, from 1; keys dropout.
    pub number: u64,
    /// Mixup or CutMix, and the partner of each sample.
    pub mixed: Option<(&'a Mix, &'a [usize])>,
}

impl Inputs {
    /// Prepares the inputs of training: features while those of the start are fixed, with augmented
    /// views where the recipe has some, otherwise pixels. `None` when interrupted; everything made
    /// so far stays in the cache.
    ///
    /// # Errors
    /// `Data` for an image that cannot be decoded, `Io` for the cache.
    pub fn prepare(
        run: &Preparation<'_>,
        network: &Network,
        start: &Features,
        reporter: &mut Reporter,
    ) -> Result<Option<Self>, TrainError> {
        if !network.has_fixed_features() {
            return Self::pixels(run, reporter);
        }
        let views = run.plan.recipe.augmented_views as usize;
        let mut parts = vec![start.table.shallow_clone()];
        if let Some(altered) = Views::of(run.plan)?.filter(|_| views > 0) {
            let mut meter = Meter::new(reporter, views * run.samples.train.len());
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
    pub fn pixels(
        run: &Preparation<'_>,
        reporter: &mut Reporter,
    ) -> Result<Option<Self>, TrainError> {
        let Preparation {
            plan,
            samples,
            device,
            interrupt,
        } = *run;
        make_cache(plan)?;
        let BatchSource::Image(preprocessing) = BatchSource::new(&plan.base_model.input)?;
        let mut meter = Meter::new(reporter, samples.len());
        let mut sources = Vec::new();
        let mut views = Views::of(plan)?.map(|views| (views, None));
        for (number, source) in samples.sources.iter().enumerate() {
            let canvas = views.as_ref().filter(|_| number == 0);
            let canvas = canvas.and_then(|(views, _)| views.form());
            let forms: Vec<Form> = std::iter::once(Form::Square).chain(canvas).collect();
            let found = pixel_cache::of_pack(plan, source, &forms, interrupt, &mut meter)?;
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
            preprocessing,
            device,
            threads: plan.threads as usize,
            evaluation: Cell::new(EVALUATION_BATCH),
        }))
    }

    /// True when the network reads these inputs in its present phase.
    pub fn fit(&self, network: &Network) -> bool {
        matches!(self, Self::Features(_)) == network.has_fixed_features()
    }

    /// Side of the images that are joined in training, in pixels; `None` where features are: while
    /// the whole backbone is frozen.
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

    /// The inputs that are mixed, of `samples` as `batch` sees them: features [N, feature_dim]
    /// while the whole backbone is frozen, otherwise images [N, C, S, S].
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

    /// Logits [N, classes] of these samples in evaluation, f32 on the host, in batches of a fixed
    /// size: less only since memory ran out.
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

    /// Features [N, feature_dim] of these samples in evaluation, by the backbone as it is now.
    /// `None` when interrupted.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read.
    pub fn features(
        &self,
        network: &Network,
        samples: &[usize],
        interrupt: &Interrupt,
    ) -> Result<Option<Tensor>, TrainError> {
        if let Some(features) = self.fixed_features(samples) {
            return Ok(Some(features));
        }
        let parts = self.evaluate(samples, |chunk| {
            if interrupt.requested() {
                return Ok(None);
            }
            Ok(Some(network.features(&self.images(chunk)?)))
        })?;
        let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
        Ok(parts.map(|parts| Tensor::cat(&parts, 0)))
    }

    /// Features [N, feature_dim] of these samples in evaluation, where they were computed ahead:
    /// while the whole backbone is frozen.
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
    pub fn reduced_evaluation(&self) -> Option<u32> {
        match self {
            Self::Pixels { evaluation, .. } if evaluation.get() < EVALUATION_BATCH => {
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
        let pixels = pixel_cache::gather(sources, samples, preprocessing, *threads)?;
        Ok(normalize(&pixels, preprocessing, *device))
    }
}

fn select(tensor: &Tensor, rows: &[usize]) -> Tensor {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    tensor.index_select(0, &Tensor::from_slice(&rows).to_device(tensor.device()))
}
