//! Decodes every image once, for backbones that train: images are kept in safetensors files, one
//! for each pack and form, named by all that they depend on, and read back one by one.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use serde_json::json;
use tch::Tensor;
use tempfile::NamedTempFile;

use super::{
    cache::{CacheKey, mark_used},
    meter::Meter,
    samples::Source,
};
use crate::{
    data::{
        batch,
        image::{Bitmap, preprocess, shrink, shrunk_size},
        source::BatchSource,
    },
    domain::{base_model::Preprocessing, file::Split, work::TrainPlan},
    process::{error::TrainError, protocol::Interrupt},
};

/// Version of this file and of `data::image`; raised when their pixels change.
const VERSION: u32 = 2;
/// Samples that are decoded together.
const CHUNK: usize = 64;
/// Bytes of a header, far above any real one.
const MAX_HEADER: u64 = 1 << 16;

/// The form in which images are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The square that evaluation sees, for every sample.
    Square,
    /// The whole image with its shorter side at most `short`, for training samples: random crops
    /// need it.
    Canvas { short: u32 },
}

/// The decoded images of a pack in a file, u8 [height, width, channels] one after the other.
#[derive(Debug)]
pub struct Pixels {
    file: File,
    /// Offset of the first image.
    start: u64,
    images: Vec<Place>,
}

/// Offset of a sample's image from the first one in bytes, and its size in pixels: 0 by 0 where
/// none is cached.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    width: u32,
    height: u32,
    channels: u32,
}

impl Place {
    fn bytes(self) -> usize {
        self.width as usize * self.height as usize * self.channels as usize
    }
}

/// A cache file to find or to write.
#[derive(Debug)]
struct Entry {
    form: Form,
    path: PathBuf,
    header: Vec<u8>,
    images: Vec<Place>,
}

/// The decoded images of a pack in these forms, each from the cache or into it. Missing ones are
/// made in one pass. `None` when interrupted.
///
/// # Errors
/// `Data` for an image that cannot be decoded, `Io` when the cache cannot be written.
pub fn of_pack(
    plan: &TrainPlan,
    source: &Source,
    forms: &[Form],
    interrupt: &Interrupt,
    meter: &mut Meter,
) -> Result<Option<Vec<Pixels>>, TrainError> {
    let BatchSource::Image(input) = BatchSource::new(&plan.base_model.input)?;
    let entries: Vec<Entry> = forms
        .iter()
        .map(|&form| Entry::new(plan, &input, source, form))
        .collect();
    let missing: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.open().is_err())
        .collect();
    if missing.is_empty() {
        meter.found(source.pack.len());
    } else if !make((plan, &input), source, &missing, interrupt, meter)? {
        return Ok(None);
    }
    let open = |entry: &Entry| {
        mark_used(&entry.path);
        let failed = format!("cannot read {}", entry.path.display());
        entry.open().map_err(TrainError::io(failed))
    };
    entries.iter().map(open).collect::<Result<_, _>>().map(Some)
}

/// Decodes all samples into these entries; `false` when interrupted.
fn make(
    (plan, input): (&TrainPlan, &Preprocessing),
    source: &Source,
    entries: &[&Entry],
    interrupt: &Interrupt,
    meter: &mut Meter,
) -> Result<bool, TrainError> {
    let failed = || {
        format!(
            "cannot write decoded images to the cache {}",
            plan.cache.display()
        )
    };
    let files: io::Result<Vec<NamedTempFile>> = entries
        .iter()
        .map(|_| NamedTempFile::new_in(&plan.cache))
        .collect();
    let files = files.map_err(TrainError::io(failed()))?;
    let mut writers: Vec<BufWriter<&File>> = files
        .iter()
        .map(|file| BufWriter::with_capacity(1 << 20, file.as_file()))
        .collect();
    for (entry, writer) in entries.iter().zip(&mut writers) {
        writer
            .write_all(&entry.header)
            .map_err(TrainError::io(failed()))?;
    }
    let all: Vec<usize> = (0..source.pack.len()).collect();
    for chunk in all.chunks(CHUNK) {
        if interrupt.requested() {
            return Ok(false);
        }
        let render = |sample: usize, image: Bitmap| -> Vec<Vec<u8>> {
            let entries = entries.iter();
            entries
                .map(|entry| entry.render(input, sample, &image))
                .collect()
        };
        let threads = plan.threads as usize;
        let rendered = batch::each(&source.pack, chunk, input.channels, threads, render)
            .map_err(|error| TrainError::Data(error.to_string()))?;
        for images in rendered {
            for (writer, image) in writers.iter_mut().zip(images) {
                writer.write_all(&image).map_err(TrainError::io(failed()))?;
            }
        }
        meter.computed(chunk.len());
    }
    for writer in &mut writers {
        writer.flush().map_err(TrainError::io(failed()))?;
    }
    drop(writers);
    for (entry, file) in entries.iter().zip(files) {
        file.as_file()
            .sync_all()
            .map_err(TrainError::io(failed()))?;
        file.persist(&entry.path)
            .map_err(|error| TrainError::io(failed())(error.error))?;
    }
    Ok(true)
}

