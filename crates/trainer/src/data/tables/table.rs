//! Tables as programs write them, without knowledge of what they mean: CSV with any delimiter, JSON
//! arrays, JSON lines, and JSON objects that map files to labels. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::data::manifest::rows;

/// Largest table in bytes; one of a million rows has less.
pub(super) const TABLE_BYTES: u64 = 64 << 20;
/// Columns that are looked at.
const COLUMNS: usize = 10_000;
/// Delimiters of a CSV, of equals the first.
const DELIMITERS: [u8; 5] = [b',', b';', b'\t', b'|', b' '];
/// Lines by which the delimiter is told.
const TRIED_LINES: usize = 50;

/// A table of text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Empty where the first line has no names but values.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<TableRow>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableRow {
    /// From 1, as editors count; in JSON the number of the item.
    pub(super) line: u64,
    /// A cell per column, without spaces around it.
    pub(super) cells: Vec<String>,
}

impl Table {
    /// Columns of its widest row.
    pub(super) fn width(&self) -> usize {
        let widths = self.rows.iter().map(|row| row.cells.len());
        widths.max().unwrap_or(0)
    }

    /// The name of a column; empty where it has none.
    pub(super) fn name(&self, column: usize) -> &str {
        self.columns.get(column).map_or("", String::as_str)
    }

    /// The cells of a column.
    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.cell(column))
    }
}

impl TableRow {
    /// A cell; empty where the row is shorter.
    pub(super) fn cell(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", String::as_str)
    }
}

/// Reads a table of at most `max_rows` rows; `is_file` is true for cells that name a file of the
/// archive. `None` for text that is none.
pub(super) fn read(bytes: &[u8], max_rows: usize, is_file: &dyn Fn(&str) -> bool) -> Option<Table> {
    let text = rows::text_of(bytes).ok()?;
    let text = rows::without_separator_line(&text);
    let mut table = match text.trim_start().chars().next()? {
        '{' | '[' => of_json(text)?,
        _ => of_csv(text, max_rows, is_file)?,
    };
    table.rows.truncate(max_rows);
    (!table.rows.is_empty()).then_some(table)
}

fn of_json(text: &str) -> Option<Table> {
    let items = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) => items,
        Ok(Value::Object(object)) if object.contains_key("annotations") => return of_coco(&object),
        Ok(Value::Object(object)) => match object.get("labels") {
            // As StyleGAN's `dataset.json` has them.
            Some(Value::Array(pairs)) => pairs.clone(),
            Some(Value::Object(map)) => return Some(of_map(map.iter())),
            _ => return Some(of_map(object.iter())),
        },
        Ok(_) => return None,
        Err(_) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines
                .map(serde_json::from_str)
                .collect::<Result<Vec<Value>, _>>()
                .ok()?
        }
    };
    Some(of_items(&items))
}

/// A row for each image of a COCO file: the classes that it has boxes of.
fn of_coco(object: &serde_json::Map<String, Value>) -> Option<Table> {
    let items = |name: &str| object.get(name).and_then(Value::as_array);
    let text = |item: &Value, name: &str| item.get(name).map(cell);
    let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let names = items("categories")?.iter();
    let names = names.filter_map(|item| Some((text(item, "id")?, text(item, "name")?)));
    let names: BTreeMap<String, String> = names.collect();
    for annotation in items("annotations")? {
        let (image, class) = (
            text(annotation, "image_id")?,
            text(annotation, "category_id")?,
        );
        let name = names.get(&class)?.clone();
        classes.entry(image).or_default().insert(name);
    }
    let images = (1..).zip(items("images")?);
    let rows = images.map(|(line, image)| {
        let found = classes.remove(&text(image, "id")?).unwrap_or_default();
        let mut found: Vec<String> = found.into_iter().collect();
        let label = match found.pop() {
            Some(only) if found.is_empty() => only,
            last => Value::from_iter(found.into_iter().chain(last)).to_string(),
        };
        let cells = vec![text(image, "file_name")?, label];
        Some(TableRow { line, cells })
    });
    Some(Table {
        columns: vec!["file_name".to_owned(), "label".to_owned()],
        rows: rows.collect::<Option<_>>()?,
    })
}

/// A row for each pair of a file and its label.
fn of_map<'a>(pairs: impl Iterator<Item = (&'a String, &'a Value)>) -> Table {
    let rows = (1..).zip(pairs).map(|(line, (file, label))| TableRow {
        line,
        cells: vec![file.clone(), cell(label)],
    });
    Table {
        columns: Vec::new(),
        rows: rows.collect(),
    }
}

