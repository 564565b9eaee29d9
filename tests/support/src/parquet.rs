//! Parquet files of images and labels, in the layout of Hugging Face's `datasets`.

use std::sync::Arc;

use ::parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};

/// The values of a column.
#[derive(Debug, Clone)]
pub enum Values {
    /// Images with bytes and a path.
    Images(Vec<(Option<Vec<u8>>, Option<String>)>),
    Bytes(Vec<Vec<u8>>),
    Text(Vec<Option<String>>),
    Integers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    Booleans(Vec<bool>),
    Lists(Vec<Vec<i64>>),
    TextLists(Vec<Vec<String>>),
}

/// Columns with their names.
pub type Columns<'a> = Vec<(&'a str, Values)>;

/// Images and their labels, as `datasets` writes a `ClassLabel`.
pub fn labelled(images: &[(&[u8], i64)]) -> Columns<'static> {
    let numbered = images.iter().enumerate();
    let image =
        numbered.map(|(number, (bytes, _))| (Some(bytes.to_vec()), Some(format!("{number}.png"))));
    let labels = images.iter().map(|(_, label)| Some(*label)).collect();
    vec![
        ("image", Values::Images(image.collect())),
        ("label", Values::Integers(labels)),
    ]
}

/// The features of an image and a label of these classes.
pub fn class_label(names: &[&str]) -> Value {
    json!({
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    })
}

/// A file with these row groups. `features` are what `datasets` adds to the metadata.
pub fn file(features: Option<Value>, groups: &[Columns<'_>]) -> Vec<u8> {
    let fields: Vec<String> = groups[0]
        .iter()
        .map(|(name, values)| values.field(name))
        .collect();
    let schema = format!("message schema {{ {} }}", fields.join(" "));
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let said = features.map(|features| {
        let text = json!({"info": {"features": features}}).to_string();
        vec![KeyValue::new("huggingface".to_owned(), text)]
    });
    let properties = WriterProperties::builder()
        .set_key_value_metadata(said)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for (_, values) in columns {
            values.write(&mut group);
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

impl Values {
    /// The column in a schema.
    fn field(&self, name: &str) -> String {
        let list = |element: &str| {
            format!(
                "optional group {name} (LIST) {{ repeated group list {{ optional {element}; }} }}"
            )
        };
        match self {
            Self::Images(_) => format!(
                "optional group {name} {{ optional binary bytes; optional binary path (UTF8); }}"
            ),
            Self::Bytes(_) => format!("optional binary {name};"),
            Self::Text(_) => format!("optional binary {name} (UTF8);"),
            Self::Integers(_) => format!("optional int64 {name};"),
            Self::Floats(_) => format!("optional double {name};"),
            Self::Booleans(_) => format!("optional boolean {name};"),
            Self::Lists(_) => list("int64 element"),
            Self::TextLists(_) => list("binary element (UTF8)"),
        }
    }

    fn write(&self, group: &mut Group<'_>) {
        let bytes = |value: &[u8]| ByteArray::from(value.to_vec());
        let text = |value: &String| bytes(value.as_bytes());
        match self {
            Self::Images(rows) => {
                let parts = rows.iter().map(|(image, _)| image.as_deref().map(bytes));
                optional::<ByteArrayType>(group, 2, parts);
                let parts = rows.iter().map(|(_, path)| path.as_ref().map(text));
                optional::<ByteArrayType>(group, 2, parts);
            }
            Self::Bytes(rows) => {
                optional::<ByteArrayType>(group, 1, rows.iter().map(|value| Some(bytes(value))));
            }
            Self::Text(rows) => {
                optional::<ByteArrayType>(
                    group,
                    1,
                    rows.iter().map(|value| value.as_ref().map(text)),
                );
            }
            Self::Integers(rows) => optional::<Int64Type>(group, 1, rows.iter().copied()),
            Self::Floats(rows) => optional::<DoubleType>(group, 1, rows.iter().copied()),
            Self::Booleans(rows) => optional::<BoolType>(group, 1, rows.iter().copied().map(Some)),
            Self::Lists(rows) => lists::<Int64Type>(group, rows.clone()),
            Self::TextLists(rows) => {
                let rows = rows.iter().map(|row| row.iter().map(text).collect());
                lists::<ByteArrayType>(group, rows.collect());
            }
        }
    }
}

/// Writes a column; `level` is the definition level of a value that is there.
fn optional<T: DataType>(
    group: &mut Group<'_>,
    level: i16,
    rows: impl Iterator<Item = Option<T::T>>,
) {
    let rows: Vec<Option<T::T>> = rows.collect();
    let levels: Vec<i16> = rows
        .iter()
        .map(|row| if row.is_some() { level } else { level - 1 })
        .collect();
    let values: Vec<T::T> = rows.into_iter().flatten().collect();
    write::<T>(group, &values, &levels, None);
}

fn lists<T: DataType>(group: &mut Group<'_>, rows: Vec<Vec<T::T>>) {
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for row in &rows {
        defined.extend(if row.is_empty() {
            vec![1]
        } else {
            vec![3; row.len()]
        });
        repeated.extend((0..row.len().max(1)).map(|at| i16::from(at > 0)));
    }
    let values: Vec<T::T> = rows.into_iter().flatten().collect();
    write::<T>(group, &values, &defined, Some(&repeated));
}

fn write<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    defined: &[i16],
    repeated: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    let typed = column.typed::<T>();
    typed.write_batch(values, Some(defined), repeated).unwrap();
    column.close().unwrap();
}

/// A file whose schema has groups in groups, `depth` levels in all.
pub fn nested(depth: usize) -> Vec<u8> {
    let count = depth;
    // Fields of Thrift's compact protocol: the version, then the list of elements.
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    let mut left = count;
    while left > 0x7f {
        footer.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    footer.push(left as u8);
    // The root; groups of one child; a column of integers.
    footer.extend([0x48, 1, b'a', 0x15, 2, 0]);
    for _ in 2..count {
        footer.extend([0x35, 0, 0x18, 1, b'a', 0x15, 2, 0]);
    }
    footer.extend([0x15, 2, 0x25, 0, 0x18, 1, b'a', 0]);
    // No rows and no row groups.
    footer.extend([0x16, 0, 0x19, 0x0c, 0]);
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &footer[..], &length, b"PAR1"].concat()
}
