//! A manifest's bytes to rows: CSV as spreadsheets and programs write it, JSON lines when the first
//! character is a `{`, or one JSON array of such objects.

use std::{borrow::Cow, collections::HashMap, iter};

use serde_json::{Value, value::RawValue};

use super::{
    label::{self, Label},
    noted::{Noted, Place},
};
use crate::{data::codes, domain::problem::suggestion};

/// The columns there are; `labels` is another word for `label`.
const COLUMNS: [&str; 5] = ["path", "label", "labels", "value", "split"];
/// Other programs' words for a column.
const ALIASES: [(&str, &str); 8] = [
    ("file_name", "path"),
    ("filename", "path"),
    ("file", "path"),
    ("image", "path"),
    ("image_path", "path"),
    ("filepath", "path"),
    ("class", "label"),
    ("category", "label"),
];
/// Characters between the fields of a CSV. Where commas are decimal signs, it is semicolons.
const DELIMITERS: [char; 3] = [',', ';', '\t'];

/// One sample, as written.
pub(in crate::data) struct Row {
    pub(in crate::data) place: Place,
    pub(in crate::data) path: String,
    pub(in crate::data) label: Label,
    pub(in crate::data) split: Option<String>,
}

/// The rows that can be read.
pub(in crate::data) struct Rows {
    pub(in crate::data) rows: Vec<Row>,
    /// True when the format distinguishes numbers from texts.
    pub(in crate::data) typed: bool,
}

/// Reads at most `max_rows` rows. Each that cannot be read is noted and left out.
pub(in crate::data) fn read(bytes: &[u8], max_rows: u64, noted: &mut Noted<'_>) -> Rows {
    let text = text_of(bytes).unwrap_or_else(|good| {
        let message = "this line is not UTF-8; save the manifest as UTF-8";
        noted.at(line_ends(good) + 1, codes::INVALID_MANIFEST, message);
        "".into()
    });
    let text = without_separator_line(&text);
    let (typed, found) = match text.trim_start().chars().next() {
        Some('{') => (true, json_rows(text)),
        Some('[') => (true, json_array(text)),
        _ => (false, csv_rows(text)),
    };
    let mut rows = Vec::new();
    for (line, row) in found {
        match row {
            Ok(_) if rows.len() as u64 == max_rows => {
                let message = format!(
                    "the manifest has more than {max_rows} rows, as many as an archive may have entries; split the data set"
                );
                noted.at(line, codes::TOO_MANY_ROWS, message);
                break;
            }
            Ok(row) => rows.push(row),
            Err((code, message)) => noted.at(line, code, message),
        }
    }
    Rows { rows, typed }
}

/// The text of a table: UTF-8, or UTF-16 with its mark, as Excel saves "Unicode text".
///
/// # Errors
/// What there is before the first byte that is neither.
pub(in crate::data) fn text_of(bytes: &[u8]) -> Result<Cow<'_, str>, &[u8]> {
    let utf16 = match bytes {
        [0xff, 0xfe, ..] => Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = utf16 {
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes[2..]);
        return text.ok_or(&bytes[..0]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| &bytes[..error.valid_up_to()])?;
    Ok(Cow::Borrowed(text))
}

/// The text from the end of a first line `sep=;` on, which Excel understands and hides.
pub(in crate::data) fn without_separator_line(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    let is_separator = field(first).starts_with("sep=") && field(first).chars().count() <= 5;
    if is_separator {
        &text[first.len()..]
    } else {
        text
    }
}

/// Lines with their row, or its problem.
type Lines<'a> = Box<dyn Iterator<Item = (u64, label::Read<Row>)> + 'a>;

fn json_rows(text: &str) -> Lines<'_> {
    let lines = (1..).zip(text.lines());
    let filled = lines.filter(|(_, text)| !text.trim().is_empty());
    Box::new(filled.map(|(line, text)| (line, json_row(line, text))))
}

fn json_array(text: &str) -> Lines<'_> {
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(items) => {
            let (mut line, mut counted) = (1, 0);
            Box::new(items.into_iter().map(move |item| {
                let offset = item.get().as_ptr() as usize - text.as_ptr() as usize;
                line += line_ends(&text.as_bytes()[counted..offset]);
                counted = offset;
                (line, json_row(line, item.get()))
            }))
        }
        Err(error) => {
            let message = format!("this is not a JSON array: {error}");
            let line = u64::try_from(error.line()).unwrap_or(1);
            Box::new(iter::once((line, Err((codes::INVALID_MANIFEST, message)))))
        }
    }
}

