//! Tables of labels under other names than a manifest's, such as `labels.csv`, the `metadata.csv`
//! of Hugging Face's imagefolder, or the `_classes.csv` that exporters write into each split's
//! folder. What a table means is told by its contents: which column names the archive's images, and
//! which are the labels. A table that says the same as the folders, or names no image, changes
//! nothing. Pure.

mod columns;
mod images;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Cursor, Read as _},
};

pub(super) use self::columns::{FILES, LABELS, SPLITS};
use self::{
    columns::{LabelledRow, columns_of, file_column},
    images::Images,
    table::TABLE_BYTES,
};
use crate::{
    data::{
        archive::{Entry, entry_path},
        codes,
        layout::{Layout, is_named_like_an_image, split_inside, split_named},
        manifest::{
            label::Label,
            layout_of,
            noted::{Noted, Place},
            rows::Row,
        },
    },
    domain::{file::Split, problem::Problem, recipe::Task, work::DatasetLimits},
};

/// Ends of the names of tables that are read.
const TEXTS: [&str; 7] = ["csv", "tsv", "txt", "json", "jsonl", "ndjson", "lst"];
/// Ends of the names of tables that are not.
const BINARIES: [&str; 9] = [
    "xlsx", "xls", "ods", "numbers", "parquet", "feather", "pkl", "mat", "sqlite",
];
/// Tables that are looked at, those nearest to the root first.
const LOOKED_AT: usize = 200;
/// Words in the names of tables whose purpose is to hold labels.
const TELLING: [&str; 20] = [
    "label",
    "labels",
    "annotation",
    "annotations",
    "metadata",
    "class",
    "classes",
    "manifest",
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "truth",
    "gt",
    "target",
    "targets",
    "index",
    "dataset",
];

/// Reads labels from the tables of an archive without a manifest. `folders` is what its folders
/// say, and is the answer where no table says otherwise.
///
/// # Errors
/// A table that names images and has labels which cannot be told from its other columns; problems
/// in its rows; the problems of `folders`.
pub fn read_tables<'a>(
    entries: &[Entry],
    content: &dyn Fn(&Entry) -> &'a [u8],
    folders: Result<Layout, Vec<Problem>>,
    limits: &DatasetLimits,
) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
    let images = Images::of(entries);
    let mut found = Found::default();
    for entry in candidates(entries, &images) {
        found.look_at(entry, entries, content(&entries[entry]), &images, limits);
    }
    let is_good = |layout: &Layout| layout.classes.len() > 1 && !has_empty_class(layout, entries);
    let good = folders.as_ref().ok().filter(|layout| is_good(layout));
    if let Some(layout) = good {
        found.tables.retain(|table| !table.says_the_same(layout));
    }
    let unclear = found
        .unclear
        .iter()
        .find(|unclear| good.is_none() || unclear.is_telling);
    if found.tables.is_empty() {
        if let Some(unclear) = unclear {
            return Err(vec![unclear.refusal()]);
        }
        if good.is_none()
            && let Some(problem) = of_another_kind(entries, folders.as_ref().ok(), &images)
        {
            return Err(vec![problem]);
        }
        let warnings = found.unclear.iter().map(Unclear::warning).collect();
        return Ok((folders?, warnings));
    }
    found.into_layout(entries, limits)
}

/// True where a class has no file that could be an image.
fn has_empty_class(layout: &Layout, entries: &[Entry]) -> bool {
    let images = layout
        .files
        .iter()
        .filter(|file| is_named_like_an_image(&entries[file.entry].path));
    let filled: BTreeSet<usize> = images
        .flat_map(|file| file.target.classes().to_vec())
        .collect();
    filled.len() < layout.classes.len()
}

/// Why an archive without class folders is no data set, where its files tell.
fn of_another_kind(
    entries: &[Entry],
    folders: Option<&Layout>,
    images: &Images<'_>,
) -> Option<Problem> {
    const ARCHIVES: [&str; 8] = ["zip", "tar", "gz", "tgz", "zst", "7z", "rar", "bz2"];
    let mut archives = entries.iter().map(|entry| entry.path.as_str());
    if let Some(path) = archives.find(|path| ARCHIVES.contains(&end_of(path).as_str()))
        && images.paths.is_empty()
    {
        let message = "this is an archive inside the archive; unpack it, and pack the folders with the images";
        return Some(Problem::new(path, codes::NO_CLASS_FOLDERS, message));
    }
    let is_box = |path: &str| {
        ["txt", "xml", "json"].contains(&end_of(path).as_str())
            && images.stems.contains_key(stem_of(path))
    };
    let mut files = folders?
        .files
        .iter()
        .map(|file| entries[file.entry].path.as_str());
    let boxes = files.find(|path| is_box(path))?;
    let message = "there is a file like this for each image, as programs for object detection write (YOLO, Pascal VOC); a \
        classifier needs a folder of images per class, or a manifest.csv with the columns `path` and `label`";
    Some(Problem::new(boxes, codes::NO_CLASS_FOLDERS, message))
}

