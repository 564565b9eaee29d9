//! Data sets in Parquet files, in the layout of Hugging Face's `datasets`: a row per sample, with
//! an image's bytes and a label. A file may come by itself, or several in an archive, with splits
//! by their names.
//!
//! Row group by row group, the images go into a spool of their own, as an archive's entries do, so
//! that what follows does not differ. At any time one page of each column that is read is in
//! memory. The crate panics on some damaged files; that is an error of the file.

mod columns;
mod error;
mod features;
mod footer;
mod pages;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use ::parquet::{
    file::metadata::ParquetMetaData,
    record::{Field, Row as Record, reader::TreeBuilder},
    schema::types::{SchemaDescriptor, Type},
};
use bytes::Bytes;

use self::{
    columns::Column,
    error::{Unread, panicked},
    pages::{Group, PageLimits},
};
use super::{
    archive::{ArchiveError, Entry, Spool, Spooler},
    codes,
    file_kind::{FileKind, PARQUET},
    layout::{Layout, is_named_like_an_image, split_named},
    manifest::{
        layout_of,
        noted::{Noted, Place},
        rows::Row,
    },
    tables::{split_of_file, whole_splits},
    tensor_file,
};
use crate::{
    domain::{file::Split, problem::Problem, work::DatasetLimits},
    ticks::tick,
};

/// Rows whose images are looked at to see whether a column of bytes holds images.
const PROBED: usize = 100;
/// Different pairs of values of two columns that are compared.
const PAIRS: usize = 100_000;

/// An upload that holds Parquet files.
pub(super) struct Upload<'a> {
    pub(super) spool: &'a Spool,
    pub(super) limits: &'a DatasetLimits,
    /// Bytes as uploaded, which the ratio refers to.
    pub(super) packed_bytes: u64,
    /// Folder of the new spool.
    pub(super) folder: &'a Path,
}

/// The samples of the files.
pub(super) struct Samples {
    pub(super) spool: Spool,
    pub(super) layout: Layout,
    pub(super) warnings: Vec<Problem>,
}

/// Why there are none: the problems of the files, or this machine's.
pub(super) enum Refused {
    Problems(Vec<Problem>),
    Io(io::Error),
}

impl From<ArchiveError> for Refused {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Refused(problem) => Self::Problems(vec![problem]),
            ArchiveError::Io(error) => Self::Io(error),
        }
    }
}

/// A Parquet file of an upload.
struct File<'a> {
    path: &'a str,
    content: Arc<Bytes>,
    metadata: ParquetMetaData,
    image: Column,
    label: Column,
    split: Option<Column>,
}

/// Reads the samples of an upload's Parquet files; `None` where it is no such data set.
///
/// # Errors
/// The problems of all files, with their rows; a limit of the upload; a failing disk.
pub(super) fn read(upload: &Upload<'_>) -> Result<Option<Samples>, Refused> {
    let entries = &upload.spool.entries;
    let has_images = entries
        .iter()
        .any(|entry| is_named_like_an_image(&entry.path));
    let bytes = tensor_file::map(&upload.spool.bytes).map_err(Refused::Io)?;
    let bytes = Bytes::from_owner(bytes);
    let content =
        |entry: &Entry| bytes.slice(entry.offset as usize..(entry.offset + entry.size) as usize);
    let is_file = |entry: &&Entry| {
        let end = entry.path.to_ascii_lowercase();
        is_parquet(&content(entry)) || (!has_images && end.ends_with(".parquet"))
    };
    let (found, others): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_file);
    if found.is_empty() {
        return Ok(None);
    }
    let limits = PageLimits {
        bytes: upload.limits.page_bytes,
        rows: upload.limits.entries,
    };
    let mut opened = found.iter().map(|entry| {
        let opened = guarded(|| open(&entry.path, content(entry), limits));
        (entry.path.as_str(), opened)
    });
    if has_images {
        // Tables of what the images are, unless there are images in them, too.
        let with_images = opened.find(|(_, opened)| opened.is_ok());
        return with_images.map_or(Ok(None), |(path, _)| Err(ambiguous(path)));
    }
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for (path, opened) in opened {
        match opened {
            Ok(file) => files.push(file),
            Err(Unread::Problem(code, message)) => problems.push(Problem::new(path, code, message)),
            Err(Unread::Archive(error)) => return Err(error.into()),
        }
    }
    if !problems.is_empty() {
        problems.truncate(
            usize::try_from(upload.limits.report_problems)
                .unwrap_or(1)
                .max(1),
        );
        return Err(Refused::Problems(problems));
    }
    let paths: Vec<&str> = files.iter().map(|file| file.path).collect();
    let reading = Reading::new(upload, &paths).map_err(Refused::Io)?;
    let mut samples = reading.run(&files, limits)?;
    let left_out = others.iter().map(|entry| {
        let message =
            "images and labels are read from the Parquet files, and this file is left out";
        Problem::new(&entry.path, codes::NOT_IN_MANIFEST, message)
    });
    samples.warnings.extend(left_out);
    Ok(Some(samples))
}

