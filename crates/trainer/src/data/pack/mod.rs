//! A validated data set in one safetensors file: the samples' bytes back to back as they were
//! uploaded, and an index.
//!
//! Tensors, for n samples sorted by path: `offset`, `size` (i64 `[n]`), the targets, `width`,
//! `height` (i32 `[n]`), `split` (u8 `[n]`: 0 train, 1 validation, 2 test), `sha256` (u8 `[n,
//! 32]`), `paths` (u8: a JSON list) and `bytes` (u8). Targets are `label` (i64 `[n]`); or, with
//! several labels a sample, `labels` (i64, those of all samples back to back) and `labels_end` (i64
//! `[n]`: where each sample's end in it); or `value` (f64 `[n]`).
//!
//! Metadata: `version`, `classes`, a JSON list in label order, and `task`, which is left out for a
//! single label. One upload gives one pack, byte for byte.

mod write;

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use self::write::{SPLITS, VERSION};
pub use self::write::{Sample, write};
use super::{target::Target, tensor_file};
use crate::domain::{file::Split, recipe::Task};

/// A pack, mapped into memory; everything in its index was checked when it was opened.
#[derive(Debug)]
pub struct Pack {
    map: Mmap,
    classes: Vec<String>,
    paths: Vec<String>,
    offset: Range<usize>,
    size: Range<usize>,
    targets: Targets,
    width: Range<usize>,
    height: Range<usize>,
    split: Range<usize>,
    sha256: Range<usize>,
    bytes: Range<usize>,
}

/// The targets, by task.
#[derive(Debug)]
enum Targets {
    Label(Range<usize>),
    Labels {
        labels: Range<usize>,
        end: Range<usize>,
    },
    Value(Range<usize>),
}

/// Why a file is not a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read the pack {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("not a pack: {0}")]
    Invalid(String),
}

fn split_of(code: u8) -> Option<Split> {
    SPLITS.get(usize::from(code)).copied()
}

fn invalid(why: impl Into<String>) -> PackError {
    PackError::Invalid(why.into())
}