/// Entries that may be tables, those nearest to the root first.
fn candidates(entries: &[Entry], images: &Images<'_>) -> Vec<usize> {
    let could_be = |&index: &usize| {
        let Entry { path, size, .. } = &entries[index];
        let end = end_of(path);
        let known = TEXTS.contains(&end.as_str()) || BINARIES.contains(&end.as_str());
        // Exporters write a file of boxes or a caption for each image.
        let of_one_image = images.stems.contains_key(stem_of(path));
        let is_example = path.to_ascii_lowercase().contains("submission");
        known && *size <= TABLE_BYTES && !of_one_image && !is_example
    };
    let mut found: Vec<usize> = (0..entries.len()).filter(could_be).collect();
    found.sort_by_key(|&index| entries[index].path.matches('/').count());
    found.truncate(LOOKED_AT);
    found
}

/// The part of a name behind its last dot, in lower case.
fn end_of(path: &str) -> String {
    path.rsplit_once('.')
        .map_or("", |(_, end)| end)
        .to_ascii_lowercase()
}

/// The name of a file without folders and without what follows its first dot.
fn stem_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

/// The tables of an archive.
#[derive(Default)]
struct Found {
    tables: Vec<Labelled>,
    unclear: Vec<Unclear>,
}

/// A table of labels.
struct Labelled {
    /// Its entry, and its path.
    entry: usize,
    path: String,
    /// The columns, for people.
    columns: String,
    /// The image of each row, and its label or what is wrong with it.
    rows: Vec<LabelledRow>,
}

/// A table that names images, and whose labels cannot be told.
struct Unclear {
    path: String,
    why: String,
    /// True where its name says that it holds labels.
    is_telling: bool,
}

impl Unclear {
    fn refusal(&self) -> Problem {
        let message = format!(
            "this table names images of the archive, but {}; call it manifest.csv, with the columns `path` and `label` \
             (docs/manifests.md), or remove it",
            self.why
        );
        Problem::new(&self.path, codes::INVALID_MANIFEST, message)
    }

    fn warning(&self) -> Problem {
        let message = format!(
            "this table names images of the archive, but is not read: {}",
            self.why
        );
        Problem::new(&self.path, codes::TABLE_NOT_READ, message)
    }
}

impl Found {
    fn look_at(
        &mut self,
        entry: usize,
        entries: &[Entry],
        bytes: &[u8],
        images: &Images<'_>,
        limits: &DatasetLimits,
    ) {
        let path = &entries[entry].path;
        let mut unclear = |why: String| {
            self.unclear.push(Unclear {
                path: path.clone(),
                why,
                is_telling: is_telling(path),
            });
        };
        if BINARIES.contains(&end_of(path).as_str()) {
            if names_images(bytes, images) {
                unclear("it is not text: save it as CSV".to_owned());
            }
            return;
        }
        let folder = path
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let find = |cell: &str| images.find(&folder, cell);
        let max_rows = usize::try_from(limits.entries).unwrap_or(usize::MAX);
        let Some(table) = table::read(bytes, max_rows, &|cell| find(cell).is_some()) else {
            return;
        };
        let Some(file) = file_column(&table, &find, images.paths.len()) else {
            return;
        };
        match columns_of(&table, file) {
            Ok(Some(labels)) => {
                let split = split_of_file(path);
                self.tables.push(Labelled {
                    entry,
                    path: path.clone(),
                    columns: labels.shown(&table, file),
                    rows: labels.rows(&table, file, &find, split),
                });
            }
            Ok(None) => {}
            Err(why) => unclear(why),
        }
    }

