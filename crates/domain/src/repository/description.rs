//! The description of a model, and how values of configurations are read.

use serde_json::Value;

use crate::{
    base_model::{AskedPreprocessing, SourceTask},
    problem::quoted,
};

/// A model as its repository describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub architecture: String,
    pub source_task: SourceTask,
    pub preprocessing: AskedPreprocessing,
    pub license: Option<String>,
}

/// A number of a config that may be too large for it.
pub(super) fn side(value: Option<&Value>) -> Option<u32> {
    value.and_then(Value::as_u64)?.try_into().ok()
}

/// A list of numbers.
pub(super) fn numbers(value: Option<&Value>) -> Option<Vec<f64>> {
    value?.as_array()?.iter().map(Value::as_f64).collect()
}

/// The field of a config in a message.
pub(super) fn shown(value: &Value) -> String {
    quoted(&value.to_string()).into_owned()
}
