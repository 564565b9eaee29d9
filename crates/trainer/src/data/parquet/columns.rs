//! The columns that hold images and labels, told by the features that the file names, by the types
//! of its schema, and by their names.

use std::collections::BTreeMap;

use ::parquet::{
    basic::{ConvertedType, LogicalType, Type as Physical},
    file::metadata::FileMetaData,
    schema::types::{Type, TypePtr},
};

use super::features::{self, Feature};
use crate::{
    data::{
        archive::entry_path,
        codes,
        manifest::{label, rows},
        tables::{FILES, LABELS, SPLITS},
    },
    domain::problem::Code,
};

/// Names of the column to take where several hold images.
const IMAGES: [&str; 2] = ["image", "img"];
/// Columns that a message lists.
const SHOWN: usize = 8;

/// The kind of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A structure of bytes and a path.
    Image,
    Bytes,
    Text,
    Integer,
    Float,
    Boolean,
    List(Box<Kind>),
    Other,
}

/// A column of a file, at the top of its schema.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    feature: Option<Feature>,
    field: TypePtr,
}

impl Column {
    /// The names of classes that its integers stand for.
    pub(super) fn classes(&self) -> Option<&[String]> {
        self.feature.as_ref()?.classes()
    }

    fn is_named(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&self.name))
    }

    fn can_be_label(&self) -> bool {
        let plain = |kind: &Kind| {
            matches!(
                kind,
                Kind::Text | Kind::Integer | Kind::Float | Kind::Boolean
            )
        };
        let is_index = rows::is_unnamed(&self.name) || self.name.starts_with("__index_level_");
        let is_label = match &self.kind {
            Kind::List(inner) => **inner != Kind::Float && plain(inner),
            kind => plain(kind),
        };
        is_label && !is_index && (!self.is_named(&FILES) || self.classes().is_some())
    }

    pub(super) fn field(&self) -> TypePtr {
        self.field.clone()
    }
}

/// The columns of a file.
pub(super) fn of(metadata: &FileMetaData) -> Vec<Column> {
    let mut features: BTreeMap<String, Feature> = features::read(metadata);
    let fields = metadata.schema_descr().root_schema().get_fields().iter();
    let column = |field: &TypePtr| Column {
        name: field.name().to_owned(),
        kind: kind_of(field),
        feature: features.remove(field.name()),
        field: field.clone(),
    };
    fields.map(column).collect()
}

fn kind_of(field: &Type) -> Kind {
    if is_repeated(field) {
        return Kind::Other;
    }
    let info = field.get_basic_info();
    let converted = info.converted_type();
    if field.is_primitive() {
        return match (field.get_physical_type(), converted) {
            (Physical::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM) => Kind::Text,
            (Physical::BYTE_ARRAY, ConvertedType::NONE) => Kind::Bytes,
            (Physical::BOOLEAN, _) => Kind::Boolean,
            (Physical::FLOAT | Physical::DOUBLE, _) => Kind::Float,
            (Physical::INT32 | Physical::INT64, converted) if is_integer(converted) => {
                match info.logical_type_ref() {
                    None | Some(LogicalType::Integer { .. }) => Kind::Integer,
                    Some(_) => Kind::Other,
                }
            }
            (Physical::FIXED_LEN_BYTE_ARRAY, _)
                if info.logical_type_ref() == Some(&LogicalType::Float16) =>
            {
                Kind::Float
            }
            _ => Kind::Other,
        };
    }
    let fields = field.get_fields();
    match (fields, converted) {
        ([repeated], ConvertedType::LIST) if repeated.is_primitive() => {
            Kind::List(Box::new(element(repeated)))
        }
        ([repeated], ConvertedType::LIST) => match repeated.get_fields() {
            [element] => Kind::List(Box::new(kind_of(element))),
            _ => Kind::Other,
        },
        ([..], ConvertedType::NONE) if is_image(fields) => Kind::Image,
        _ => Kind::Other,
    }
}