    /// The layout by all tables.
    fn into_layout(
        self,
        entries: &[Entry],
        limits: &DatasetLimits,
    ) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
        let paths: Vec<&str> = self
            .tables
            .iter()
            .map(|table| table.path.as_str())
            .collect();
        let mut noted = Noted::new(&paths, limits.report_problems);
        let mut first: BTreeMap<usize, (Place, Label)> = BTreeMap::new();
        let (mut rows, mut places, mut splits) = (Vec::new(), Vec::new(), Vec::new());
        for (number, table) in self.tables.iter().enumerate() {
            for row in &table.rows {
                let place = Place {
                    manifest: number,
                    line: row.line,
                };
                let label = match &row.label {
                    Ok(label) => label.clone(),
                    Err((code, message)) => {
                        noted.at(place, code, message.clone());
                        continue;
                    }
                };
                let Some(image) = row.image else {
                    let shown = entry_path::shown(row.cell.as_bytes());
                    noted.at(
                        place,
                        codes::MISSING_FILE,
                        format!("there is no image {shown:?} in the archive"),
                    );
                    continue;
                };
                if let Some((before, same)) = first.get(&image) {
                    if *same != label || before.manifest == number {
                        let (path, line) = (paths[before.manifest], before.line);
                        let message = format!(
                            "{:?} is in line {line} of `{path}` already; keep one",
                            entries[image].path
                        );
                        noted.at(place, codes::DUPLICATE_PATH, message);
                    }
                    continue;
                }
                first.insert(image, (place, label.clone()));
                rows.push(Row {
                    place,
                    path: row.cell.clone(),
                    label,
                    split: None,
                });
                places.push(Some(image));
                splits.push(row.split);
            }
        }
        let splits = whole_splits(splits, &places, entries);
        let tables: Vec<usize> = self.tables.iter().map(|table| table.entry).collect();
        let placed = (rows, false, places, splits);
        let (layout, mut warnings) = layout_of(entries, &tables, placed, noted)?;
        warnings.extend(self.tables.iter().map(Labelled::warning));
        warnings.extend(self.unclear.iter().map(Unclear::warning));
        Ok((layout, warnings))
    }
}

/// The splits of rows: those of the tables or else of the images' folders, where all rows have one.
pub(super) fn whole_splits(
    splits: Vec<Option<Split>>,
    places: &[Option<usize>],
    entries: &[Entry],
) -> Vec<Option<Split>> {
    let by_folder = || {
        let split = |place: &Option<usize>| {
            let path = &entries[(*place)?].path;
            path.split('/').rev().skip(1).find_map(split_named)
        };
        places.iter().map(split).collect::<Vec<_>>()
    };
    let is_whole = |splits: &[Option<Split>]| {
        splits.iter().all(Option::is_some) && splits.contains(&Some(Split::Train))
    };
    if is_whole(&splits) {
        return splits;
    }
    let by_folder = by_folder();
    if is_whole(&by_folder) {
        return by_folder;
    }
    vec![None; places.len()]
}

impl Labelled {
    fn warning(&self) -> Problem {
        let message = format!(
            "labels are read from this table ({}), not from the names of folders",
            self.columns
        );
        Problem::new(&self.path, codes::LABELS_FROM_TABLE, message)
    }

    /// True where each folder has one label and each label one folder, or all rows have the same:
    /// the table says nothing new.
    fn says_the_same(&self, folders: &Layout) -> bool {
        if folders.task != Task::SingleLabelClassification {
            return false;
        }
        let class_of: HashMap<usize, usize> = folders
            .files
            .iter()
            .filter_map(|file| Some((file.entry, *file.target.classes().first()?)))
            .collect();
        let mut pairs: BTreeSet<(usize, &str)> = BTreeSet::new();
        for row in &self.rows {
            let (Some(image), Ok(label)) = (row.image, &row.label) else {
                continue;
            };
            let (Some(&class), [name]) = (class_of.get(&image), label.names()) else {
                return false;
            };
            pairs.insert((class, name));
        }
        let classes: BTreeSet<usize> = pairs.iter().map(|(class, _)| *class).collect();
        let labels: BTreeSet<&str> = pairs.iter().map(|(_, label)| *label).collect();
        labels.len() <= 1 || (pairs.len() == classes.len() && pairs.len() == labels.len())
    }
}

/// The split that a table's own name or folder says: `test.csv`, `valid/_classes.csv`.
pub(super) fn split_of_file(path: &str) -> Option<Split> {
    let folders = path.rsplit('/').skip(1);
    split_inside(stem_of(path)).or_else(|| folders.into_iter().find_map(split_named))
}

fn is_telling(path: &str) -> bool {
    let stem = stem_of(path).to_ascii_lowercase();
    let mut words = stem.split(|c: char| !c.is_ascii_alphabetic());
    words.any(|word| TELLING.contains(&word))
}

/// True where the names of images stand in a file that is not text.
fn names_images(bytes: &[u8], images: &Images<'_>) -> bool {
    const SEARCHED_BYTES: usize = 8 << 20;
    const NAMES: usize = 16;
    let mut strings = Vec::new();
    // A workbook of Excel is a zip, with all its texts in one file.
    if let Ok(mut workbook) = zip::ZipArchive::new(Cursor::new(bytes))
        && let Ok(texts) = workbook.by_name("xl/sharedStrings.xml")
    {
        // What cannot be read has no names.
        let _ = texts.take(SEARCHED_BYTES as u64).read_to_end(&mut strings);
    }
    let bytes = if strings.is_empty() { bytes } else { &strings };
    let bytes = &bytes[..bytes.len().min(SEARCHED_BYTES)];
    let mut names = images.names.keys().take(NAMES);
    names.any(|name| {
        bytes
            .windows(name.len())
            .any(|window| window == name.as_bytes())
    })
}

#[cfg(test)]
mod tests;