fn json_row(line: u64, text: &str) -> label::Read<Row> {
    let invalid = |message: String| (codes::INVALID_MANIFEST, message);
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            let message =
                "this line is not a JSON object, such as {\"path\": \"a.jpg\", \"label\": \"cat\"}";
            return Err(invalid(message.to_owned()));
        }
        Err(error) => return Err(invalid(format!("this line is not JSON: {error}"))),
    };
    let (names, values): (Vec<String>, Vec<Value>) = object.into_iter().unzip();
    let names: Vec<&str> = names.iter().map(|name| clean(name)).collect();
    let columns = columns(&names);
    if let Some(problem) = wrong_columns(&columns).next() {
        return Err(invalid(problem));
    }
    let object: HashMap<&str, Value> = columns.into_iter().zip(values).collect();
    let text_of = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(format!("`{name}` must be text"))),
    };
    let path = text_of("path")?.ok_or_else(|| invalid("this row has no `path`".to_owned()))?;
    let split = text_of("split")?;
    let given = |name: &str| object.get(name).filter(|value| !value.is_null());
    let label = match (given("label"), given("labels"), given("value")) {
        (Some(label), None, None) | (None, Some(label), None) => label::of_json(label)?,
        (None, None, Some(value)) => label::value_of_json(value)?,
        (None, None, None) => {
            let message = "this row has neither `label` nor `value`; a sample without any label has \"label\": []";
            return Err((codes::MISSING_LABEL, message.to_owned()));
        }
        _ => {
            let message = "this row has more than one of `label`, `labels` and `value`";
            return Err(invalid(message.to_owned()));
        }
    };
    Ok(Row {
        place: line.into(),
        path: clean(&path).to_owned(),
        label,
        split,
    })
}

/// Indices of a CSV's columns.
struct Header {
    path: usize,
    label: usize,
    /// The column of the label is called `value`.
    is_value: bool,
    split: Option<usize>,
    /// The number of columns that have a name.
    width: usize,
    /// Numbers have decimal commas.
    has_decimal_commas: bool,
}

fn csv_rows(text: &str) -> Lines<'_> {
    if text.is_empty() {
        return Box::new(iter::empty());
    }
    let first = text.trim_start().lines().next().unwrap_or_default();
    let columns_by = |delimiter: char| {
        let names: Vec<&str> = first.split(delimiter).map(field).collect();
        let named = columns(&names);
        named.iter().filter(|name| COLUMNS.contains(name)).count()
    };
    // Of equals the first: a comma.
    let delimiter = DELIMITERS
        .into_iter()
        .rev()
        .max_by_key(|&by| columns_by(by));
    let delimiter = delimiter.unwrap_or(',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(names) => header(names, delimiter == ';'),
        Err(error) => Err(vec![error.to_string()]),
    };
    let header = match header {
        Ok(header) => header,
        Err(problems) => {
            let invalid = |problem| (1, Err((codes::INVALID_MANIFEST, problem)));
            return Box::new(problems.into_iter().map(invalid));
        }
    };
    // The reader's own line numbers are wrong after CR LF and empty lines.
    let (mut line, mut counted) = (1, 0);
    let mut record = csv::StringRecord::new();
    let rows = iter::from_fn(move || {
        let start = reader.position().byte() as usize;
        let found = reader.read_record(&mut record);
        let bytes = text.as_bytes();
        let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let start = start + bytes[start..].iter().take_while(is_line_end).count();
        line += line_ends(&bytes[counted.min(start)..start]);
        counted = start;
        let row = match found {
            Ok(false) => return None,
            // Spreadsheets leave rows of nothing but delimiters.
            Ok(true) if record.iter().all(|cell| field(cell).is_empty()) => None,
            Ok(true) => Some(csv_row(line, &header, &record)),
            Err(error) => {
                let message = format!("this row cannot be read: {error}");
                Some(Err((codes::INVALID_MANIFEST, message)))
            }
        };
        Some(row.map(|row| (line, row)))
    });
    Box::new(rows.flatten())
}