fn of_items(items: &[Value]) -> Table {
    let mut places = BTreeMap::new();
    for item in items {
        for name in item
            .as_object()
            .into_iter()
            .flat_map(|object| object.keys())
        {
            let next = places.len();
            if next < COLUMNS {
                places.entry(name.as_str()).or_insert(next);
            }
        }
    }
    let mut columns = vec![String::new(); places.len()];
    for (name, &place) in &places {
        columns[place] = (*name).to_owned();
    }
    let rows = (1..).zip(items).map(|(line, item)| {
        let mut cells = vec![String::new(); columns.len()];
        match item {
            Value::Object(object) => {
                for (name, value) in object {
                    if let Some(&place) = places.get(name.as_str()) {
                        cells[place] = cell(value);
                    }
                }
            }
            Value::Array(values) => cells = values.iter().map(cell).collect(),
            value => cells = vec![cell(value)],
        }
        TableRow { line, cells }
    });
    let rows = rows.collect();
    Table { columns, rows }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

fn of_csv(text: &str, max_rows: usize, is_file: &dyn Fn(&str) -> bool) -> Option<Table> {
    // With the right delimiter most lines have a cell that is a file.
    let files_by = |delimiter: &u8| {
        let rows = records(text, *delimiter, TRIED_LINES);
        let named = rows
            .iter()
            .filter(|row| row.cells.iter().any(|cell| is_file(cell)));
        let width = rows.first().map_or(0, |row| row.cells.len());
        (named.count(), width.min(2))
    };
    let delimiter = DELIMITERS.iter().rev().max_by_key(|by| files_by(by))?;
    let mut rows = records(text, *delimiter, max_rows.saturating_add(2));
    if *delimiter == b' ' {
        // `a file.jpg 3`: the label is the last word.
        for row in &mut rows {
            let label = row.cells.pop().unwrap_or_default();
            row.cells = vec![row.cells.join(" "), label];
        }
    }
    let has_header = !rows.first()?.cells.iter().any(|cell| is_file(cell));
    let columns = if has_header {
        rows.remove(0).cells
    } else {
        Vec::new()
    };
    Some(Table { columns, rows })
}

fn records(text: &str, delimiter: u8, most: usize) -> Vec<TableRow> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let records = reader.records().map_while(Result::ok);
    // The reader's own line numbers are wrong after CR LF and empty lines.
    let (mut line, mut counted) = (1, 0);
    let rows = records.map(|record| {
        let start = record
            .position()
            .map_or(0, |position| position.byte() as usize);
        let bytes = text.as_bytes();
        let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let start = start + bytes[start..].iter().take_while(is_line_end).count();
        line += rows::line_ends(&bytes[counted.min(start)..start]);
        counted = start;
        let cells = record
            .iter()
            .take(COLUMNS)
            .map(|cell| rows::field(cell).to_owned());
        TableRow {
            line,
            cells: cells.collect(),
        }
    });
    let filled = rows.filter(|row| row.cells.iter().any(|cell| !cell.is_empty()));
    filled.take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let is_file = |cell: &str| cell.ends_with(".png");
        let table = read(text.as_bytes(), 100, &is_file).unwrap();
        let cells = table.rows.into_iter().map(|row| row.cells);
        (table.columns, cells.collect())
    }

    #[test]
    fn tables_of_many_programs_are_the_same_table() {
        let with_names = [
            "file,label\na.png,cat\nb b.png,dog\n",
            "file;label\r\na.png;cat\r\nb b.png;dog\r\n",
            "\u{feff}file\tlabel\na.png\tcat\n\nb b.png\tdog",
            "file | label\na.png | cat\nb b.png | dog\n",
            "{\"file\": \"a.png\", \"label\": \"cat\"}\n{\"label\": \"dog\", \"file\": \"b b.png\"}\n",
            "[{\"file\": \"a.png\", \"label\": \"cat\"}, {\"file\": \"b b.png\", \"label\": \"dog\"}]",
        ];
        let rows = vec![vec!["a.png", "cat"], vec!["b b.png", "dog"]];
        for text in with_names {
            let (columns, found) = parsed(text);
            assert_eq!(columns, ["file", "label"], "{text}");
            assert_eq!(found, rows, "{text}");
        }
        for text in [
            "a.png,cat\nb b.png,dog\n",
            "a.png cat\nb b.png dog\n",
            "{\"a.png\": \"cat\", \"b b.png\": \"dog\"}",
            "{\"labels\": [[\"a.png\", \"cat\"], [\"b b.png\", \"dog\"]]}",
        ] {
            let (columns, found) = parsed(text);
            assert!(columns.is_empty(), "{text}");
            assert_eq!(found, rows, "{text}");
        }
    }

    #[test]
    fn what_is_no_table_is_none() {
        let is_file = |_: &str| false;
        for text in [&b""[..], b" \n", b"\xff\xfe", b"[]", b"7"] {
            assert_eq!(read(text, 100, &is_file), None, "{text:?}");
        }
    }
}
