//! Writes packs: the header first, then tensor by tensor, so that no more than the index is ever in
//! memory.

use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

use safetensors::Dtype;
use serde_json::json;

use crate::{
    data::{target::Target, tensor_file},
    domain::{file::Split, recipe::Task},
};

/// Version of the layout that the module above describes; a reader refuses any other.
pub(super) const VERSION: &str = "1";
/// The splits by their code.
pub(super) const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

/// One sample of a pack to write.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    pub path: &'a str,
    /// The encoded image.
    pub bytes: &'a [u8],
    pub sha256: [u8; 32],
    /// A target of the pack's task.
    pub target: &'a Target,
    pub split: Split,
    /// Width of the decoded image, in pixels.
    pub width: u32,
    pub height: u32,
}

/// Writes a pack to a temporary file beside `path` and renames it. The samples must be sorted by
/// path, and have targets of `task`.
///
/// # Errors
/// A full or failing disk; nothing is left behind.
pub fn write(path: &Path, task: Task, classes: &[String], samples: &[Sample]) -> io::Result<()> {
    let folder = path.parent().expect("a pack is in a folder: this is a bug");
    let mut metadata = json!({ "version": VERSION, "classes": serde_json::to_string(classes)? });
    if task != Task::SingleLabelClassification {
        metadata["task"] = task.as_str().into();
    }
    let index = index(task, samples)?;
    let total = samples.iter().map(|sample| sample.bytes.len()).sum();
    let tensors = index
        .iter()
        .map(|(name, dtype, shape, _)| (*name, *dtype, shape.clone()));
    let tensors = tensors.chain([("bytes", Dtype::U8, vec![total])]);
    let temp = tempfile::NamedTempFile::new_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, temp.as_file());
    out.write_all(&tensor_file::header(metadata, tensors)?)?;
    for (.., bytes) in &index {
        out.write_all(bytes)?;
    }
    for sample in samples {
        out.write_all(sample.bytes)?;
    }
    out.flush()?;
    drop(out);
    temp.persist(path)?;
    Ok(())
}

/// A tensor of the index: name, type, shape and bytes.
type Column = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// All tensors but the samples' bytes, in their order in the file.
fn index(task: Task, samples: &[Sample]) -> io::Result<Vec<Column>> {
    let mut offset = 0_i64;
    let mut columns = vec![
        column("offset", Dtype::I64, samples, |sample| {
            let start = offset;
            offset += sample.bytes.len() as i64;
            start.to_le_bytes()
        }),
        column("size", Dtype::I64, samples, |sample| {
            (sample.bytes.len() as i64).to_le_bytes()
        }),
    ];
    columns.extend(targets(task, samples));
    let paths = serde_json::to_vec(&samples.iter().map(|sample| sample.path).collect::<Vec<_>>())?;
    columns.extend([
        column("width", Dtype::I32, samples, |sample| {
            (sample.width as i32).to_le_bytes()
        }),
        column("height", Dtype::I32, samples, |sample| {
            (sample.height as i32).to_le_bytes()
        }),
        column("split", Dtype::U8, samples, |sample| {
            [code_of(sample.split)]
        }),
        column("sha256", Dtype::U8, samples, |sample| sample.sha256),
        ("paths", Dtype::U8, vec![paths.len()], paths),
    ]);
    Ok(columns)
}

/// A tensor with a row of `N` bytes for each sample.
fn column<const N: usize>(
    name: &'static str,
    dtype: Dtype,
    samples: &[Sample],
    row: impl FnMut(&Sample) -> [u8; N],
) -> Column {
    let mut shape = vec![samples.len()];
    let width = N * 8 / dtype.bitsize();
    if width > 1 {
        shape.push(width);
    }
    (name, dtype, shape, samples.iter().flat_map(row).collect())
}

/// The tensors that hold the targets.
fn targets(task: Task, samples: &[Sample]) -> Vec<Column> {
    let (name, dtype) = match task {
        Task::SingleLabelClassification => ("label", Dtype::I64),
        Task::Regression => ("value", Dtype::F64),
        Task::MultiLabelClassification => ("labels_end", Dtype::I64),
    };
    let mut end = 0_i64;
    let mut columns = vec![column(name, dtype, samples, |sample| match sample.target {
        Target::Class(label) => (*label as i64).to_le_bytes(),
        Target::Value(value) => value.to_le_bytes(),
        Target::Classes(labels) => {
            end += labels.len() as i64;
            end.to_le_bytes()
        }
    })];
    if task == Task::MultiLabelClassification {
        let labels = samples.iter().flat_map(|sample| sample.target.classes());
        let bytes: Vec<u8> = labels
            .flat_map(|&label| (label as i64).to_le_bytes())
            .collect();
        columns.push(("labels", Dtype::I64, vec![bytes.len() / 8], bytes));
    }
    columns
}

fn code_of(split: Split) -> u8 {
    let code = SPLITS.iter().position(|&known| known == split);
    code.expect("every split has a code: this is a bug") as u8
}
