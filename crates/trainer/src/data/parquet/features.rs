//! The features that Hugging Face's `datasets` writes into the metadata of a file, under the key
//! `huggingface`: which columns are images, and the names of classes.

use std::collections::BTreeMap;

use ::parquet::file::metadata::FileMetaData;
use serde_json::Value;

/// The meaning of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Feature {
    Image,
    /// Integers that stand for these names, in order.
    Classes(Vec<String>),
    List(Box<Feature>),
    /// A plain value, or something else that is named so.
    Other(String),
}

impl Feature {
    /// The names of classes, of a column of one class or of several.
    pub(super) fn classes(&self) -> Option<&[String]> {
        match self {
            Self::Classes(names) => Some(names),
            Self::List(inner) => inner.classes(),
            Self::Image | Self::Other(_) => None,
        }
    }
}

/// The features by the names of their columns; none where the file says nothing of them.
pub(super) fn read(metadata: &FileMetaData) -> BTreeMap<String, Feature> {
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    let mut texts = pairs.filter(|pair| pair.key == "huggingface");
    let text = texts.find_map(|pair| pair.value.as_deref());
    let said: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    let features = said
        .as_ref()
        .and_then(|said| said.pointer("/info/features"));
    let columns = features.and_then(Value::as_object).into_iter().flatten();
    columns
        .map(|(name, said)| (name.clone(), feature(said)))
        .collect()
}

fn feature(said: &Value) -> Feature {
    // Older versions write a list as a JSON list of what is in it.
    let inner = said.get(0).or_else(|| said.get("feature"));
    let word = said
        .get("_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let names = said.get("names").and_then(Value::as_array);
    match (word, names, inner) {
        ("Image", ..) => Feature::Image,
        ("ClassLabel", Some(names), _) if names.iter().all(Value::is_string) => {
            let names = names.iter().filter_map(Value::as_str);
            Feature::Classes(names.map(str::to_owned).collect())
        }
        ("" | "Sequence" | "List" | "LargeList", _, Some(inner)) => {
            Feature::List(Box::new(feature(inner)))
        }
        _ => Feature::Other(word.to_owned()),
    }
}