/// The kind of a list's values in the older form, where they repeat by themselves.
fn element(repeated: &Type) -> Kind {
    match repeated.get_physical_type() {
        Physical::INT32 | Physical::INT64 => Kind::Integer,
        Physical::BYTE_ARRAY => Kind::Text,
        _ => Kind::Other,
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == ::parquet::basic::Repetition::REPEATED
}

fn is_integer(converted: ConvertedType) -> bool {
    matches!(
        converted,
        ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    )
}

fn is_image(fields: &[TypePtr]) -> bool {
    let has = |name: &str, kind: Kind| {
        let mut fields = fields.iter();
        fields.any(|field| field.name() == name && kind_of(field) == kind)
    };
    let is_known = |field: &TypePtr| matches!(field.name(), "bytes" | "path");
    has("bytes", Kind::Bytes) && fields.iter().all(is_known)
}

/// The column with the images. `holds_images` looks at the first values of a column of bytes.
///
/// # Errors
/// None or several do, or what the file holds instead.
pub(super) fn image<'a>(
    columns: &'a [Column],
    holds_images: &dyn Fn(&Column) -> bool,
) -> label::Read<&'a Column> {
    let all = |is_image: &dyn Fn(&Column) -> bool| -> Vec<&'a Column> {
        columns.iter().filter(|column| is_image(column)).collect()
    };
    let is_featured = |column: &Column| {
        let has_bytes = matches!(column.kind, Kind::Image | Kind::Bytes);
        has_bytes && column.feature == Some(Feature::Image)
    };
    let mut found = all(&is_featured);
    if found.is_empty() {
        found = all(&|column| column.kind == Kind::Image);
    }
    if found.is_empty() {
        found = all(&|column| column.kind == Kind::Bytes);
        if found.len() > 1 {
            found.retain(|column| holds_images(column));
        }
    }
    let named = found.iter().find(|column| column.is_named(&IMAGES));
    match (&found[..], named) {
        ([only], _) | (_, Some(only)) => Ok(only),
        ([], None) => Err(no_images(columns)),
        (several, None) => {
            let message = format!(
                "the columns {} hold images; call the one to train on `image`, or remove the others",
                shown(several)
            );
            Err((codes::UNCLEAR_COLUMNS, message))
        }
    }
}

/// The problem of a file without images.
fn no_images(columns: &[Column]) -> (Code, String) {
    let texts: Vec<&Column> = columns
        .iter()
        .filter(|column| column.kind == Kind::Text)
        .collect();
    let names_files = texts.iter().any(|column| column.is_named(&FILES));
    if texts.is_empty() || names_files {
        let all: Vec<&Column> = columns.iter().collect();
        let message = format!(
            "no column holds images, only {}; a Parquet file needs the images' bytes in a column `image` with `bytes` and \
             `path`, as `Dataset.to_parquet` and `push_to_hub` of `datasets` write it",
            shown(&all)
        );
        return (codes::UNCLEAR_COLUMNS, message);
    }
    let message = format!(
        "this is text ({}), which nothing here trains on yet; send images with labels",
        shown(&texts)
    );
    (codes::TEXT_DATA, message)
}

/// The column with the labels. `alike` tells whether two columns say the same in other words.
///
/// # Errors
/// None could be, or several.
pub(super) fn label<'a>(
    columns: &'a [Column],
    taken: &[&str],
    alike: &mut dyn FnMut(&Column, &Column) -> bool,
) -> label::Read<&'a Column> {
    let can = |column: &&Column| column.can_be_label() && !taken.contains(&&column.name[..]);
    let all: Vec<&Column> = columns.iter().filter(can).collect();
    let classes = all
        .iter()
        .copied()
        .filter(|column| column.classes().is_some());
    let classes: Vec<&Column> = classes.collect();
    let candidates = if classes.is_empty() { &all } else { &classes };
    let called = |name: &&'static str| candidates.iter().find(|column| column.is_named(&[name]));
    let named: Vec<&Column> = LABELS.iter().filter_map(called).copied().collect();
    match (&named[..], &candidates[..]) {
        (_, [only]) | ([only], _) => return Ok(only),
        ([first, rest @ ..], _) if rest.iter().all(|other| alike(first, other)) => {
            // Names are better than their numbers.
            let text = named.iter().find(|column| column.kind == Kind::Text);
            return Ok(text.unwrap_or(first));
        }
        _ => {}
    }
    let message = if candidates.is_empty() {
        let all: Vec<&Column> = columns.iter().collect();
        format!(
            "no column could be the label, only {} is there; add a column `label` with integers of `ClassLabel`, names, \
             numbers or lists of them",
            shown(&all)
        )
    } else {
        format!(
            "which column is the label is not clear ({}); call it `label`, or remove the others",
            shown(candidates)
        )
    };
    Err((codes::UNCLEAR_COLUMNS, message))
}

/// The column that may hold splits.
pub(super) fn split(columns: &[Column]) -> Option<&Column> {
    let is_split = |column: &&Column| {
        let is_plain = column.kind == Kind::Text || column.classes().is_some();
        is_plain && column.is_named(&SPLITS)
    };
    columns.iter().find(is_split)
}

/// Names of columns, for people.
fn shown(columns: &[&Column]) -> String {
    let name = |column: &&Column| format!("`{}`", entry_path::shown(column.name.as_bytes()));
    let names: Vec<String> = columns.iter().take(SHOWN).map(name).collect();
    match columns.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
