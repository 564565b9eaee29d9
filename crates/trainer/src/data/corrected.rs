//! A data set made of another: an archive of the samples that are left, with a manifest of their
//! labels and splits, which is then validated like any upload. So its content can be downloaded,
//! and uploaded elsewhere, and is the same data set again.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde_json::{Value, json};

use super::{pack::Pack, target::Target, validate};
use crate::domain::{
    corrections::Corrections,
    progress::Validated,
    sample_report::Answer,
    work::{CORRECTED, DatasetLimits},
};

/// Name of the manifest, which comes first.
const MANIFEST: &str = "manifest.jsonl";
/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Makes a data set of the pack at a path by corrections, in `folder`: `corrected.tar`, and what
/// its validation on `threads` threads writes.
pub fn run(
    (input, corrections): (&Path, &Corrections),
    limits: &DatasetLimits,
    threads: usize,
    folder: &Path,
) -> Validated {
    let path = folder.join(CORRECTED);
    match write(input, corrections, &path) {
        Ok(()) => validate::run(&path, limits, threads, folder),
        Err(error) => Validated::Failed(validate::failure(&error)),
    }
}

fn write(input: &Path, corrections: &Corrections, path: &Path) -> io::Result<()> {
    let pack = Pack::open(input).map_err(io::Error::other)?;
    let kept = || (0..pack.len()).filter(|&sample| !corrections.exclude.contains(&(sample as u64)));
    let mut manifest = Vec::new();
    for sample in kept() {
        let (name, label) = label_of(&pack, corrections, sample);
        let row = json!({
            "path": pack.path(sample), name: label, "split": pack.split(sample).as_str(),
        });
        serde_json::to_writer(&mut manifest, &row)?;
        manifest.push(b'\n');
    }
    let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    let mut archive = tar::Builder::new(out);
    append(&mut archive, MANIFEST, &manifest)?;
    for sample in kept() {
        append(&mut archive, pack.path(sample), pack.bytes(sample))?;
    }
    archive.into_inner()?.flush()
}

/// The column and the label of a sample, as it is now.
fn label_of(pack: &Pack, corrections: &Corrections, sample: usize) -> (&'static str, Value) {
    let class = |label: usize| &pack.classes()[label];
    match (
        corrections.relabel.get(&(sample as u64)),
        pack.target(sample),
    ) {
        (Some(Answer::Value(value)), _) => ("value", json!(value)),
        (Some(label), _) => ("label", json!(label)),
        (None, Target::Class(label)) => ("label", json!(class(label))),
        (None, Target::Classes(labels)) => {
            let names: Vec<&String> = labels.into_iter().map(class).collect();
            ("label", json!(names))
        }
        (None, Target::Value(value)) => ("value", json!(value)),
    }
}

/// Adds a file; the same files give the same archive.
fn append(archive: &mut tar::Builder<impl io::Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes)
}
