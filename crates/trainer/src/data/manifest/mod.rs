//! `manifest.csv` or `manifest.jsonl`: a row per sample, with `path`, `label` (or `value`) and
//! perhaps `split`. Pure.
//!
//! The labels decide the task. `value` holds numbers, for regression. `label` holds class names:
//! one a row, or, where any row has a list (JSON, or `a|b`), several labels. Numbers under `label`
//! mean regression when one of them is not whole, and are class names otherwise.

pub(in crate::data) mod label;
pub(in crate::data) mod noted;
pub(in crate::data) mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization as _;

use self::{
    label::{Label, in_range, number_rule},
    noted::{Noted, Place},
    rows::{Row, Rows},
};
use super::{
    archive::{Entry, entry_path},
    codes,
    layout::{Layout, Placed, SaidBy, is_named_like_an_image, names, split_named},
    target::Target,
};
use crate::domain::{
    file::Split,
    limits,
    problem::{Problem, suggestion},
    recipe::Task,
    work::DatasetLimits,
};

/// Names of a manifest. Its content decides which of the two formats it has.
const NAMES: [&str; 2] = ["manifest.csv", "manifest.jsonl"];

/// A manifest in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Index of its entry.
    pub entry: usize,
    /// The folder around everything, which its paths start from: empty, or with a slash at its end.
    root: String,
}

/// The manifest of an archive: at its root, or inside the single folder around everything. Deeper
/// ones are ordinary files.
///
/// # Errors
/// More than one manifest.
pub fn find(entries: &[Entry]) -> Result<Option<Found>, Problem> {
    let mut found = entries.iter().enumerate().filter_map(|(entry, file)| {
        let (root, name) = match file.path.rsplit_once('/') {
            Some((folder, name)) => (format!("{folder}/"), name),
            None => (String::new(), file.path.as_str()),
        };
        let is_name = NAMES
            .iter()
            .any(|manifest| manifest.eq_ignore_ascii_case(name));
        // A README may lie beside the folder around everything else.
        let is_inside = |entry: &Entry| {
            let beside = !entry.path.contains('/') && !is_named_like_an_image(&entry.path);
            beside || entry.path.starts_with(&root)
        };
        let is_manifest = is_name && entries.iter().all(is_inside);
        is_manifest.then_some(Found { entry, root })
    });
    let first = found.next();
    if let Some(second) = found.next() {
        let message = "there are a manifest.csv and a manifest.jsonl; keep the one that holds";
        return Err(Problem::new(
            &entries[second.entry].path,
            codes::INVALID_MANIFEST,
            message,
        ));
    }
    Ok(first)
}

/// Reads the manifest `bytes`; with the layout come warnings.
///
/// # Errors
/// Every problem in it, with its line, up to `limits.report_problems`.
pub fn read(
    entries: &[Entry],
    manifest: &Found,
    bytes: &[u8],
    limits: &DatasetLimits,
) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
    let paths = [entries[manifest.entry].path.as_str()];
    let mut noted = Noted::new(&paths, limits.report_problems);
    let Rows { rows, typed } = rows::read(bytes, limits.entries, &mut noted);
    let places = place(entries, manifest, &rows, &mut noted);
    let splits = read_splits(&rows, &mut noted);
    layout_of(
        entries,
        &[manifest.entry],
        (rows, typed, places, splits),
        noted,
    )
}

/// Rows, whether their format distinguishes numbers from texts, the entry of each, and its split.
pub(in crate::data) type PlacedRows = (Vec<Row>, bool, Vec<Option<usize>>, Vec<Option<Split>>);

