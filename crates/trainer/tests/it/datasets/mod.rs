//! Uploads as the validation process sees them: what is accepted, what is refused and how that is
//! said, and that nothing but a report is left behind.

mod archives;
mod contents;
mod corrected;
mod manifests;
mod parquet;

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rehead_domain::{
    file::{Dataset, FileReport, Split},
    progress::{Validated, exit},
    work::{DatasetLimits, PLAN, ValidatePlan},
};
use rehead_trainer::data::pack::Pack;
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::support::data::zip as zipped;

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 1_000,
    unpacked_bytes: 64 << 20,
    entry_bytes: 16 << 20,
    ratio: 100,
    page_bytes: 16 << 20,
    pixels: 1_000_000,
    report_problems: 100,
    thumbnails: 100,
};

/// The outcome of a validation, and the folder with its results.
struct Outcome {
    folder: TempDir,
    said: Validated,
    report: FileReport,
}

impl Outcome {
    fn read(folder: TempDir, said: Validated) -> Self {
        let report = fs::read(folder.path().join("report.json")).unwrap();
        let report = serde_json::from_slice(&report).unwrap();
        Self {
            folder,
            said,
            report,
        }
    }

    /// Code and path of each error.
    fn errors(&self) -> Vec<(&str, &str)> {
        pairs(&self.report.errors)
    }

    fn warnings(&self) -> Vec<(&str, &str)> {
        pairs(&self.report.warnings)
    }

    fn dataset(&self) -> &Dataset {
        assert_eq!(self.said, Validated::Accepted, "{:?}", self.report.errors);
        self.report.dataset.as_ref().unwrap()
    }

    fn pack(&self) -> Pack {
        Pack::open(&self.folder.path().join("pack.safetensors")).unwrap()
    }

    fn pack_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("pack.safetensors")).unwrap()
    }

    /// The split of every sample, by its path.
    fn splits(&self) -> BTreeMap<String, Split> {
        let pack = self.pack();
        (0..pack.len())
            .map(|sample| (pack.path(sample).to_owned(), pack.split(sample)))
            .collect()
    }

    /// Refused with this one error, in so many words, with nothing but the report left.
    fn assert_refused(&self, code: &str) {
        assert_eq!(self.report.errors.len(), 1, "{:?}", self.report.errors);
        let problem = &self.report.errors[0];
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(problem.message.len() > 30, "{problem:?}");
        let Validated::Refused { problems } = &self.said else {
            panic!("{:?}", self.said)
        };
        assert_eq!(problems, &self.report.errors);
        assert_eq!(self.report.dataset, None);
        let mut left: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["input", PLAN, "report.json"]);
    }
}

fn pairs(problems: &[rehead_domain::problem::Problem]) -> Vec<(&str, &str)> {
    problems
        .iter()
        .map(|problem| (problem.code.as_str(), problem.path.as_str()))
        .collect()
}

fn validate(archive: impl AsRef<[u8]>) -> Outcome {
    validate_within(LIMITS, archive)
}

fn validate_within(limits: DatasetLimits, archive: impl AsRef<[u8]>) -> Outcome {
    let (folder, input) = upload(limits, archive);
    let said = rehead_trainer::data::validate::run(&input, &limits, 2, folder.path());
    Outcome::read(folder, said)
}

/// Like `validate`, in a process of its own.
fn validate_in_a_child(archive: impl AsRef<[u8]>) -> Outcome {
    let (folder, _) = upload(LIMITS, archive);
    let output = Command::new(env!("CARGO_BIN_EXE_rehead-trainer"))
        .arg("validate")
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(exit::DONE));
    let stdout = String::from_utf8(output.stdout).unwrap();
    // Before it come reports of work where the machine is slow.
    let last = stdout.lines().last().unwrap();
    let said = serde_json::from_str(last).unwrap();
    Outcome::read(folder, said)
}

/// A folder with an archive and the plan to validate it.
fn upload(limits: DatasetLimits, archive: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    fs::write(&input, archive).unwrap();
    let plan = ValidatePlan::Dataset {
        input: input.clone(),
        limits,
        threads: 2,
    };
    fs::write(folder.path().join(PLAN), serde_json::to_vec(&plan).unwrap()).unwrap();
    (folder, input)
}

/// A small image that no other number gives.
fn image(number: usize) -> Vec<u8> {
    let color = |x: u32, y: u32| [number as u8, (number >> 8) as u8, (x * y) as u8];
    let image = image::RgbImage::from_fn(8, 6, |x, y| image::Rgb(color(x, y)));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

type Files = Vec<(String, Vec<u8>)>;

/// `count` images of each class, from number `start` on.
fn images(classes: &[&str], start: usize, count: usize) -> Files {
    let numbered = |(place, class)| {
        (start..start + count).map(move |number| {
            (
                format!("{class}/{number}.png"),
                image(number + place * 10_000),
            )
        })
    };
    classes.iter().enumerate().flat_map(numbered).collect()
}

fn cats_and_dogs() -> Files {
    images(&["cats", "dogs"], 0, 10)
}

fn with(mut files: Files, path: &str, bytes: impl Into<Vec<u8>>) -> Files {
    files.push((path.to_owned(), bytes.into()));
    files
}

/// A tar, with names as they are.
fn tarred(files: &Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        append(&mut builder, tar::EntryType::Regular, path, bytes);
    }
    builder.into_inner().unwrap()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    if kind == tar::EntryType::Symlink || kind == tar::EntryType::Link {
        header.set_link_name("/etc/passwd").unwrap();
    }
    if let Some(gnu) = header
        .as_gnu_mut()
        .filter(|_| kind == tar::EntryType::GNUSparse)
    {
        gnu.realsize = *b"00000000000\0";
    }
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Replaces every occurrence of a byte string by another of its length.
fn bent(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..=bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}
