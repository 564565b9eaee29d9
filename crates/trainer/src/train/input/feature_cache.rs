//! The feature cache: a frozen backbone runs once for each sample. Features are cached in files
//! named by everything that they depend on, shared by epochs, attempts and jobs. A file holds a
//! fixed range of samples, so that an interrupted run continues where it was.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use super::{
    cache::{CacheKey, View, make_cache},
    meter::Meter,
    preparation::Preparation,
    samples::Source,
};
use crate::{
    data::source::BatchSource,
    domain::{
        limits::EVALUATION_BATCH,
        progress::{BatchSizePart, Progress},
        recipe::Precision,
        work::TrainPlan,
    },
    models::{
        inference::{self, Extractor},
        weights,
    },
    process::{error::TrainError, memory, parallel, protocol::Reporter},
    train::network::Network,
};

/// Version of this file and of `data::image`; raised when their results change.
const VERSION: u32 = 2;
/// Samples of one file.
pub(super) const SHARD: usize = 1024;
/// Samples that a CPU's thread runs through the backbone together. With few, what one operation
/// writes is still in the cache when the next one reads it: batches of 2 to 8 are the fastest with
/// every architecture (bench/README.md).
pub(super) const CPU_BATCH: usize = 4;
/// The tensor's name in a file.
const NAME: &str = "features";

/// Samples that run through the backbone together, unless memory runs out; a power of two, so that
/// all smaller ones divide `SHARD` too. Batches are always the same samples, so that a feature is
/// the same to the last bit whoever computes it: hence features of smaller batches have another
/// key.
pub(super) fn batch_on(device: Device) -> usize {
    match device {
        Device::Cpu => CPU_BATCH,
        _ => EVALUATION_BATCH,
    }
}

/// Threads that run the backbone, each on its own batches. One feeds a GPU.
pub(super) fn threads_on(device: Device, plan: &TrainPlan) -> usize {
    match device {
        Device::Cpu => plan.threads as usize,
        _ => 1,
    }
}

/// Features [samples, feature_dim] of a run's samples, by sample number, f32 on the CPU; the
/// network's backbone is as it was loaded, whatever trains later.
///
/// # Errors
/// `Data` for an image that cannot be decoded, `Io` when the cache cannot be written, `OutOfMemory`
/// when one image at a time is too much, `Features` when any is not finite, `Interrupted`: what was
/// computed so far stays in the cache.
pub fn of_samples(
    run: &Preparation<'_>,
    network: &Network,
    reporter: &mut Reporter,
) -> Result<Tensor, TrainError> {
    make_cache(run.plan)?;
    let mut meter = Meter::new(reporter, run.samples.count());
    let backbone = &network.whole_backbone();
    let sources = run.samples.sources.iter();
    let parts = sources.map(|source| of_pack(run, (network, backbone), source, &mut meter));
    let features = Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0);
    check(&features)?;
    Ok(features)
}

/// Features [samples, feature_dim] of some samples of the first pack, f32 on the CPU: from the
/// cache where it has those of the same samples in the same order.
///
/// # Errors
/// As `of_samples`, but that memory is never made do with.
pub fn of_some(
    run: &Preparation<'_>,
    network: &Network,
    samples: &[usize],
) -> Result<Tensor, TrainError> {
    make_cache(run.plan)?;
    let source = &run.samples.sources[0];
    let size = batch_on(run.device);
    let rows = Rows::Some(samples);
    let key = key(run.plan, source, network, run.device, (size, rows));
    let path = shard_path(run.plan, &key, 0);
    let shape = [samples.len() as i64, network.feature_dim];
    if let Some(found) = find(&path, shape) {
        return Ok(found);
    }
    let batches = BatchSource::new(&run.plan.base_model.input)?;
    let backbone = &network.whole_backbone();
    let images = |chunk: &[usize]| -> Result<Tensor, TrainError> {
        let decoded = batches.load(&source.pack, chunk, 1)?;
        Ok(batches.collate(&decoded, run.device))
    };
    let features = |chunk: &&[usize]| {
        let features = backbone.features(&images(chunk)?);
        Ok(features.to_device(Device::Cpu))
    };
    let chunks: Vec<&[usize]> = samples.chunks(size).collect();
    if let Some(first) = chunks.first() {
        check_backbone(network, backbone, &images(first)?)?;
    }
    let threads = threads_on(run.device, run.plan);
    let rows = parallel::each(&chunks, threads, features, |_| Ok(()))?;
    let made = Tensor::cat(&rows, 0);
    check(&made)?;
    keep(&path, &made)?;
    Ok(made)
}

/// Refuses features that are not finite: training would fail at its first step, and advise a lower
/// learning rate.
fn check(features: &Tensor) -> Result<(), TrainError> {
    match features.isfinite().all().int64_value(&[]) {
        0 => Err(TrainError::Features),
        _ => Ok(()),
    }
}

/// `check` of what the backbone computes of some images, fused and not: fused operations lose what
/// is not a number.
fn check_backbone(
    network: &Network,
    backbone: &Extractor,
    images: &Tensor,
) -> Result<(), TrainError> {
    check(&network.plain_features(images))?;
    check(&backbone.features(images))
}