/// The layout by the rows of the manifests, with those that are entries themselves; with it come
/// warnings.
///
/// # Errors
/// Every problem that was noted.
pub(in crate::data) fn layout_of(
    entries: &[Entry],
    manifests: &[usize],
    (rows, typed, places, splits): PlacedRows,
    mut noted: Noted<'_>,
) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
    let path = noted.path();
    let task = tell_task(&rows, typed, &mut noted);
    let classes = match task {
        Task::Regression => Vec::new(),
        _ => read_classes(&rows, &mut noted),
    };
    noted.finish()?;
    if rows.is_empty() {
        let message = "the manifest has no row; give one for each image";
        return Err(vec![Problem::new(path, codes::INVALID_MANIFEST, message)]);
    }

    let placed = rows.iter().zip(places).zip(splits);
    let mut files: Vec<Placed> = placed
        .filter_map(|((row, entry), split)| {
            Some(Placed {
                entry: entry?,
                target: target_of(&row.label, task, &classes),
                split,
            })
        })
        .collect();
    files.sort_by_key(|file| file.entry);
    let named: BTreeSet<usize> = files.iter().map(|file| file.entry).collect();
    let is_outside = |entry: &usize| !named.contains(entry) && !manifests.contains(entry);
    let outside = (0..entries.len()).filter(is_outside).collect();
    let warnings = Vec::from_iter(numeric_classes(path, &rows, task));
    let layout = Layout {
        task,
        classes,
        files,
        outside,
        said_by: SaidBy::Manifest,
    };
    Ok((layout, warnings))
}

/// `classes` are sorted, and have every name.
fn target_of(label: &Label, task: Task, classes: &[String]) -> Target {
    let found = label.names().iter().map(|name| classes.binary_search(name));
    let mut found = found.map(|class| class.expect("every name is a class: this is a bug"));
    match task {
        Task::SingleLabelClassification => {
            Target::Class(found.next().expect("every row has a name: this is a bug"))
        }
        Task::MultiLabelClassification => {
            let mut classes: Vec<usize> = found.collect();
            classes.sort_unstable();
            Target::Classes(classes)
        }
        Task::Regression => {
            let number = label.number();
            Target::Value(number.expect("every row has a number: this is a bug"))
        }
    }
}

/// The entry of each row; a missing one is `None`, and noted.
fn place(
    entries: &[Entry],
    manifest: &Found,
    rows: &[Row],
    noted: &mut Noted<'_>,
) -> Vec<Option<usize>> {
    let mut first_lines: BTreeMap<usize, Place> = BTreeMap::new();
    // A Mac's zip has `é` in two characters, where a table has it in one.
    let composed: HashMap<String, usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| !entry.path.is_ascii())
        .map(|(index, entry)| (nfc(&entry.path), index))
        .collect();
    let mut one = |row: &Row| {
        let shown = entry_path::shown(row.path.as_bytes());
        let path = match entry_path::normal(row.path.as_bytes()) {
            Ok(path) => path.unwrap_or_default(),
            Err(why) => {
                let message = format!("{shown:?}: {why}; paths start from the manifest's folder");
                noted.at(row.place, codes::UNSAFE_PATH, message);
                return None;
            }
        };
        let path = format!("{}{path}", manifest.root);
        let exact = entries.binary_search_by(|entry| entry.path.as_str().cmp(&path));
        let Some(entry) = exact.ok().or_else(|| composed.get(&nfc(&path)).copied()) else {
            let message = format!(
                "there is no file {shown:?} in the archive; paths start from the manifest's folder, and case counts"
            );
            noted.at(row.place, codes::MISSING_FILE, message);
            return None;
        };
        if let Some(first) = first_lines.get(&entry) {
            let message = format!(
                "{shown:?} is in line {} already; keep one of the two",
                first.line
            );
            noted.at(row.place, codes::DUPLICATE_PATH, message);
            return None;
        }
        first_lines.insert(entry, row.place);
        Some(entry)
    };
    rows.iter().map(&mut one).collect()
}