/// True for the content of a Parquet file.
fn is_parquet(content: &[u8]) -> bool {
    content.starts_with(PARQUET)
}

fn ambiguous(path: &str) -> Refused {
    let message =
        "this Parquet file holds images, and there are files of images beside it; send either";
    Refused::Problems(vec![Problem::new(path, codes::AMBIGUOUS_LAYOUT, message)])
}

/// Runs what the crate may panic in.
fn guarded<T>(work: impl FnOnce() -> Result<T, Unread>) -> Result<T, Unread> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(panicked(&*payload)))
}

/// Reads a file's footer, and tells its columns.
fn open(path: &str, content: Bytes, limits: PageLimits) -> Result<File<'_>, Unread> {
    if !is_parquet(&content)
        && let Some(kind) = FileKind::of(&content)
    {
        return Err(Unread::Problem(codes::CORRUPT_PARQUET, kind.to_string()));
    }
    let metadata = footer::read(&content)?;
    let content = Arc::new(content);
    let columns = columns::of(metadata.file_metadata());
    let source = Source {
        content: &content,
        metadata: &metadata,
        limits,
    };
    let told = |(code, message)| Unread::Problem(code, message);
    let holds_images = |column: &Column| source.holds_images(column);
    let image = columns::image(&columns, &holds_images)
        .map_err(told)?
        .clone();
    let split = columns::split(&columns).filter(|column| source.holds_splits(column));
    let mut taken = vec![image.name.as_str()];
    taken.extend(split.map(|column| column.name.as_str()));
    let mut alike = |one: &Column, other: &Column| source.are_alike(one, other);
    let label = columns::label(&columns, &taken, &mut alike)
        .map_err(told)?
        .clone();
    let split = split.cloned();
    Ok(File {
        path,
        content,
        metadata,
        image,
        label,
        split,
    })
}

/// Where rows are read from.
struct Source<'a> {
    content: &'a Arc<Bytes>,
    metadata: &'a ParquetMetaData,
    limits: PageLimits,
}

