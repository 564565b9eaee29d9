//! Validates an upload: every entry unpacked within limits, every image decoded once, a report, a
//! pack and thumbnails written.

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
    manifest,
    pack::{self, Pack},
    parquet, tables, tensor_file,
    thumbnails::{Thumbnails, of_pack},
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

/// Validates the archive `input` on `threads` threads and writes `report.json` (always),
/// `pack.safetensors` and `thumbnails` (when accepted) into `folder`. Never panics on what the
/// archive holds; a full disk or the like is `Validated::Failed`.
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

/// Makes the thumbnails of the pack `input` on `threads` threads, in `folder`.
pub fn thumbnails(
    input: &Path,
    limits: &DatasetLimits,
    threads: usize,
    folder: &Path,
) -> Validated {
    match of_pack(input, limits, threads, folder) {
        Ok(()) => Validated::Accepted,
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
    let upload = parquet::Upload {
        spool: &spool,
        limits,
        packed_bytes: fs::metadata(input)?.len(),
        folder,
    };
    let arranged = match parquet::read(&upload) {
        Ok(Some(samples)) => Ok((samples.spool, samples.layout, samples.warnings)),
        Ok(None) => arrange(spool, limits)?,
        Err(parquet::Refused::Problems(problems)) => Err(problems),
        Err(parquet::Refused::Io(error)) => return Err(error),
    };
    let (spool, layout, said) = match arranged {
        Ok(arranged) => arranged,
        Err(problems) => return Ok(FileReport::refused(problems)),
    };
    let bytes = tensor_file::map(&spool.bytes)?;
    let thumbnails = Thumbnails::create(folder)?;
    let images = decode_all((&spool, &layout, &bytes), limits, &thumbnails, threads)?;
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
        let path = folder.join(PACK);
        pack::write(&path, layout.task, &layout.classes, &samples)?;
        let pack = Pack::open(&path).map_err(io::Error::other)?;
        let usable = images.iter().filter_map(|image| image.as_ref().ok());
        let made: Vec<_> = usable.map(|image| image.thumbnail).collect();
        thumbnails.finish(&pack, &made, folder)?;
    }
    Ok(report)
}

/// The layout by the manifest, or else by other tables or the folders, with warnings.
fn arrange(spool: Spool, limits: &DatasetLimits) -> io::Result<Result<Arranged, Vec<Problem>>> {
    let bytes = tensor_file::map(&spool.bytes)?;
    let found = match manifest::find(&spool.entries) {
        Ok(Some(found)) => {
            let text = content(&bytes, &spool.entries[found.entry]);
            manifest::read(&spool.entries, &found, text, limits)
        }
        Ok(None) => {
            let folders = layout::read(&spool.entries, &spool.folders);
            let content = |entry: &archive::Entry| content(&bytes, entry);
            tables::read_tables(&spool.entries, &content, folders, limits)
        }
        Err(problem) => Err(vec![problem]),
    };
    Ok(found.map(|(layout, mut warnings)| {
        warnings.extend(spool.warnings.iter().cloned());
        (spool, layout, warnings)
    }))
}

/// An upload's files, their layout, and warnings.
type Arranged = (Spool, Layout, Vec<Problem>);

/// Decodes every image that has a target, adds its thumbnail, and keeps only its size and hash.
fn decode_all(
    (spool, layout, bytes): (&Spool, &Layout, &[u8]),
    limits: &DatasetLimits,
    thumbnails: &Thumbnails,
    threads: usize,
) -> io::Result<Vec<Result<Image, image::DecodeError>>> {
    let decode = |index: usize, bytes: &[u8]| {
        if (index as u64) < limits.thumbnails {
            let decoded = thumbnails.add(bytes, limits.pixels)?;
            return Ok(decoded.map(|(width, height, small)| (width, height, Some(small))));
        }
        let form = (3, Interpolation::Bilinear);
        let decoded = image::decode_resized(bytes, limits.pixels, form, &|_| Vec::new());
        Ok::<_, io::Error>(decoded.map(|image| (image.width, image.height, None)))
    };
    let one = |(index, file): (usize, &Placed)| {
        let bytes = content(bytes, &spool.entries[file.entry]);
        let decoded = decode(index, bytes)?;
        Ok(decoded.map(|(width, height, thumbnail)| Image {
            width,
            height,
            sha256: Sha256::digest(bytes).into(),
            thumbnail,
        }))
    };
    // Decoding takes from microseconds to seconds: threads take single files, not halves of the
    // list.
    let files = layout.files.par_iter().enumerate().with_max_len(1);
    batch::pool(threads).install(|| files.map(one).collect())
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

pub(super) fn failure(error: &io::Error) -> Failure {
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
