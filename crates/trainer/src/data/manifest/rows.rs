//! A manifest's bytes to rows: CSV, or JSON lines when the first character is a `{`.

use std::iter;

use serde_json::Value;

use super::{
    label::{self, Label},
    noted::Noted,
};
use crate::{data::codes, domain::problem::suggestion};

/// The columns there are; `labels` is another word for `label`.
const COLUMNS: [&str; 5] = ["path", "label", "labels", "value", "split"];

/// One sample, as written.
pub(super) struct Row {
    /// From 1, as editors count.
    pub(super) line: u64,
    pub(super) path: String,
    pub(super) label: Label,
    pub(super) split: Option<String>,
}

/// The rows that can be read.
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// True when the format distinguishes numbers from texts.
    pub(super) typed: bool,
}

/// Reads at most `max_rows` rows. Each that cannot be read is noted and left out.
pub(super) fn read(bytes: &[u8], max_rows: u64, noted: &mut Noted<'_>) -> Rows {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| {
        let good = &bytes[..error.valid_up_to()];
        let message = "this line is not UTF-8; save the manifest as UTF-8";
        noted.at(line_feeds(good) + 1, codes::INVALID_MANIFEST, message);
        ""
    });
    let typed = text.trim_start().starts_with('{');
    let found = if typed {
        json_rows(text)
    } else {
        csv_rows(text)
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

/// Lines with their row, or its problem.
type Lines<'a> = Box<dyn Iterator<Item = (u64, label::Read<Row>)> + 'a>;

fn json_rows(text: &str) -> Lines<'_> {
    let lines = (1..).zip(text.lines());
    let filled = lines.filter(|(_, text)| !text.trim().is_empty());
    Box::new(filled.map(|(line, text)| (line, json_row(line, text))))
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
    if let Some(unknown) = object.keys().find(|key| !COLUMNS.contains(&key.as_str())) {
        return Err(invalid(unknown_column(unknown)));
    }
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
        line,
        path,
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
}

fn csv_rows(text: &str) -> Lines<'_> {
    if text.is_empty() {
        return Box::new(iter::empty());
    }
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(names) => header(names),
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
    Box::new(iter::from_fn(move || {
        let start = reader.position().byte() as usize;
        let found = reader.read_record(&mut record);
        let bytes = text.as_bytes();
        let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let start = start + bytes[start..].iter().take_while(is_line_end).count();
        line += line_feeds(&bytes[counted.min(start)..start]);
        counted = start;
        let row = match found {
            Ok(false) => return None,
            Ok(true) => csv_row(line, &header, &record),
            Err(error) => Err((codes::INVALID_MANIFEST, unreadable(&error))),
        };
        Some((line, row))
    }))
}

fn unreadable(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "this row has {len} fields, the header {expected_len}; put text with commas in double quotes"
        ),
        _ => format!("this row cannot be read: {error}"),
    }
}

fn header(names: &csv::StringRecord) -> Result<Header, Vec<String>> {
    let names: Vec<&str> = names.iter().map(str::trim).collect();
    let mut problems: Vec<String> = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if !COLUMNS.contains(name) {
            problems.push(unknown_column(name));
        } else if names[..place].contains(name) {
            problems.push(format!("the header has the column `{name}` twice"));
        }
    }
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
        }),
        _ => Err(problems),
    }
}

fn csv_row(line: u64, header: &Header, record: &csv::StringRecord) -> label::Read<Row> {
    let cell = |column: usize| record.get(column).unwrap_or_default();
    let text = cell(header.label);
    if text.trim().is_empty() {
        let message = "this row has no label; a sample without any label has `[]`";
        return Err((codes::MISSING_LABEL, message.to_owned()));
    }
    let split = header.split.map(|column| cell(column).trim());
    Ok(Row {
        line,
        path: cell(header.path).trim().to_owned(),
        label: if header.is_value {
            label::value_of_text(text)?
        } else {
            label::of_text(text)?
        },
        split: split.filter(|split| !split.is_empty()).map(str::to_owned),
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

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}