/// The text in Unicode's composed form.
pub(in crate::data) fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// The split of each row: either all rows have one, or none.
fn read_splits(rows: &[Row], noted: &mut Noted<'_>) -> Vec<Option<Split>> {
    let any = rows.iter().any(|row| row.split.is_some());
    let mut splits = Vec::with_capacity(rows.len());
    for row in rows {
        let split = row.split.as_deref().and_then(split_named);
        match &row.split {
            Some(word) if split.is_none() => {
                let shown: String = word.chars().take(40).collect();
                let words = ["train", "validation", "test"];
                let message = format!("{shown:?} is no split; {}", suggestion(word, words));
                noted.at(row.place, codes::INVALID_SPLIT, message);
            }
            None if any => {
                let message = "this row has no split, though others have one; give it `train`, `validation` or `test`";
                noted.at(row.place, codes::INVALID_SPLIT, message);
            }
            _ => {}
        }
        splits.push(split);
    }
    if any && !splits.contains(&Some(Split::Train)) {
        let message = "no row is in the split `train`, so that there is nothing to train on";
        noted.whole(codes::NO_TRAINING_SPLIT, message);
    }
    splits
}

/// The task that the labels mean. Rows whose kind differs from most are noted.
fn tell_task(rows: &[Row], typed: bool, noted: &mut Noted<'_>) -> Task {
    let is_value = |row: &&Row| matches!(row.label, Label::Value(_));
    let is_number = |row: &&Row| row.label.number().is_some();
    let is_list = |row: &Row| matches!(row.label, Label::List(_));
    let fraction = |row: &Row| row.label.number().is_some_and(|value| value.fract() != 0.0);
    let numbers = rows.iter().filter(is_number).count();
    let names = rows.len() - numbers;
    let are_numbers = rows.iter().any(|row| is_value(&row) || fraction(row));
    if names > 0 && (are_numbers || (typed && numbers > 0)) {
        let odd_is_number = numbers < names;
        for row in rows.iter().filter(|row| is_number(row) == odd_is_number) {
            let (this, most) = if odd_is_number {
                ("a number", "names of classes")
            } else {
                ("a name", "numbers")
            };
            let message = format!(
                "this row's label is {this}, but most rows have {most}; a manifest has one kind"
            );
            noted.at(row.place, codes::MIXED_LABELS, message);
        }
    }
    if are_numbers {
        let outside = |row: &&Row| row.label.number().is_some_and(|value| !in_range(&value));
        for row in rows.iter().filter(outside) {
            let message = format!("the label {}", number_rule());
            noted.at(row.place, codes::INVALID_NUMBER, message);
        }
        Task::Regression
    } else if rows.iter().any(is_list) {
        Task::MultiLabelClassification
    } else {
        Task::SingleLabelClassification
    }
}

/// All names, sorted by their bytes.
fn read_classes(rows: &[Row], noted: &mut Noted<'_>) -> Vec<String> {
    let mut first_lines: BTreeMap<&str, Place> = BTreeMap::new();
    for row in rows {
        for name in row.label.names() {
            first_lines.entry(name).or_insert(row.place);
        }
    }
    let classes: BTreeSet<&str> = first_lines.keys().copied().collect();
    if classes.len() > limits::CLASSES {
        let message = format!(
            "the manifest names {} classes, more than {}",
            classes.len(),
            limits::CLASSES
        );
        noted.whole(codes::TOO_MANY_CLASSES, message);
        return Vec::new();
    }
    if classes.is_empty() && !rows.is_empty() {
        noted.whole(codes::MISSING_LABEL, "no row has a label");
    }
    for bad in names::check(&classes) {
        let message = format!("{}: {}", bad.shown(), bad.why);
        noted.at(first_lines[bad.name], bad.code, message);
    }
    classes.into_iter().map(str::to_owned).collect()
}

fn numeric_classes(path: &str, rows: &[Row], task: Task) -> Option<Problem> {
    let is_number = |row: &Row| matches!(row.label, Label::Number { .. });
    (task == Task::SingleLabelClassification && rows.iter().all(is_number)).then(|| {
        let message = "every label is a whole number and is taken as the name of a class; call the column `value` to have numbers predicted";
        Problem::new(path, codes::NUMERIC_CLASSES, message)
    })
}

#[cfg(test)]
mod tests;