fn header(names: &csv::StringRecord, has_decimal_commas: bool) -> Result<Header, Vec<String>> {
    let names: Vec<&str> = names.iter().map(field).collect();
    let names = columns(&names);
    // A column without a name is an index, as pandas writes by default, or what follows a comma at
    // the end.
    let named: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_unnamed(name))
        .collect();
    let mut problems: Vec<String> = wrong_columns(&named).collect();
    let column = |wanted: &str| names.iter().position(|name| *name == wanted);
    let labels: Vec<usize> = ["label", "labels", "value"]
        .iter()
        .filter_map(|name| column(name))
        .collect();
    if column("path").is_none() {
        problems.push("the first line must name the columns, and none is `path`: `path,label` or `path,label,split`".to_owned());
    }
    match labels.len() {
        0 => problems.push(
            "the first line must name the columns, and none is `label` (names of classes) or `value` (numbers)".to_owned(),
        ),
        1 => {}
        _ => problems.push(
            "the header has more than one of `label`, `labels` and `value`; keep one".to_owned(),
        ),
    }
    match (column("path"), &labels[..]) {
        (Some(path), &[label]) if problems.is_empty() => Ok(Header {
            path,
            label,
            is_value: names[label] == "value",
            split: column("split"),
            width: names.iter().rposition(|name| !name.is_empty()).unwrap_or(0) + 1,
            has_decimal_commas,
        }),
        _ => Err(problems),
    }
}

fn csv_row(line: u64, header: &Header, record: &csv::StringRecord) -> label::Read<Row> {
    let cell = |column: usize| field(record.get(column).unwrap_or_default());
    let is_filled = |column: &usize| !field(&record[column - 1]).is_empty();
    let filled = (1..=record.len()).rev().find(is_filled).unwrap_or(0);
    if filled > header.width || record.len() < header.width {
        let (found, width) = (filled.max(record.len().min(header.width)), header.width);
        let message = format!(
            "this row has {found} fields, the header {width}; put text with commas in double quotes"
        );
        return Err((codes::INVALID_MANIFEST, message));
    }
    let text = cell(header.label);
    if text.is_empty() {
        let message = "this row has no label; a sample without any label has `[]`";
        return Err((codes::MISSING_LABEL, message.to_owned()));
    }
    let split = header.split.map(cell);
    Ok(Row {
        place: line.into(),
        path: cell(header.path).to_owned(),
        label: if header.is_value && header.has_decimal_commas {
            label::value_of_text(&text.replace(',', "."))?
        } else if header.is_value {
            label::value_of_text(text)?
        } else {
            label::of_text(text)?
        },
        split: split.filter(|split| !split.is_empty()).map(str::to_owned),
    })
}

/// A field without what surrounds it: spaces, also those that keep quotes from being seen as such
/// (`a.png, "cat"`), and characters of no width.
pub(in crate::data) fn field(text: &str) -> &str {
    let text = clean(text);
    let inside = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inside
        .filter(|inside| !inside.contains('"'))
        .unwrap_or(text)
}

fn clean(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\u{2060}')
    })
}

/// The names of the columns in this project's words, where those are not there themselves.
fn columns<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let own = |name: &&'a str| {
        let itself = COLUMNS
            .iter()
            .find(|column| column.eq_ignore_ascii_case(name));
        let alias = ALIASES
            .iter()
            .find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        match (itself, alias) {
            (Some(column), _) => *column,
            (None, Some((_, column))) if !names.contains(column) => *column,
            _ => *name,
        }
    };
    names.iter().map(own).collect()
}

/// True for the columns that pandas writes for the index of a table.
pub(in crate::data) fn is_unnamed(name: &str) -> bool {
    name.is_empty() || name.starts_with("Unnamed: ")
}

/// A problem for each column that there is not, or that stands there twice.
fn wrong_columns<'a>(columns: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    columns.iter().enumerate().filter_map(|(place, name)| {
        if !COLUMNS.contains(name) {
            Some(unknown_column(name))
        } else if columns[..place].contains(name) {
            Some(format!("there is the column `{name}` twice"))
        } else {
            None
        }
    })
}

fn unknown_column(name: &str) -> String {
    let shown: String = name
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    format!(
        "there is no column `{shown}`; {} (remove what is not needed)",
        suggestion(name, COLUMNS)
    )
}

/// The number of line ends: LF, CR LF, or CR alone, as old programs for the Mac write.
pub(in crate::data) fn line_ends(bytes: &[u8]) -> u64 {
    let next = bytes.iter().skip(1).map(Some).chain([None]);
    let ends = bytes.iter().zip(next).filter(|pair| match pair {
        (b'\n', _) => true,
        (b'\r', next) => *next != Some(&b'\n'),
        _ => false,
    });
    ends.count() as u64
}
