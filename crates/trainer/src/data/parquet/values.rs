//! The values of a row: an image's bytes, a label, a split.

use ::parquet::record::Field;
use serde_json::Value;

use super::columns::Column;
use crate::{
    data::{
        archive::entry_path,
        codes,
        manifest::label::{self, Label},
    },
    domain::problem::quoted,
};

/// Bytes of an image's own name that its sample's path keeps.
const NAME_BYTES: usize = 200;

/// An image as a row holds it.
pub(super) struct Image<'a> {
    pub(super) bytes: &'a [u8],
    /// The name of the file that it was, if it can be part of a path.
    pub(super) name: Option<String>,
}

/// Reads the image of a row.
pub(super) fn image(field: &Field) -> label::Read<Image<'_>> {
    let (bytes, path) = match field {
        Field::Group(parts) => {
            let part = |wanted: &str| {
                let mut parts = parts.get_column_iter();
                parts
                    .find(|(name, _)| *name == wanted)
                    .map(|(_, value)| value)
            };
            let path = match part("path") {
                Some(Field::Str(path)) => Some(path.as_str()),
                _ => None,
            };
            (part("bytes"), path)
        }
        whole => (Some(whole), None),
    };
    match bytes {
        Some(Field::Bytes(bytes)) if !bytes.data().is_empty() => Ok(Image {
            bytes: bytes.data(),
            name: path.and_then(file_name),
        }),
        _ => {
            let message = match path {
                Some(path) => format!(
                    "this row has no image, only its path {:?}; write the bytes into the file \
                     (`to_parquet(…, embed_external_files=True)`)",
                    quoted(path)
                ),
                None => "this row has no image; leave the row out, or add its image".to_owned(),
            };
            Err((codes::MISSING_FILE, message))
        }
    }
}

fn file_name(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    let name = path.rsplit('/').next()?;
    let name = entry_path::normal(name.as_bytes()).ok()??;
    (!name.is_empty() && name.len() <= NAME_BYTES).then_some(name)
}

/// Reads the label of a row.
pub(super) fn label(field: &Field, column: &Column) -> label::Read<Label> {
    if let Field::ListInternal(list) = field {
        let names = list.elements().iter().map(|one| name(one, column));
        return label::list(names.collect::<label::Read<_>>()?);
    }
    if column.classes().is_some() {
        return name(field, column).map(Label::Name);
    }
    let is_value = column.name.eq_ignore_ascii_case("value");
    match field {
        Field::Str(text) => label::of_json(&Value::String(text.clone())),
        Field::Bool(_) => name(field, column).map(Label::Name),
        field => match (integer(field), float(field)) {
            (Some(number), _) if is_value => label::value(number as f64),
            (Some(number), _) => Ok(Label::Number {
                value: number as f64,
                text: number.to_string(),
            }),
            (None, Some(number)) => label::value(number),
            (None, None) => Err(no_label()),
        },
    }
}

fn no_label() -> (crate::domain::problem::Code, String) {
    let message = "this row has no label; leave the row out, or give it one (an empty list for a sample of no class)";
    (codes::MISSING_LABEL, message.to_owned())
}

/// The name of a class.
fn name(field: &Field, column: &Column) -> label::Read<String> {
    let number = match field {
        Field::Str(text) => return Ok(text.clone()),
        Field::Bool(value) => return Ok(value.to_string()),
        field => integer(field).ok_or_else(no_label)?,
    };
    let Some(classes) = column.classes() else {
        return Ok(number.to_string());
    };
    if number == -1 {
        let message = "this row has the label -1, which stands for none; leave such rows out, or the split that they are in";
        return Err((codes::MISSING_LABEL, message.to_owned()));
    }
    let class = usize::try_from(number).ok().and_then(|at| classes.get(at));
    class.cloned().ok_or_else(|| {
        let message = format!(
            "this row has the label {number}, but the file names {} classes, from 0 on",
            classes.len()
        );
        (codes::INVALID_LABEL, message)
    })
}

fn integer(field: &Field) -> Option<i128> {
    Some(match *field {
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        _ => return None,
    })
}

fn float(field: &Field) -> Option<f64> {
    Some(match *field {
        Field::Float16(number) => number.into(),
        Field::Float(number) => number.into(),
        Field::Double(number) => number,
        _ => return None,
    })
}

/// A value as text, to compare columns and to read splits.
pub(super) fn text(field: &Field, column: &Column) -> String {
    name(field, column).unwrap_or_else(|_| field.to_string())
}
