//! Training images augmented at random: from cached pixels in every epoch, or, under a frozen
//! backbone, as features of a few views of each sample, computed once. A view is decided by seed,
//! epoch and sample alone.

use std::path::PathBuf;

use tch::{Device, Tensor};

use super::{
    cache::View,
    feature_cache::{self, Rows, SHARD, batch_on, shard_path, threads_on},
    meter::Meter,
    pixel_cache::{Form, Pixels},
    preparation::Preparation,
};
use crate::{
    data::{
        augment::{self, Augmenter},
        batch,
        source::BatchSource,
    },
    domain::{base_model::Preprocessing, work::TrainPlan},
    process::{error::TrainError, parallel},
    train::{
        network::Network,
        rng::{Stream, sample_key},
    },
};

/// Augmentation of the images that a run trains on, all of which are in its first pack.
#[derive(Debug, Clone)]
pub struct Views {
    augmenter: Augmenter,
    seed: u64,
    preprocessing: Preprocessing,
    threads: usize,
}

impl Views {
    /// `None` where the recipe has no augmentation.
    ///
    /// # Errors
    /// `Plan` for a modality without a source of batches.
    pub fn of(plan: &TrainPlan) -> Result<Option<Self>, TrainError> {
        let Some(augmentation) = &plan.recipe.augmentation else {
            return Ok(None);
        };
        let batches = BatchSource::new(&plan.base_model.input)?;
        let augmenter = batches.augmenter(augmentation);
        let BatchSource::Image(preprocessing) = batches;
        Ok(Some(Self {
            augmenter,
            seed: plan.recipe.seed,
            preprocessing,
            threads: plan.threads as usize,
        }))
    }

    /// The form that it crops from, besides the squares of evaluation.
    pub fn form(&self) -> Option<Form> {
        let canvas = self.augmenter.canvas();
        canvas.map(|short| Form::Canvas { short })
    }

    fn key(&self, epoch: u32, sample: usize) -> u64 {
        sample_key(self.seed, Stream::Augment, epoch, sample)
    }

    /// u8 [N, S, S, C] of training samples as epoch `epoch` (from 1) sees them. `pixels` is of the
    /// form asked for, or of squares.
    ///
    /// # Errors
    /// `Io` when a file cannot be read.
    pub fn images(
        &self,
        pixels: &Pixels,
        samples: &[usize],
        epoch: u32,
    ) -> Result<Tensor, TrainError> {
        let crops = self.augmenter.canvas().is_some();
        batch::squares(
            samples,
            &self.preprocessing,
            self.threads,
            |&sample, square| {
                let key = self.key(epoch, sample);
                if !crops {
                    pixels.read(sample, square)?;
                    self.augmenter.view_of_square(key, square);
                    return Ok(());
                }
                let whole = pixels.bitmap(sample)?;
                self.augmenter.view(whole.as_view(), key, square);
                Ok(())
            },
        )
    }

