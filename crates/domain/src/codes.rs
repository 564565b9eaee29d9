//! The codes of problems in requests. docs/errors.md lists them.

use crate::problem::Code;

pub const MISSING_FIELD: Code = "missing_field";
pub const UNKNOWN_FIELD: Code = "unknown_field";
pub const WRONG_TYPE: Code = "wrong_type";
pub const OUT_OF_RANGE: Code = "out_of_range";
pub const INVALID_VALUE: Code = "invalid_value";
/// The contract has it, but this version does not.
pub const NOT_AVAILABLE: Code = "not_available";
/// Two options exclude each other, or an option has no effect.
pub const CONTRADICTION: Code = "contradiction";
/// The base model has no such stage, block, layer or parameter.
pub const UNKNOWN_LAYER: Code = "unknown_layer";
/// A split that the job needs has no sample.
pub const EMPTY_SPLIT: Code = "empty_split";
/// The validation file has a class that the training file does not have.
pub const UNKNOWN_CLASS: Code = "unknown_class";
/// The data set has no sample of this number.
pub const UNKNOWN_SAMPLE: Code = "unknown_sample";
/// The training file has a class that the parent model does not know.
pub const NEW_CLASS: Code = "new_class";
/// A batch would hold more samples than there are.
pub const TOO_LARGE: Code = "too_large";
pub const BATCH_TOO_LARGE: Code = "batch_too_large";
/// The data are for another task than the request, or the other file, says.
pub const TASK_MISMATCH: Code = "task_mismatch";
