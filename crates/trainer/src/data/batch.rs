//! Samples of a pack to tensors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _},
    slice::ParallelSliceMut as _,
};
use tch::{Device, Kind, Tensor};

use super::{
    image::{DecodeError, Target, decode_resized, preprocess},
    pack::Pack,
};
use crate::domain::base_model::Preprocessing;

/// A sample that was readable when the pack was made no longer is.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct BatchError {
    pub path: String,
    pub source: DecodeError,
}

/// Decodes and preprocesses samples on `threads` threads: u8 `[samples, S, S, C]`, in the order
/// asked for.
///
/// # Errors
/// The first sample that cannot be decoded.
pub fn load(
    pack: &Pack,
    samples: &[usize],
    preprocessing: &Preprocessing,
    threads: usize,
) -> Result<Tensor, BatchError> {
    squares(samples, preprocessing, threads, |&sample, square| {
        // The limit was checked when the pack was made.
        let pixels = preprocess(pack.bytes(sample), u64::MAX, preprocessing);
        square.copy_from_slice(&pixels.map_err(unreadable(pack, sample))?);
        Ok(())
    })
}

/// Fills a square of the input for each of `rows` on `threads` threads: u8 `[rows, S, S, C]`.
///
/// # Errors
/// The first error of `fill`.
pub fn squares<T: Sync, E: Send>(
    rows: &[T],
    input: &Preprocessing,
    threads: usize,
    fill: impl Fn(&T, &mut [u8]) -> Result<(), E> + Sync,
) -> Result<Tensor, E> {
    let mut squares = vec![0_u8; rows.len() * input.square_bytes()];
    if threads == 1 || is_one_of_several() {
        let mut jobs = rows
            .iter()
            .zip(squares.chunks_exact_mut(input.square_bytes()));
        jobs.try_for_each(|(row, square)| fill(row, square))?;
    } else {
        pool(threads).install(|| {
            let jobs = rows
                .par_iter()
                .zip(squares.par_chunks_exact_mut(input.square_bytes()));
            jobs.try_for_each(|(row, square)| fill(row, square))
        })?;
    }
    let (side, channels) = (i64::from(input.input_size), i64::from(input.channels));
    let shape = [rows.len() as i64, side, side, channels];
    Ok(Tensor::from_slice(&squares).view(shape))
}

/// Decodes samples on `threads` threads and resizes each to its `targets`: their bytes, in the
/// order of `samples`. At most one image per thread is held in memory.
///
/// # Errors
/// The first sample that cannot be decoded.
pub fn resized(
    pack: &Pack,
    samples: &[usize],
    preprocessing: &Preprocessing,
    threads: usize,
    targets: impl Fn(usize, (u32, u32)) -> Vec<Target> + Sync,
) -> Result<Vec<Vec<Vec<u8>>>, BatchError> {
    let form = (preprocessing.channels, preprocessing.interpolation);
    let one = |&sample: &usize| {
        let of_size = |size| targets(sample, size);
        let decoded = decode_resized(pack.bytes(sample), u64::MAX, form, &of_size);
        Ok(decoded.map_err(unreadable(pack, sample))?.images)
    };
    if threads == 1 || is_one_of_several() {
        return samples.iter().map(one).collect();
    }
    pool(threads).install(|| samples.par_iter().map(one).collect())
}

fn unreadable(pack: &Pack, sample: usize) -> impl FnOnce(DecodeError) -> BatchError {
    move |source| BatchError {
        path: pack.path(sample).to_owned(),
        source,
    }
}