impl Source<'_> {
    /// Gives the values of some columns in each row to `take`, until it answers false.
    fn rows(
        &self,
        columns: &[&Column],
        take: &mut dyn FnMut(&[&Field]) -> Result<bool, Unread>,
    ) -> Result<(), Unread> {
        let fields = columns.iter().map(|column| column.field());
        let projection = Type::group_type_builder("schema").with_fields(fields.collect());
        let projection = Arc::new(SchemaDescriptor::new(Arc::new(projection.build()?)));
        // Rows one by one, so that no more than the page that they are in is held.
        let rows = TreeBuilder::new().with_batch_size(1);
        for metadata in self.metadata.row_groups() {
            let group = Group {
                file: Arc::clone(self.content),
                metadata,
                limits: self.limits,
            };
            for row in rows.as_iter(projection.clone(), &group)? {
                tick();
                let row: Record = row?;
                let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
                if !take(&fields)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// True where the first value of a column is an image.
    fn holds_images(&self, column: &Column) -> bool {
        let (mut seen, mut found) = (0, false);
        let read = self.rows(&[column], &mut |fields| {
            let bytes = fields.first().and_then(|field| values::image(field).ok());
            found = bytes
                .as_ref()
                .is_some_and(|one| image::guess_format(one.bytes).is_ok());
            seen += 1;
            Ok(bytes.is_none() && seen < PROBED)
        });
        read.is_ok() && found
    }

    /// True where every value of a column is the name of a split.
    fn holds_splits(&self, column: &Column) -> bool {
        let mut all = true;
        let read = self.rows(&[column], &mut |fields| {
            let text = fields.first().map(|field| values::text(field, column));
            all = text.is_some_and(|text| split_named(&text).is_some());
            Ok(all)
        });
        read.is_ok() && all
    }

    /// True where two columns say the same in other words.
    fn are_alike(&self, one: &Column, other: &Column) -> bool {
        let mut pairs: BTreeSet<(String, String)> = BTreeSet::new();
        let read = self.rows(&[one, other], &mut |fields| {
            if let [first, second] = fields {
                pairs.insert((values::text(first, one), values::text(second, other)));
            }
            Ok(pairs.len() <= PAIRS)
        });
        let firsts: BTreeSet<&String> = pairs.iter().map(|(one, _)| one).collect();
        let seconds: BTreeSet<&String> = pairs.iter().map(|(_, other)| other).collect();
        let are_pairs = pairs.len() == firsts.len() && pairs.len() == seconds.len();
        read.is_ok() && are_pairs && pairs.len() <= PAIRS
    }
}

/// The samples that were read so far.
struct Reading<'a> {
    limits: &'a DatasetLimits,
    spooler: Spooler<'a>,
    noted: Noted<'a>,
    rows: Vec<Row>,
    splits: Vec<Option<Split>>,
    count: u64,
}

impl<'a> Reading<'a> {
    fn new(upload: &Upload<'a>, paths: &'a [&'a str]) -> io::Result<Self> {
        Ok(Self {
            limits: upload.limits,
            spooler: Spooler::new(upload.limits, upload.packed_bytes, upload.folder)?,
            noted: Noted::new(paths, upload.limits.report_problems),
            rows: Vec::new(),
            splits: Vec::new(),
            count: 0,
        })
    }

    fn run(mut self, files: &[File<'_>], limits: PageLimits) -> Result<Samples, Refused> {
        for (number, file) in files.iter().enumerate() {
            let before = self.count;
            let read = guarded(|| self.file(number, file, limits));
            match read {
                Ok(()) => {}
                Err(Unread::Problem(code, message)) => {
                    let line = self.count - before + 1;
                    self.noted.at(
                        Place {
                            manifest: number,
                            line,
                        },
                        code,
                        message,
                    );
                }
                Err(Unread::Archive(error)) => return Err(error.into()),
            }
        }
        self.finish()
    }

    fn file(&mut self, number: usize, file: &File<'_>, limits: PageLimits) -> Result<(), Unread> {
        let source = Source {
            content: &file.content,
            metadata: &file.metadata,
            limits,
        };
        let mut columns = vec![&file.image, &file.label];
        columns.extend(&file.split);
        let of_file = split_of_file(file.path);
        let digits = file.metadata.file_metadata().num_rows().to_string().len();
        let mut line = 0;
        source.rows(&columns, &mut |fields| {
            if self.count == self.limits.entries {
                let limit = self.limits.entries;
                let message = format!(
                    "there are more than {limit} rows, as many as an archive may have entries; split the data set"
                );
                return Err(Unread::Problem(codes::TOO_MANY_ROWS, message));
            }
            self.count += 1;
            line += 1;
            let place = Place { manifest: number, line };
            self.row(place, &format!("{line:0digits$}"), file, fields, of_file)?;
            Ok(true)
        })
    }

    fn row(
        &mut self,
        place: Place,
        number: &str,
        file: &File<'_>,
        fields: &[&Field],
        of_file: Option<Split>,
    ) -> Result<(), Unread> {
        let [image, label, split @ ..] = fields else {
            return Err(error::damaged("a row lacks columns"));
        };
        let label = values::label(label, &file.label);
        let image = values::image(image);
        let (label, image) = match (label, image) {
            (Ok(label), Ok(image)) => (label, image),
            (label, image) => {
                for (code, message) in label.err().into_iter().chain(image.err()) {
                    self.noted.at(place, code, message);
                }
                return Ok(());
            }
        };
        let parts = [file.path, number, image.name.as_deref().unwrap_or_default()];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let path = parts.collect::<Vec<_>>().join("/");
        if let Some(path) = self.spooler.admit(path.as_bytes())? {
            let mut bytes = image.bytes;
            let size = bytes.len() as u64;
            self.spooler.file(path.clone(), size, &mut bytes)?;
            let column = file.split.as_ref().zip(split.first());
            let split =
                column.and_then(|(column, field)| split_named(&values::text(field, column)));
            self.splits.push(split.or(of_file));
            self.rows.push(Row {
                place,
                path,
                label,
                split: None,
            });
        }
        Ok(())
    }

    fn finish(self) -> Result<Samples, Refused> {
        let spool = self.spooler.finish()?;
        let entries = &spool.entries;
        let places: BTreeMap<&str, usize> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.path.as_str(), index))
            .collect();
        let places: Vec<Option<usize>> = self
            .rows
            .iter()
            .map(|row| places.get(row.path.as_str()).copied())
            .collect();
        let splits = whole_splits(self.splits, &places, entries);
        let placed = (self.rows, true, places, splits);
        let arranged = layout_of(entries, &[], placed, self.noted);
        let (layout, warnings) = arranged.map_err(Refused::Problems)?;
        Ok(Samples {
            spool,
            layout,
            warnings,
        })
    }
}
