//! Validates an upload: every entry unpacked within limits, every image decoded once, a report and
//! a pack written.

mod findings;

use std::{fs, io, path::Path};

use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _,
};
use sha2::{Digest as _, Sha256};

use self::findings::{Image, Verdict};
use super::{
    archive::{self, ArchiveError, Spool},
    batch, codes, image,
    layout::{self, Layout, Placed},
    manifest, pack, tables, tensor_file,
};
use crate::domain::{
    base_model::Interpolation,
    file::FileReport,
    problem::Problem,
    progress::{Failure, Validated},
    work::DatasetLimits,
};

/// The report, in the folder.
pub const REPORT: &str = "report.json";
/// The pack, in the folder, when accepted.
pub const PACK: &str = "pack.safetensors";

/// Validates the archive `input` on `threads` threads and writes `report.json` (always) and
/// `pack.safetensors` (when accepted) into `folder`. Never panics on what the archive holds; a full
/// disk or the like is `Validated::Failed`.
pub fn run(input: &Path, limits: &DatasetLimits, threads: usize, folder: &Path) -> Validated {
    let outcome = validate(input, limits, threads, folder).and_then(|report| {
        write_report(folder, &report)?;
        Ok(report)
    });
    match outcome {
        Ok(FileReport { errors, .. }) if errors.is_empty() => Validated::Accepted,
        Ok(FileReport { errors, .. }) => Validated::Refused { problems: errors },
        Err(error) => Validated::Failed(failure(&error)),
    }
}

fn validate(
    input: &Path,
    limits: &DatasetLimits,
    threads: usize,
    folder: &Path,
) -> io::Result<FileReport> {
    let spool = match archive::unpack(input, limits, folder) {
        Ok(spool) => spool,
        Err(ArchiveError::Refused(problem)) => return Ok(FileReport::refused(vec![problem])),
        Err(ArchiveError::Io(error)) => return Err(error),
    };
    let bytes = tensor_file::map(&spool.bytes)?;
    let (layout, said) = match arrange(&spool, &bytes, limits) {
        Ok(arranged) => arranged,
        Err(problems) => return Ok(FileReport::refused(problems)),
    };
    let images = decode_all(&spool, &layout, &bytes, limits.pixels, threads);
    let Verdict { report, splits } = findings::judge(
        &spool.entries,
        &layout,
        &images,
        said,
        limits.report_problems,
    );
    if report.errors.is_empty() {
        let usable = layout.files.iter().zip(&images).zip(&splits);
        let samples: Vec<pack::Sample> = usable
            .filter_map(|((file, image), &split)| {
                let entry = &spool.entries[file.entry];
                let image = image.as_ref().ok()?;
                Some(pack::Sample {
                    path: &entry.path,
                    bytes: content(&bytes, entry),
                    sha256: image.sha256,
                    target: &file.target,
                    split,
                    width: image.width,
                    height: image.height,
                })
            })
            .collect();
        pack::write(&folder.join(PACK), layout.task, &layout.classes, &samples)?;
    }
    Ok(report)
}

/// The layout by the manifest, or else by other tables or the folders, with warnings.
fn arrange(
    spool: &Spool,
    bytes: &[u8],
    limits: &DatasetLimits,
) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
    let found = manifest::find(&spool.entries).map_err(|problem| vec![problem])?;
    let (layout, mut warnings) = match found {
        Some(found) => {
            let text = content(bytes, &spool.entries[found.entry]);
            manifest::read(&spool.entries, &found, text, limits)
        }
        None => {
            let folders = layout::read(&spool.entries, &spool.folders);
            let content = |entry: &archive::Entry| content(bytes, entry);
            tables::read_tables(&spool.entries, &content, folders, limits)
        }
    }?;
    warnings.extend(spool.warnings.iter().cloned());
    Ok((layout, warnings))
}

/// Decodes every image that has a target, and keeps only its size and hash.
fn decode_all(
    spool: &Spool,
    layout: &Layout,
    bytes: &[u8],
    max_pixels: u64,
    threads: usize,
) -> Vec<Result<Image, image::DecodeError>> {
    let one = |file: &Placed| {
        let bytes = content(bytes, &spool.entries[file.entry]);
        let form = (3, Interpolation::Bilinear);
        let image = image::decode_resized(bytes, max_pixels, form, &|_| Vec::new())?;
        Ok(Image {
            width: image.width,
            height: image.height,
            sha256: Sha256::digest(bytes).into(),
        })
    };
    // Decoding takes from microseconds to seconds: threads take single files, not halves of the
    // list.
    batch::pool(threads).install(|| layout.files.par_iter().with_max_len(1).map(one).collect())
}

fn content<'a>(bytes: &'a [u8], entry: &archive::Entry) -> &'a [u8] {
    &bytes[entry.offset as usize..(entry.offset + entry.size) as usize]
}

/// Writes the report to a temporary file and renames it.
fn write_report(folder: &Path, report: &FileReport) -> io::Result<()> {
    let part = folder.join(format!("{REPORT}.part"));
    fs::write(&part, serde_json::to_vec(report)?)?;
    fs::rename(part, folder.join(REPORT))
}

fn failure(error: &io::Error) -> Failure {
    let (code, message) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            codes::STORAGE_FULL,
            "the disk is full: the worker cannot unpack the data set".to_owned(),
        ),
        _ => (
            codes::INTERNAL_ERROR,
            format!("the data set cannot be read: {error}"),
        ),
    };
    Failure::retryable(code, message)
}