impl Entry {
    fn new(plan: &TrainPlan, input: &Preprocessing, source: &Source, form: Form) -> Self {
        let (side, channels) = (input.input_size, input.channels);
        let validates_elsewhere = plan.validation_pack.is_some();
        let trains = |sample: usize| match source.pack.split(sample) {
            Split::Train => true,
            Split::Validation => validates_elsewhere,
            Split::Test => false,
        };
        let mut offset = 0;
        let place = |sample: usize| {
            let (width, height) = match form {
                Form::Square => (side, side),
                Form::Canvas { short } if trains(sample) => {
                    let (width, height) = source.pack.size(sample);
                    shrunk_size(width, height, short)
                }
                Form::Canvas { .. } => (0, 0),
            };
            let place = Place {
                offset,
                width,
                height,
                channels,
            };
            offset += place.bytes() as u64;
            place
        };
        let images: Vec<Place> = (0..source.pack.len()).map(place).collect();
        let (what, shape) = match form {
            Form::Square => (
                "pixels".to_owned(),
                vec![
                    images.len() as u64,
                    side.into(),
                    side.into(),
                    channels.into(),
                ],
            ),
            Form::Canvas { short } => (
                format!("canvas {short} {validates_elsewhere}"),
                vec![offset],
            ),
        };
        let key = CacheKey {
            what: &what,
            version: VERSION,
            pack_sha256: &source.sha256,
            preprocessing: &plan.base_model.input,
            backbone: None,
            view: None,
        };
        let name = format!("pixels-{}.safetensors", key.hash());
        Self {
            form,
            path: plan.cache.join(name),
            header: header(&shape, offset),
            images,
        }
    }

    /// The bytes of a sample's image.
    fn render(&self, preprocessing: &Preprocessing, sample: usize, image: &Bitmap) -> Vec<u8> {
        let place = self.images[sample];
        match self.form {
            Form::Square => preprocess(image, preprocessing),
            Form::Canvas { .. } if place.bytes() == 0 => Vec::new(),
            Form::Canvas { .. } => {
                let size = (place.width, place.height);
                shrink(image, size, preprocessing.interpolation)
            }
        }
    }

    /// Opens a file that holds exactly these images.
    fn open(&self) -> io::Result<Pixels> {
        let file = File::open(&self.path)?;
        let mut found = Vec::new();
        (&file)
            .take((self.header.len() as u64).min(MAX_HEADER))
            .read_to_end(&mut found)?;
        let start = self.header.len() as u64;
        let end = self
            .images
            .last()
            .map_or(0, |last| last.offset + last.bytes() as u64);
        if found != self.header || file.metadata()?.len() != start + end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Pixels {
            file,
            start,
            images: self.images.clone(),
        })
    }
}

fn header(shape: &[u64], bytes: u64) -> Vec<u8> {
    let mut json =
        json!({"pixels": {"dtype": "U8", "shape": shape, "data_offsets": [0, bytes]}}).to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

impl Pixels {
    /// A sample's image.
    ///
    /// # Errors
    /// `Io` when the file cannot be read.
    pub fn bitmap(&self, sample: usize) -> Result<Bitmap, TrainError> {
        let place = self.images[sample];
        let mut pixels = vec![0; place.bytes()];
        self.read(sample, &mut pixels)?;
        Ok(Bitmap {
            width: place.width,
            height: place.height,
            channels: place.channels,
            pixels,
        })
    }

    /// Reads a sample's image, `height * width * channels` bytes.
    ///
    /// # Errors
    /// `Io` when the file cannot be read.
    pub fn read(&self, sample: usize, into: &mut [u8]) -> Result<(), TrainError> {
        let place = self.images[sample];
        self.file
            .read_exact_at(into, self.start + place.offset)
            .map_err(TrainError::io("cannot read a decoded image from the cache"))
    }
}

/// u8 [N, S, S, C] of samples that are numbered through all sources, whose images are squares of
/// the input.
///
/// # Errors
/// `Io` when a file cannot be read.
pub fn gather(
    sources: &[Pixels],
    samples: &[usize],
    input: &Preprocessing,
    threads: usize,
) -> Result<Tensor, TrainError> {
    batch::squares(samples, input, threads, |&sample, square| {
        let (source, place) = locate(sources, sample);
        source.read(place, square)
    })
}

fn locate(sources: &[Pixels], mut sample: usize) -> (&Pixels, usize) {
    for source in sources {
        if sample < source.images.len() {
            return (source, sample);
        }
        sample -= source.images.len();
    }
    unreachable!("samples are numbered through the sources: this is a bug")
}
