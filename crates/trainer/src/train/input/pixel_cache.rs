//! Decodes every image once, for backbones that train: images are kept in safetensors files, one
//! for each pack and form, named by all that they depend on, and read back one by one.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use serde_json::json;
use tch::Tensor;
use tempfile::NamedTempFile;

use super::{
    cache::CacheKey,
    meter::Meter,
    samples::{Source, locate},
};
use crate::{
    data::{
        batch,
        image::{Bitmap, Target, shrunk_size},
        source::BatchSource,
    },
    domain::{base_model::Preprocessing, file::Split, work::TrainPlan},
    process::{error::TrainError, protocol::Interrupt},
};

/// Version of this file and of `data::image`; raised when their pixels change.
const VERSION: u32 = 2;
/// Samples that are decoded together.
const CHUNK: usize = 64;

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
    entry: Entry,
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
    /// Bytes of all images.
    end: u64,
}

/// The decoded images of a pack in these forms, each from the cache or into it. Missing ones are
/// made in one pass.
///
/// # Errors
/// `Data` for an image that cannot be decoded, `Io` when the cache cannot be written,
/// `Interrupted`.
pub fn of_pack(
    plan: &TrainPlan,
    source: &Source,
    forms: &[Form],
    interrupt: &Interrupt,
    meter: &mut Meter,
) -> Result<Vec<Pixels>, TrainError> {
    let BatchSource::Image(input) = BatchSource::new(&plan.base_model.input)?;
    let entries = forms.iter();
    let entries: Vec<Entry> = entries
        .map(|&form| Entry::new(plan, &input, source, form))
        .collect();
    let missing = entries.iter().filter(|entry| entry.open().is_err());
    let missing: Vec<&Entry> = missing.collect();
    if missing.is_empty() {
        meter.found(source.pack.len());
    } else {
        make((plan, &input), source, &missing, interrupt, meter)?;
    }
    let open = |entry: Entry| {
        let failed = format!("cannot read {}", entry.path.display());
        let file = entry.open().map_err(TrainError::io(failed))?;
        Ok(Pixels { file, entry })
    };
    entries.into_iter().map(open).collect()
}

/// Decodes all samples into these entries.
fn make(
    (plan, input): (&TrainPlan, &Preprocessing),
    source: &Source,
    entries: &[&Entry],
    interrupt: &Interrupt,
    meter: &mut Meter,
) -> Result<(), TrainError> {
    let failed = || {
        let cache = plan.cache.display();
        TrainError::io(format!("cannot write decoded images to the cache {cache}"))
    };
    let files: io::Result<Vec<_>> = entries.iter().map(|entry| entry.begin(plan)).collect();
    let mut files = files.map_err(failed())?;
    let all: Vec<usize> = (0..source.pack.len()).collect();
    for chunk in all.chunks(CHUNK) {
        interrupt.check()?;
        let targets = |sample, size| {
            let entries = entries.iter();
            entries
                .filter_map(|entry| entry.target(input, sample, size))
                .collect()
        };
        let threads = plan.threads as usize;
        let resized = batch::resized(&source.pack, chunk, input, threads, targets)?;
        for (&sample, images) in chunk.iter().zip(resized) {
            let files = entries.iter().zip(&mut files);
            let cached = files.filter(|(entry, _)| entry.images[sample].bytes() > 0);
            for ((_, file), image) in cached.zip(images) {
                file.write_all(&image).map_err(failed())?;
            }
        }
        meter.computed(chunk.len());
    }
    let mut written = entries.iter().zip(files);
    written
        .try_for_each(|(entry, file)| entry.finish(file))
        .map_err(failed())
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
        let size = |sample: usize| match form {
            Form::Square => (side, side),
            Form::Canvas { short } if trains(sample) => {
                let (width, height) = source.pack.size(sample);
                shrunk_size(width, height, short)
            }
            Form::Canvas { .. } => (0, 0),
        };
        let mut end = 0;
        let place = |sample: usize| {
            let (width, height) = size(sample);
            let place = Place {
                offset: end,
                width,
                height,
                channels,
            };
            end += place.bytes() as u64;
            place
        };
        let images: Vec<Place> = (0..source.pack.len()).map(place).collect();
        let (what, shape) = match form {
            Form::Square => {
                let shape = [images.len() as u32, side, side, channels];
                ("pixels".to_owned(), shape.map(u64::from).to_vec())
            }
            Form::Canvas { short } => (format!("canvas {short} {validates_elsewhere}"), vec![end]),
        };
        let key = CacheKey {
            what: &what,
            version: VERSION,
            pack_sha256: &source.sha256,
            preprocessing: &plan.base_model.input,
            backbone: None,
            samples: None,
            view: None,
        };
        let name = format!("pixels-{}.safetensors", key.hash());
        Self {
            form,
            path: plan.cache.join(name),
            header: header(&shape, end),
            images,
            end,
        }
    }

    /// The form in which a sample, an image of this size, is cached; `None` if it is not.
    fn target(&self, input: &Preprocessing, sample: usize, size: (u32, u32)) -> Option<Target> {
        let place = self.images[sample];
        let target = match self.form {
            Form::Square => Target::square(size, input),
            Form::Canvas { .. } => Target::whole(size, (place.width, place.height)),
        };
        (place.bytes() > 0).then_some(target)
    }

    fn begin(&self, plan: &TrainPlan) -> io::Result<BufWriter<NamedTempFile>> {
        let file = NamedTempFile::new_in(&plan.cache)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&self.header)?;
        Ok(file)
    }

    /// Gives a complete file its name.
    fn finish(&self, file: BufWriter<NamedTempFile>) -> io::Result<()> {
        let file = file.into_inner()?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    /// Opens a file that holds exactly these images.
    fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        let mut found = vec![0; self.header.len()];
        file.read_exact_at(&mut found, 0)?;
        if found != self.header || file.metadata()?.len() != self.start() + self.end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(file)
    }

    /// Offset of the first image in the file.
    fn start(&self) -> u64 {
        self.header.len() as u64
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
        let place = self.entry.images[sample];
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
        let offset = self.entry.start() + self.entry.images[sample].offset;
        self.file
            .read_exact_at(into, offset)
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
    let len = |source: &Pixels| source.entry.images.len();
    batch::squares(samples, input, threads, |&sample, square| {
        let (source, place) = locate(sources, len, sample);
        source.read(place, square)
    })
}
