//! The meaning of a table's columns, told by their names and contents.

use std::collections::BTreeSet;

use super::{
    images::Match,
    table::{Table, TableRow},
};
use crate::{
    data::{
        archive::entry_path,
        codes,
        layout::split_named,
        manifest::{
            label::{self, Label},
            rows,
        },
    },
    domain::file::Split,
};

/// Names of columns with labels; of several that say the same the first.
pub(in crate::data) const LABELS: [&str; 18] = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "label_name",
    "category",
    "categories",
    "category_name",
    "classes",
    "target",
    "targets",
    "tag",
    "tags",
    "species",
    "breed",
    "value",
    "class_id",
];
/// Names of columns with files whose names are numbers.
pub(in crate::data) const FILES: [&str; 13] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "filepaths",
    "image",
    "image_path",
    "image_name",
    "image_id",
    "img",
    "id",
    "name",
];
/// Names of columns with splits.
pub(in crate::data) const SPLITS: [&str; 7] = [
    "split",
    "set",
    "subset",
    "partition",
    "dataset",
    "data set",
    "usage",
];

/// A row of a table of labels.
pub(super) struct LabelledRow {
    pub(super) line: u64,
    /// The cell that names its image.
    pub(super) cell: String,
    /// `None` where the archive has no such image.
    pub(super) image: Option<usize>,
    pub(super) label: label::Read<Label>,
    pub(super) split: Option<Split>,
}

/// The column that names images; `None` where none does for most of its rows, or most images.
pub(super) fn file_column(
    table: &Table,
    find: &dyn Fn(&str) -> Option<(Match, usize)>,
    images: usize,
) -> Option<usize> {
    let scored = (0..table.width()).filter_map(|column| {
        let cells = table.cells(column);
        let found: Vec<Match> = cells.filter_map(|cell| Some(find(cell)?.0)).collect();
        let named = found.len();
        let best = *found.iter().max()?;
        // Numbers may be anything.
        let name = table.name(column);
        let is_named_so = FILES.iter().any(|file| file.eq_ignore_ascii_case(name));
        let enough = 2 * named >= table.rows.len() || 2 * named >= images;
        (enough && (best > Match::Stem || is_named_so)).then_some((best, named, column))
    });
    let (.., column) =
        scored.max_by_key(|&(best, named, column)| (best, named, std::cmp::Reverse(column)))?;
    Some(column)
}

/// Where the labels of a table are.
pub(super) enum Labels {
    Column {
        label: usize,
        split: Option<usize>,
    },
    /// A column per class with 0 or 1.
    OneHot {
        classes: Vec<usize>,
        split: Option<usize>,
    },
}

/// Where the labels of a table are, which names images in the column `file`; `None` where it has
/// none.
///
/// # Errors
/// Why it is unclear.
pub(super) fn columns_of(table: &Table, file: usize) -> Result<Option<Labels>, String> {
    let is_filled = |&column: &usize| table.cells(column).any(|cell| !cell.is_empty());
    let is_named =
        |&column: &usize| table.columns.is_empty() || !rows::is_unnamed(table.name(column));
    let others = (0..table.width()).filter(|&column| column != file);
    let mut others: Vec<usize> = others.filter(is_filled).filter(is_named).collect();
    let split = others
        .iter()
        .copied()
        .find(|&column| is_split(table, column));
    others.retain(|&column| Some(column) != split);
    let called = |label: &&'static str| {
        let mut columns = others.iter().copied();
        columns.find(|&column| label.eq_ignore_ascii_case(table.name(column)))
    };
    let named: Vec<usize> = LABELS.iter().filter_map(called).collect();
    let label = match (&named[..], &others[..]) {
        ([first, rest @ ..], _) if rest.iter().all(|&other| alike(table, *first, other)) => *first,
        ([], [only]) if table.columns.is_empty() || !is_numeric(table, *only) => *only,
        ([], columns) if is_one_hot(table, columns) => {
            let classes = columns.to_vec();
            return Ok(Some(Labels::OneHot { classes, split }));
        }
        // Sizes, counts, dates: nothing that is a label.
        ([], columns) if columns.iter().all(|&column| is_numeric(table, column)) => {
            return Ok(None);
        }
        _ => {
            let shown =
                |&column: &usize| format!("`{}`", entry_path::shown(table.name(column).as_bytes()));
            let shown: Vec<String> = others.iter().take(6).map(shown).collect();
            let shown = shown.join(", ");
            return Err(format!(
                "which of its columns is the label is not clear ({shown})"
            ));
        }
    };
    Ok(Some(Labels::Column { label, split }))
}

