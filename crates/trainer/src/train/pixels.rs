//! Decodes and resizes every image once, for trunks that train: pixels are kept in one safetensors file for each pack and
//! preprocessing, named by both, and read back row by row.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use serde_json::json;
use tch::{Kind, Tensor};

use super::{
    error::TrainError,
    inputs::{CacheKey, Meter, mark_used},
    protocol::Stop,
    samples::Source,
};
use crate::{data::batch, domain::work::TrainPlan};

/// Of this file and of `data::image`: raised when their pixels change.
const VERSION: u32 = 1;
/// Samples that are decoded together.
const CHUNK: usize = 64;
/// Bytes of a header, far above any real one.
const MAX_HEADER: u64 = 1 << 16;

/// The decoded images of a pack: u8 [samples, S, S, 3] in a file.
#[derive(Debug)]
pub struct Pixels {
    file: File,
    /// Where the first image begins.
    start: u64,
    side: usize,
    samples: usize,
}

/// The decoded images of a pack, from the cache or into it. `None` when a stop was asked for.
///
/// # Errors
/// `Data` for an image that cannot be decoded, `Io` when the cache cannot be written.
pub fn of_pack(
    plan: &TrainPlan,
    source: &Source,
    stop: &Stop,
    meter: &mut Meter,
) -> Result<Option<Pixels>, TrainError> {
    let preprocessing = &plan.base_model.preprocessing;
    let key = CacheKey {
        what: "pixels",
        version: VERSION,
        pack_sha256: &source.sha256,
        preprocessing,
        trunk: None,
    }
    .hash();
    let path = plan.cache.join(format!("pixels-{key}.safetensors"));
    let (samples, side) = (source.pack.len(), preprocessing.input_size as usize);
    if let Ok(found) = Pixels::open(&path, samples, side) {
        mark_used(&path);
        meter.found(samples);
        return Ok(Some(found));
    }
    let failed = || format!("cannot write pixels to {}", path.display());
    let temporary =
        tempfile::NamedTempFile::new_in(&plan.cache).map_err(TrainError::io(failed()))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    out.write_all(&header(samples, side))
        .map_err(TrainError::io(failed()))?;
    let all: Vec<usize> = (0..samples).collect();
    for chunk in all.chunks(CHUNK) {
        if stop.requested() {
            return Ok(None);
        }
        let pixels = batch::load(&source.pack, chunk, preprocessing, plan.threads as usize)
            .map_err(|error| TrainError::Data(error.to_string()))?;
        let bytes = Vec::<u8>::try_from(&pixels.contiguous().view(-1))?;
        out.write_all(&bytes).map_err(TrainError::io(failed()))?;
        meter.computed(chunk.len());
    }
    out.flush().map_err(TrainError::io(failed()))?;
    drop(out);
    temporary
        .as_file()
        .sync_all()
        .map_err(TrainError::io(failed()))?;
    temporary
        .persist(&path)
        .map_err(|error| TrainError::io(failed())(error.error))?;
    Pixels::open(&path, samples, side)
        .map(Some)
        .map_err(TrainError::io(format!("cannot read {}", path.display())))
}

fn header(samples: usize, side: usize) -> Vec<u8> {
    let shape = [samples, side, side, 3];
    let bytes: usize = shape.iter().product();
    let mut json =
        json!({"pixels": {"dtype": "U8", "shape": shape, "data_offsets": [0, bytes]}}).to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

impl Pixels {
    /// Opens a file that holds exactly these images.
    fn open(path: &Path, samples: usize, side: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let expected = header(samples, side);
        let mut found = Vec::new();
        (&file)
            .take((expected.len() as u64).min(MAX_HEADER))
            .read_to_end(&mut found)?;
        let pixels = Self {
            start: expected.len() as u64,
            file,
            side,
            samples,
        };
        let bytes = pixels.start + (pixels.row_bytes() * samples) as u64;
        if found != expected || pixels.file.metadata()?.len() != bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(pixels)
    }

    fn row_bytes(&self) -> usize {
        self.side * self.side * 3
    }
}

/// u8 [N, S, S, 3] of samples that are numbered through all sources.
///
/// # Errors
/// `Io` when a file cannot be read.
pub fn gather(sources: &[Pixels], samples: &[usize]) -> Result<Tensor, TrainError> {
    let row_bytes = sources[0].row_bytes();
    let mut bytes = vec![0; row_bytes * samples.len()];
    for (row, &sample) in bytes.chunks_exact_mut(row_bytes).zip(samples) {
        let (source, place) = locate(sources, sample);
        source
            .file
            .read_exact_at(row, source.start + (place * row_bytes) as u64)
            .map_err(TrainError::io("cannot read cached pixels"))?;
    }
    let side = sources[0].side as i64;
    Ok(Tensor::f_from_data_size(
        &bytes,
        &[samples.len() as i64, side, side, 3],
        Kind::Uint8,
    )?)
}

fn locate(sources: &[Pixels], mut sample: usize) -> (&Pixels, usize) {
    for source in sources {
        if sample < source.samples {
            return (source, sample);
        }
        sample -= source.samples;
    }
    unreachable!("samples are numbered through the sources: this is a bug")
}
