//! Writes packs: the header first, then tensor by tensor, so that no more than the index is ever in memory.

use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde_json::json;

use super::VERSION;
use crate::domain::file::Split;

/// One sample of a pack that is to be written.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    pub path: &'a str,
    /// The encoded image.
    pub bytes: &'a [u8],
    pub sha256: [u8; 32],
    /// An index into the classes.
    pub label: usize,
    pub split: Split,
    /// Of the decoded image, in pixels.
    pub width: u32,
    pub height: u32,
}

/// Writes a pack beside `path`, then gives it that name. The samples must be sorted by path.
///
/// # Errors
/// When the disk fails or is full; then nothing is left behind.
pub fn write(path: &Path, classes: &[String], samples: &[Sample]) -> io::Result<()> {
    let folder = path.parent().expect("a pack is in a folder: this is a bug");
    let paths = serde_json::to_vec(&samples.iter().map(|sample| sample.path).collect::<Vec<_>>())?;
    let temp = tempfile::NamedTempFile::new_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, temp.as_file());
    let header = header(classes, samples, paths.len())?;
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
    for sample in samples {
        out.write_all(&(sample.label as i64).to_le_bytes())?;
    }
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

/// The JSON header, padded so that the data behind it start at a multiple of eight.
fn header(classes: &[String], samples: &[Sample], paths_bytes: usize) -> io::Result<Vec<u8>> {
    let n = samples.len();
    let total: usize = samples.iter().map(|sample| sample.bytes.len()).sum();
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_owned(),
        json!({ "version": VERSION, "classes": serde_json::to_string(classes)? }),
    );
    let mut end = 0;
    for (name, dtype, width, shape) in [
        ("offset", "I64", 8, vec![n]),
        ("size", "I64", 8, vec![n]),
        ("label", "I64", 8, vec![n]),
        ("width", "I32", 4, vec![n]),
        ("height", "I32", 4, vec![n]),
        ("split", "U8", 1, vec![n]),
        ("sha256", "U8", 1, vec![n, 32]),
        ("paths", "U8", 1, vec![paths_bytes]),
        ("bytes", "U8", 1, vec![total]),
    ] {
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