fn is_split(table: &Table, column: usize) -> bool {
    let mut names = SPLITS.iter();
    names.any(|split| split.eq_ignore_ascii_case(table.name(column)))
        && table.cells(column).all(|cell| split_named(cell).is_some())
}

fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells = table.cells(column);
    cells.all(|cell| cell.is_empty() || cell.parse::<f64>().is_ok())
}

/// True for columns with a name and nothing but 0 and 1.
fn is_one_hot(table: &Table, columns: &[usize]) -> bool {
    let is_bit = |cell: &str| matches!(cell, "" | "0" | "1" | "0.0" | "1.0");
    let all_bits = |&column: &usize| table.cells(column).all(is_bit);
    columns.len() > 1 && !table.columns.is_empty() && columns.iter().all(all_bits)
}

/// True where two columns say the same in other words.
fn alike(table: &Table, one: usize, other: usize) -> bool {
    let pairs: BTreeSet<(&str, &str)> = table.cells(one).zip(table.cells(other)).collect();
    let firsts: BTreeSet<&str> = pairs.iter().map(|(one, _)| *one).collect();
    let seconds: BTreeSet<&str> = pairs.iter().map(|(_, other)| *other).collect();
    pairs.len() == firsts.len() && pairs.len() == seconds.len()
}

impl Labels {
    /// The columns, for people.
    pub(super) fn shown(&self, table: &Table, file: usize) -> String {
        let name = |column: usize| match table.columns.get(column) {
            Some(name) => format!("`{}`", entry_path::shown(name.as_bytes())),
            None => format!("column {}", column + 1),
        };
        match self {
            Self::Column { label, .. } => {
                format!("files in {}, labels in {}", name(file), name(*label))
            }
            Self::OneHot { classes, .. } => {
                format!(
                    "files in {}, {} columns with a class each",
                    name(file),
                    classes.len()
                )
            }
        }
    }

    /// The rows; `find` is the image of a cell, and `of_file` the split that the table is for.
    pub(super) fn rows(
        &self,
        table: &Table,
        file: usize,
        find: &dyn Fn(&str) -> Option<(Match, usize)>,
        of_file: Option<Split>,
    ) -> Vec<LabelledRow> {
        let (Self::Column { split, .. } | Self::OneHot { split, .. }) = self;
        let split = |row: &TableRow| split.and_then(|column| split_named(row.cell(column)));
        let is_single = |classes: &[usize]| {
            let mut rows = table.rows.iter();
            rows.all(|row| set(table, row, classes).len() == 1)
        };
        let has_one_label = match self {
            Self::OneHot { classes, .. } => is_single(classes),
            Self::Column { .. } => true,
        };
        let rows = table.rows.iter();
        rows.map(|row| LabelledRow {
            line: row.line,
            cell: row.cell(file).to_owned(),
            image: find(row.cell(file)).map(|(_, image)| image),
            label: self.label(table, row, has_one_label),
            split: split(row).or(of_file),
        })
        .collect()
    }

    fn label(&self, table: &Table, row: &TableRow, has_one_label: bool) -> label::Read<Label> {
        match self {
            Self::Column { label, .. } => match row.cell(*label) {
                "" => Err((codes::MISSING_LABEL, "this row has no label".to_owned())),
                cell if table.name(*label).eq_ignore_ascii_case("value") => {
                    label::value_of_text(cell)
                }
                cell => label::of_text(cell),
            },
            Self::OneHot { classes, .. } => {
                let mut names = set(table, row, classes);
                match names.pop() {
                    Some(only) if has_one_label => Ok(Label::Name(only)),
                    last => label::list(names.into_iter().chain(last).collect()),
                }
            }
        }
    }
}

/// The names of the columns that have a 1 in this row.
fn set(table: &Table, row: &TableRow, classes: &[usize]) -> Vec<String> {
    let is_set = |&class: &usize| matches!(row.cell(class), "1" | "1.0");
    let set = classes.iter().copied().filter(is_set);
    set.map(|class| table.name(class).to_owned()).collect()
}
