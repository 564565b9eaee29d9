//! Bytes to tensors. Everything here runs in child processes (`rehead-trainer`), never in the
//! server or the worker: until it is decoded, an archive or an image is untrusted input.
//!
//! An upload goes `archive` → `parquet`, `manifest`, `tables` or `layout` → `image` → `split` →
//! `pack`, driven by `validate`; training reads the pack through `source`.

/// Entries of a zip or tar, within limits, into one spool file.
pub mod archive;

/// Files that are sent in place of another.
pub mod file_kind;

/// The target of a sample.
pub mod target;

/// From paths to classes and splits.
pub mod layout;

/// The same from a manifest.
pub mod manifest;

/// The same from tables by other names.
pub mod tables;

/// The same from Parquet files, which hold the images, too.
mod parquet;

/// Encoded images to RGB, and RGB to the square that a network takes.
pub mod image;

/// Splits samples into train and validation.
pub mod split;

/// Safetensors files, mapped and written.
pub(crate) mod tensor_file;

/// A validated data set in one file.
pub mod pack;

/// Small images of a data set's samples, and where their bytes are.
pub mod thumbnails;

/// Samples of a pack to tensors.
pub mod batch;

/// Training images altered at random.
pub mod augment;

/// Batches for a model, by modality.
pub mod source;

/// Random numbers as a function of a key.
pub mod random;

/// Validates an upload: report and pack.
pub mod validate;

/// A data set made of another by corrections.
pub mod corrected;

/// The codes of problems with data sets, listed in docs/errors.md.
pub mod codes;