/// Converts u8 `[N, S, S, C]` to the network's input: f32 `[N, C, S, S]` on `device`, channels last
/// in memory, `(x / 255 - mean) / std` per channel.
pub fn normalize(images: &Tensor, preprocessing: &Preprocessing, device: Device) -> Tensor {
    let Preprocessing { mean, std, .. } = preprocessing;
    let row = |value: &dyn Fn((&f64, &f64)) -> f64| {
        let values = mean.iter().zip(std.iter()).map(|pair| value(pair) as f32);
        Tensor::from_slice(&values.collect::<Vec<f32>>())
            .view([1, -1, 1, 1])
            .to_device(device)
    };
    // One multiplication and one addition: x / (255 std) - mean / std.
    let scale = row(&|(_, std)| 1.0 / (255.0 * std));
    let shift = row(&|(mean, std)| -mean / std);
    // From pinned memory, a GPU copies while this thread goes on.
    let mut images = images
        .to_device_(device, images.kind(), true, false)
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float);
    tch::no_grad(|| images.g_mul_(&scale).g_add_(&shift))
}

/// The same tensor in memory that a GPU copies from by itself; as it is for a CPU.
pub fn pinned(images: Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => images.pin_memory(device),
        _ => images,
    }
}

/// True on a thread of a pool: the others have work of their own.
fn is_one_of_several() -> bool {
    rayon::current_thread_index().is_some()
}

/// The thread pool of this size, created once.
pub(crate) fn pool(threads: usize) -> Arc<ThreadPool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<ThreadPool>>> = Mutex::new(BTreeMap::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let builder = ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|n| format!("work-{n}"));
        Arc::new(builder.build().expect("threads can be started"))
    };
    Arc::clone(pools.entry(threads.max(1)).or_insert_with(make))
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, fs, path::Path};

    use super::*;
    use crate::{
        data::{
            pack::{Sample, write},
            target::Target,
        },
        domain::{base_model::Interpolation, file::Split, recipe::Task},
    };

    const PREPROCESSING: Preprocessing = Preprocessing {
        input_size: 4,
        channels: 3,
        crop_fraction: 1.0,
        interpolation: Interpolation::Bicubic,
        mean: Cow::Borrowed(&[0.485, 0.456, 0.406]),
        std: Cow::Borrowed(&[0.229, 0.224, 0.225]),
    };

    #[test]
    fn batches_keep_the_order_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
        let contents =
            ["rgb.png", "gray.jpg", "rgba.webp"].map(|name| fs::read(images.join(name)).unwrap());
        let mut samples = contents.each_ref().map(|bytes| Sample {
            path: "x",
            bytes,
            sha256: [0; 32],
            target: &Target::Class(0),
            split: Split::Train,
            width: 36,
            height: 24,
        });
        let task = Task::SingleLabelClassification;
        write(&path, task, &["a".to_owned()], &samples).unwrap();
        let batch = load(
            &Pack::open(&path).unwrap(),
            &[2, 0, 2, 1],
            &PREPROCESSING,
            2,
        )
        .unwrap();
        assert_eq!(
            (batch.size(), batch.kind()),
            (vec![4, 4, 4, 3], Kind::Uint8)
        );
        for (row, sample) in [2, 0, 2, 1].into_iter().enumerate() {
            let wanted = preprocess(&contents[sample], 1 << 20, &PREPROCESSING).unwrap();
            let found = Vec::<u8>::try_from(batch.get(row as i64).flatten(0, -1)).unwrap();
            assert_eq!(found, wanted);
        }
        samples[1].bytes = b"no image";
        write(&path, task, &["a".to_owned()], &samples).unwrap();
        assert!(load(&Pack::open(&path).unwrap(), &[0, 1], &PREPROCESSING, 2).is_err());
    }

    #[test]
    fn normalized_batches_are_channels_last() {
        let images = Tensor::arange(2 * 4 * 4 * 3, (Kind::Uint8, Device::Cpu)).view([2, 4, 4, 3]);
        let batch = normalize(&images, &PREPROCESSING, Device::Cpu);
        assert_eq!(
            (batch.size(), batch.stride()),
            (vec![2, 3, 4, 4], vec![48, 1, 12, 3])
        );
        let wanted = (f64::from(3 * 5 + 2) / 255.0 - 0.406) / 0.225;
        assert!((batch.double_value(&[0, 2, 1, 1]) - wanted).abs() < 1e-6);
    }
}