impl Pack {
    /// Opens and checks a pack.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in its index points outside of it.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let failed = |source| PackError::Io {
            path: path.to_owned(),
            source,
        };
        let map = File::open(path)
            .and_then(|file| tensor_file::map(&file))
            .map_err(failed)?;
        let (header_bytes, header) =
            SafeTensors::read_metadata(&map).map_err(|error| invalid(error.to_string()))?;
        let metadata = header
            .metadata()
            .as_ref()
            .ok_or_else(|| invalid("it has no metadata"))?;
        if metadata.get("version").map(String::as_str) != Some(VERSION) {
            return Err(invalid(format!(
                "its version is {:?}, not {VERSION:?}",
                metadata.get("version")
            )));
        }
        let classes = metadata
            .get("classes")
            .ok_or_else(|| invalid("it has no classes"))?;
        let classes: Vec<String> =
            serde_json::from_str(classes).map_err(|error| invalid(error.to_string()))?;
        let tensor = |name: &str, dtype: Dtype, shape: &[usize]| {
            let info = header
                .info(name)
                .ok_or_else(|| invalid(format!("it has no tensor {name:?}")))?;
            if info.dtype != dtype || (!shape.is_empty() && info.shape != shape) {
                return Err(invalid(format!(
                    "its tensor {name:?} is {:?} {:?}",
                    info.dtype, info.shape
                )));
            }
            // The data start behind the header and its eight bytes of length.
            let (start, end) = info.data_offsets;
            Ok(start + header_bytes + 8..end + header_bytes + 8)
        };
        let paths = tensor("paths", Dtype::U8, &[])?;
        let paths: Vec<String> =
            serde_json::from_slice(&map[paths]).map_err(|error| invalid(error.to_string()))?;
        let n = paths.len();
        let pack = Self {
            offset: tensor("offset", Dtype::I64, &[n])?,
            size: tensor("size", Dtype::I64, &[n])?,
            targets: match metadata.get("task").map(String::as_str) {
                None => Targets::Label(tensor("label", Dtype::I64, &[n])?),
                Some("multi_label_classification") => Targets::Labels {
                    labels: tensor("labels", Dtype::I64, &[])?,
                    end: tensor("labels_end", Dtype::I64, &[n])?,
                },
                Some("regression") => Targets::Value(tensor("value", Dtype::F64, &[n])?),
                Some(other) => return Err(invalid(format!("its task is {other:?}"))),
            },
            width: tensor("width", Dtype::I32, &[n])?,
            height: tensor("height", Dtype::I32, &[n])?,
            split: tensor("split", Dtype::U8, &[n])?,
            sha256: tensor("sha256", Dtype::U8, &[n, 32])?,
            bytes: tensor("bytes", Dtype::U8, &[])?,
            map,
            classes,
            paths,
        };
        pack.check()?;
        Ok(pack)
    }

    fn check(&self) -> Result<(), PackError> {
        for sample in 0..self.len() {
            let (offset, size) = (self.i64(&self.offset, sample), self.i64(&self.size, sample));
            let inside = offset >= 0
                && size >= 0
                && offset
                    .checked_add(size)
                    .is_some_and(|end| end <= self.bytes.len() as i64);
            if !inside {
                return Err(invalid(format!(
                    "sample {sample} is {size} bytes at {offset}, outside of its bytes"
                )));
            }
            self.check_target(sample)?;
            if split_of(self.map[self.split.start + sample]).is_none() {
                return Err(invalid(format!("sample {sample} is in no split")));
            }
            let (width, height) = self.size(sample);
            if width.cast_signed() <= 0 || height.cast_signed() <= 0 {
                return Err(invalid(format!("sample {sample} has no pixels")));
            }
        }
        Ok(())
    }

    fn check_target(&self, sample: usize) -> Result<(), PackError> {
        let is_class = |label: i64| usize::try_from(label).is_ok_and(|at| at < self.classes.len());
        let wrong = match &self.targets {
            Targets::Label(label) => {
                let label = self.i64(label, sample);
                (!is_class(label)).then(|| format!("label {label}"))
            }
            Targets::Labels { labels, end } => {
                let (start, end) = self.labels_of(end, sample);
                let all = (labels.len() / 8) as i64;
                if start < 0 || end < start || end > all {
                    return Err(invalid(format!(
                        "sample {sample} has the labels {start} to {end} of {all}"
                    )));
                }
                let found: Vec<i64> = (start..end)
                    .map(|at| self.i64(labels, at as usize))
                    .collect();
                let sound =
                    found.iter().all(|&label| is_class(label)) && found.is_sorted_by(|a, b| a < b);
                (!sound).then(|| format!("labels {found:?}"))
            }
            Targets::Value(values) => {
                let value = self.f64(values, sample);
                (!value.is_finite()).then(|| format!("value {value}"))
            }
        };
        wrong.map_or(Ok(()), |what| {
            Err(invalid(format!(
                "sample {sample} has {what}, but there are {} classes",
                self.classes.len()
            )))
        })
    }

    /// Where a sample's labels start and end in `labels`.
    fn labels_of(&self, end: &Range<usize>, sample: usize) -> (i64, i64) {
        let start = sample
            .checked_sub(1)
            .map_or(0, |before| self.i64(end, before));
        (start, self.i64(end, sample))
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Class names, in label order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    pub fn task(&self) -> Task {
        match self.targets {
            Targets::Label(_) => Task::SingleLabelClassification,
            Targets::Labels { .. } => Task::MultiLabelClassification,
            Targets::Value(_) => Task::Regression,
        }
    }

    pub fn target(&self, sample: usize) -> Target {
        match &self.targets {
            Targets::Label(label) => Target::Class(self.i64(label, sample) as usize),
            Targets::Labels { labels, end } => {
                let (start, end) = self.labels_of(end, sample);
                let label = |at: i64| self.i64(labels, at as usize) as usize;
                Target::Classes((start..end).map(label).collect())
            }
            Targets::Value(values) => Target::Value(self.f64(values, sample)),
        }
    }

    pub fn split(&self, sample: usize) -> Split {
        split_of(self.map[self.split.start + sample]).expect("checked when opened: this is a bug")
    }

    /// The samples of one split, ascending.
    pub fn samples_of(&self, split: Split) -> Vec<usize> {
        (0..self.len())
            .filter(|&sample| self.split(sample) == split)
            .collect()
    }

    /// The encoded image, as uploaded.
    pub fn bytes(&self, sample: usize) -> &[u8] {
        let (offset, size) = (
            self.i64(&self.offset, sample) as usize,
            self.i64(&self.size, sample) as usize,
        );
        &self.map[self.bytes.clone()][offset..offset + size]
    }

    /// The place of `bytes(sample)` in the file.
    pub fn place(&self, sample: usize) -> Range<u64> {
        let offset = self.i64(&self.offset, sample) as u64;
        let start = self.bytes.start as u64 + offset;
        start..start + self.i64(&self.size, sample) as u64
    }

    /// Its path in the upload.
    pub fn path(&self, sample: usize) -> &str {
        &self.paths[sample]
    }

    /// SHA-256 of `bytes(sample)`.
    pub fn sha256(&self, sample: usize) -> [u8; 32] {
        self.row(&self.sha256, sample)
    }

    /// Width and height of the decoded image, in pixels.
    pub fn size(&self, sample: usize) -> (u32, u32) {
        let side = |tensor| u32::from_le_bytes(self.row(tensor, sample));
        (side(&self.width), side(&self.height))
    }

    fn i64(&self, tensor: &Range<usize>, at: usize) -> i64 {
        i64::from_le_bytes(self.row(tensor, at))
    }

    fn f64(&self, tensor: &Range<usize>, at: usize) -> f64 {
        f64::from_le_bytes(self.row(tensor, at))
    }

    /// Row `at` of a tensor whose rows have `N` bytes.
    fn row<const N: usize>(&self, tensor: &Range<usize>, at: usize) -> [u8; N] {
        let rows = &self.map[tensor.clone()];
        *rows[at * N..]
            .first_chunk()
            .expect("checked when opened: this is a bug")
    }
}

#[cfg(test)]
mod tests;