    /// Features [training samples, feature_dim], f32 on the CPU, of each of the recipe's views:
    /// view v is what epoch v sees. A sample is decoded once for all views that are not in the
    /// cache.
    ///
    /// # Errors
    /// `Data` for an image that cannot be decoded, `Io` when the cache cannot be written,
    /// `Interrupted`.
    pub fn features(
        &self,
        run: &Preparation<'_>,
        network: &Network,
        meter: &mut Meter,
    ) -> Result<Vec<Tensor>, TrainError> {
        let Preparation { plan, samples, .. } = *run;
        let views = 1..=plan.recipe.augmented_views;
        let keys: Vec<String> = views
            .clone()
            .map(|view| self.cache_key(run, network, view))
            .collect();
        let mut parts: Vec<Vec<Tensor>> = keys.iter().map(|_| Vec::new()).collect();
        for (number, shard) in samples.train.chunks(SHARD).enumerate() {
            let paths = keys.iter().map(|key| shard_path(plan, key, number));
            let paths: Vec<PathBuf> = paths.collect();
            let shape = [shard.len() as i64, network.feature_dim];
            let found: Vec<Option<Tensor>> = paths
                .iter()
                .map(|path| feature_cache::find(path, shape))
                .collect();
            let pairs = views.clone().zip(&found);
            let missing: Vec<u32> = pairs
                .filter_map(|(view, found)| found.is_none().then_some(view))
                .collect();
            meter.found(shard.len() * (found.len() - missing.len()));
            let made = self.compute(run, network, (shard, &missing), meter)?;
            let mut made = made.into_iter();
            for ((path, parts), found) in paths.iter().zip(&mut parts).zip(found) {
                if let Some(found) = found {
                    parts.push(found);
                } else if let Some(made) = made.next() {
                    feature_cache::keep(path, &made)?;
                    parts.push(made);
                }
            }
        }
        Ok(parts.iter().map(|parts| Tensor::cat(parts, 0)).collect())
    }

    fn cache_key(&self, run: &Preparation<'_>, network: &Network, number: u32) -> String {
        let plan = run.plan;
        let view = View {
            augmentation: plan.recipe.augmentation.as_ref(),
            version: augment::VERSION,
            seed: self.seed,
            number,
            validates_elsewhere: plan.validation_pack.is_some(),
        };
        let source = &run.samples.sources[0];
        let size = batch_on(run.device);
        feature_cache::key(plan, source, network, run.device, (size, Rows::View(view)))
    }

    /// Features [N, feature_dim] of training samples as each of these epochs sees them.
    fn compute(
        &self,
        run: &Preparation<'_>,
        network: &Network,
        (samples, epochs): (&[usize], &[u32]),
        meter: &mut Meter,
    ) -> Result<Vec<Tensor>, TrainError> {
        if epochs.is_empty() {
            return Ok(Vec::new());
        }
        let preprocessing = &self.preprocessing;
        let Preparation {
            device, interrupt, ..
        } = *run;
        let pack = &run.samples.sources[0].pack;
        let [side, channels] = [preprocessing.input_size, preprocessing.channels].map(i64::from);
        let backbone = network.whole_backbone();
        let features = |chunk: &&[usize]| {
            let key = |epoch: &u32, sample| self.key(*epoch, sample);
            let targets = |sample, size| {
                let epochs = epochs.iter();
                epochs
                    .map(|epoch| self.augmenter.target(size, key(epoch, sample)))
                    .collect()
            };
            let mut squares = batch::resized(pack, chunk, preprocessing, 1, targets)?;
            for (&sample, squares) in chunk.iter().zip(&mut squares) {
                for (epoch, square) in epochs.iter().zip(squares) {
                    let (size, key) = (pack.size(sample), key(epoch, sample));
                    self.augmenter.view_of_target(size, key, square);
                }
            }
            let (count, views) = (chunk.len() as i64, epochs.len() as i64);
            let squares = Tensor::from_slice(&squares.concat().concat());
            let squares = squares.view([count, views, side, side, channels]);
            let of_view = |view| {
                let squares = squares.select(1, view).contiguous();
                let images = batch::normalize(&squares, preprocessing, device);
                backbone.features(&images).to_device(Device::Cpu)
            };
            Ok((0..views).map(of_view).collect::<Vec<Tensor>>())
        };
        let chunks: Vec<&[usize]> = samples.chunks(batch_on(device)).collect();
        let threads = threads_on(device, run.plan);
        let rows = parallel::each(&chunks, threads, features, |chunk| {
            meter.computed(chunk.len() * epochs.len());
            interrupt.check()
        })?;
        let of_view = |view: usize| {
            let parts: Vec<&Tensor> = rows.iter().map(|views| &views[view]).collect();
            Tensor::cat(&parts, 0)
        };
        Ok((0..epochs.len()).map(of_view).collect())
    }
}
