//! Writes packs: the header first, then tensor by tensor, so that no more than the index is ever in
//! memory.

use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde_json::json;

use crate::{
    data::target::Target,
    domain::{file::Split, recipe::Task},
};

/// Version of the layout that the module above describes; a reader refuses any other.
pub(super) const VERSION: &str = "1";

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
    let paths = serde_json::to_vec(&samples.iter().map(|sample| sample.path).collect::<Vec<_>>())?;
    let temp = tempfile::NamedTempFile::new_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, temp.as_file());
    let header = header(task, classes, samples, paths.len())?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut offset = 0_i64;
    for sample in samples {
        out.write_all(&offset.to_le_bytes())?;
        offset += sample.bytes.len() as i64;
    }
    for sample in samples {
        out.write_all(&(sample.bytes.len() as i64).to_le_bytes())?;
    }
    write_targets(&mut out, samples)?;
    for sample in samples {
        out.write_all(&(sample.width as i32).to_le_bytes())?;
    }
    for sample in samples {
        out.write_all(&(sample.height as i32).to_le_bytes())?;
    }
    for sample in samples {
        out.write_all(&[code_of(sample.split)])?;
    }
    for sample in samples {
        out.write_all(&sample.sha256)?;
    }
    out.write_all(&paths)?;
    for sample in samples {
        out.write_all(sample.bytes)?;
    }
    out.flush()?;
    drop(out);
    temp.persist(path)?;
    Ok(())
}

/// The tensors that `target_tensors` names, in that order.
fn write_targets(out: &mut impl io::Write, samples: &[Sample]) -> io::Result<()> {
    let mut end = 0_i64;
    for sample in samples {
        let eight_bytes = match sample.target {
            Target::Class(label) => (*label as i64).to_le_bytes(),
            Target::Value(value) => value.to_le_bytes(),
            Target::Classes(labels) => {
                end += labels.len() as i64;
                end.to_le_bytes()
            }
        };
        out.write_all(&eight_bytes)?;
    }
    for sample in samples {
        if let Target::Classes(labels) = sample.target {
            for &label in labels {
                out.write_all(&(label as i64).to_le_bytes())?;
            }
        }
    }
    Ok(())
}

/// Names and dtypes of the tensors that hold the targets, and how many values each holds.
fn target_tensors(task: Task, samples: &[Sample]) -> Vec<(&'static str, &'static str, usize)> {
    let n = samples.len();
    match task {
        Task::SingleLabelClassification => vec![("label", "I64", n)],
        Task::Regression => vec![("value", "F64", n)],
        Task::MultiLabelClassification => {
            let all = samples
                .iter()
                .map(|sample| sample.target.classes().len())
                .sum();
            vec![("labels_end", "I64", n), ("labels", "I64", all)]
        }
    }
}

/// The JSON header, padded so that the data behind it start at a multiple of eight.
fn header(
    task: Task,
    classes: &[String],
    samples: &[Sample],
    paths_bytes: usize,
) -> io::Result<Vec<u8>> {
    let n = samples.len();
    let total: usize = samples.iter().map(|sample| sample.bytes.len()).sum();
    let mut header = serde_json::Map::new();
    let mut metadata = json!({ "version": VERSION, "classes": serde_json::to_string(classes)? });
    if task != Task::SingleLabelClassification {
        metadata["task"] = task.as_str().into();
    }
    header.insert("__metadata__".to_owned(), metadata);
    let mut tensors = vec![("offset", "I64", 8, vec![n]), ("size", "I64", 8, vec![n])];
    let targets = target_tensors(task, samples).into_iter();
    tensors.extend(targets.map(|(name, dtype, count)| (name, dtype, 8, vec![count])));
    tensors.extend([
        ("width", "I32", 4, vec![n]),
        ("height", "I32", 4, vec![n]),
        ("split", "U8", 1, vec![n]),
        ("sha256", "U8", 1, vec![n, 32]),
        ("paths", "U8", 1, vec![paths_bytes]),
        ("bytes", "U8", 1, vec![total]),
    ]);
    let mut end = 0;
    for (name, dtype, width, shape) in tensors {
        let start = end;
        end += width * shape.iter().product::<usize>();
        header.insert(
            name.to_owned(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn code_of(split: Split) -> u8 {
    match split {
        Split::Train => 0,
        Split::Validation => 1,
        Split::Test => 2,
    }
}