/// Features of a whole pack. When memory runs out, all over again on one thread, then in batches of
/// half the size.
fn of_pack(
    run: &Preparation<'_>,
    backbone: (&Network, &Extractor),
    source: &Source,
    meter: &mut Meter,
) -> Result<Tensor, TrainError> {
    let mut size = batch_on(run.device);
    let mut threads = threads_on(run.device, run.plan);
    loop {
        let work = || in_batches_of((size, threads), run, backbone, source, meter);
        match (memory::guarded(work), memory::smaller(size, 1)) {
            // The same features, to the last bit.
            (Err(TrainError::OutOfMemory(_)), _) if threads > 1 => {
                threads = 1;
                meter.restart();
                continue;
            }
            (Err(TrainError::OutOfMemory(_)), Some(half)) => size = half,
            (done, _) => return done,
        }
        meter.begin_again(&Progress::BatchSizeReduced {
            what: BatchSizePart::Features,
            batch_size: size as u32,
        });
    }
}

fn in_batches_of(
    (size, threads): (usize, usize),
    run: &Preparation<'_>,
    (network, backbone): (&Network, &Extractor),
    source: &Source,
    meter: &mut Meter,
) -> Result<Tensor, TrainError> {
    let Preparation {
        plan,
        device,
        interrupt,
        ..
    } = *run;
    let batches = BatchSource::new(&plan.base_model.input)?;
    let pack = &source.pack;
    let images = |chunk: &[usize]| -> Result<Tensor, TrainError> {
        let decoded = batches.load(pack, chunk, 1)?;
        Ok(batches.collate(&decoded, device))
    };
    let features = |chunk: &&[usize]| {
        let features = backbone.features(&images(chunk)?);
        Ok(features.to_device(Device::Cpu))
    };
    let key = key(plan, source, network, device, (size, Rows::All));
    let samples: Vec<usize> = (0..source.pack.len()).collect();
    let (mut parts, mut is_tried) = (Vec::new(), false);
    for (number, shard) in samples.chunks(SHARD).enumerate() {
        let path = shard_path(plan, &key, number);
        let shape = [shard.len() as i64, network.feature_dim];
        if let Some(found) = find(&path, shape) {
            meter.found(shard.len());
            parts.push(found);
            continue;
        }
        let chunks: Vec<&[usize]> = shard.chunks(size).collect();
        if let Some(first) = chunks.first().filter(|_| !is_tried) {
            // Alone: memory is most likely to run out now.
            check_backbone(network, backbone, &images(first)?)?;
            is_tried = true;
        }
        let rows = parallel::each(&chunks, threads, features, |chunk| {
            meter.computed(chunk.len());
            interrupt.check()
        })?;
        let made = Tensor::cat(&rows, 0);
        keep(&path, &made)?;
        parts.push(made);
    }
    Ok(Tensor::cat(&parts, 0))
}

/// The cache file of the `number`th `SHARD` samples.
pub(super) fn shard_path(plan: &TrainPlan, key: &str, number: usize) -> PathBuf {
    plan.cache
        .join(format!("features-{key}-{number:05}.safetensors"))
}

/// The samples that rows of features are of.
pub(super) enum Rows<'a> {
    /// All samples of a pack, in evaluation.
    All,
    /// These, in evaluation.
    Some(&'a [usize]),
    /// An augmented view of the training samples.
    View(View<'a>),
}

/// The cache key of features of a pack, of which `size` samples ran together.
pub(super) fn key(
    plan: &TrainPlan,
    source: &Source,
    network: &Network,
    device: Device,
    (size, rows): (usize, Rows<'_>),
) -> String {
    let device_kind = if device == Device::Cpu { "cpu" } else { "cuda" };
    let base = &plan.base_model;
    let (samples, view) = match rows {
        Rows::All => (None, None),
        Rows::Some(samples) => (Some(samples), None),
        Rows::View(view) => (None, Some(view)),
    };
    let key = CacheKey {
        what: match network.features_precision() {
            Precision::Float32 => "features f32",
            Precision::Bfloat16 => "features bf16",
        },
        version: VERSION << 16 | inference::VERSION,
        pack_sha256: &source.sha256,
        preprocessing: &base.input,
        backbone: Some((
            &network.backbone_sha256,
            network.architecture.name,
            &plan.recipe.cut,
            device_kind,
            size,
        )),
        samples,
        view,
    };
    key.hash()
}

/// A file of the cache, if it exists and is complete; otherwise it is computed again.
pub(super) fn find(path: &Path, shape: [i64; 2]) -> Option<Tensor> {
    let features = weights::read_safetensors(path).ok()?.remove(NAME)?;
    (features.size() == shape && features.kind() == Kind::Float).then_some(features)
}

pub(super) fn keep(path: &Path, features: &Tensor) -> Result<(), TrainError> {
    let tensors = [(NAME.to_owned(), features.shallow_clone())];
    let failed = format!("cannot write features to the cache {}", path.display());
    weights::write_safetensors(path, &tensors, &BTreeMap::new())
        .map_err(|error| TrainError::io(failed)(error.into()))
}
