//! JSON as this process exchanges it with others: files in its folder, lines in its pipes.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use super::error::TrainError;

/// Reads a whole file.
///
/// # Errors
/// `Io`; `Plan` for a file that holds something else.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = fs::read(path).map_err(TrainError::io(format!("cannot read {}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| TrainError::Plan(format!("{}: {error}", path.display())))
}

/// Writes a whole file, for people to read too.
///
/// # Errors
/// `Io`.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text = serde_json::to_vec_pretty(value).expect("a result is plain data: this is a bug");
    fs::write(path, text).map_err(TrainError::io(format!("cannot write {}", path.display())))
}

/// Writes one line.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}
