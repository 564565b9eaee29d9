//! The codes of problems with data sets: stable, listed in docs/errors.md. An error refuses the
//! file; a warning is in its report, and the file can be used.

use crate::domain::problem::Code;

/// Error: the upload is not a zip, tar, tar.gz or tar.zst.
pub const NOT_AN_ARCHIVE: Code = "not_an_archive";
/// Error: the archive is truncated or damaged, or its directory contradicts its contents.
pub const CORRUPT_ARCHIVE: Code = "corrupt_archive";
/// Error: an entry is encrypted.
pub const ENCRYPTED_ARCHIVE: Code = "encrypted_archive";
/// Error: an entry is compressed by a method other than deflate, or a column of a Parquet file by
/// one that is not read.
pub const UNSUPPORTED_COMPRESSION: Code = "unsupported_compression";
/// Error: too many entries, or too many bytes once unpacked, in one entry or in all.
pub const ARCHIVE_TOO_LARGE: Code = "archive_too_large";
/// Error: the archive unpacks to far more bytes than it has.
pub const ARCHIVE_RATIO: Code = "archive_ratio";
/// Error: an entry's path could lead out of its folder, or is not valid on every system.
pub const UNSAFE_PATH: Code = "unsafe_path";
/// Error: names of folders are not UTF-8, and in no other encoding that can be told.
pub const UNKNOWN_ENCODING: Code = "unknown_encoding";
/// Warning: names are not UTF-8, and were read as another encoding.
pub const NAMES_DECODED: Code = "names_decoded";
/// Error: an entry is a link, a device or another special file.
pub const UNSAFE_ENTRY: Code = "unsafe_entry";
/// Error: two entries have one path, or two rows of a manifest.
pub const DUPLICATE_PATH: Code = "duplicate_path";

/// Error: the images are not in a folder per class.
pub const NO_CLASS_FOLDERS: Code = "no_class_folders";
/// Error: folders lie beside `train` that are neither `val` nor `test`.
pub const AMBIGUOUS_LAYOUT: Code = "ambiguous_layout";
/// Error: there is a `val` or `test` folder, but no `train` folder.
pub const NO_TRAINING_SPLIT: Code = "no_training_split";
/// Error: a folder's name cannot be the name of a class.
pub const INVALID_CLASS_NAME: Code = "invalid_class_name";
/// Error: two class names differ only in case, in Unicode form or in spaces around them.
pub const CLASS_NAME_TWINS: Code = "class_name_twins";
/// Error: more classes than one data set may have.
pub const TOO_MANY_CLASSES: Code = "too_many_classes";
/// Error: a class has no image that can be used, or none to train on.
pub const EMPTY_CLASS: Code = "empty_class";
/// Error: there is one class only.
pub const ONE_CLASS: Code = "one_class";
/// Error: no image of the upload can be used.
pub const NO_USABLE_IMAGES: Code = "no_usable_images";
/// Error: too few different images to train on some and to validate on others.
pub const TOO_FEW_IMAGES: Code = "too_few_images";

/// Error: a Parquet file is cut off or damaged.
pub const CORRUPT_PARQUET: Code = "corrupt_parquet";
/// Error: which columns of a Parquet file hold the images and the labels is not clear.
pub const UNCLEAR_COLUMNS: Code = "unclear_columns";
/// Error: a Parquet file holds text and no images.
pub const TEXT_DATA: Code = "text_data";
/// Error: a manifest cannot be read: not UTF-8, no header, a column too few or too many, a row that
/// is no row.
pub const INVALID_MANIFEST: Code = "invalid_manifest";
/// Error: a manifest has more rows than an archive may have entries.
pub const TOO_MANY_ROWS: Code = "too_many_rows";
/// Error: a manifest names a file that the archive does not hold, or a row of a Parquet file has no
/// image.
pub const MISSING_FILE: Code = "missing_file";
/// Error: a row of a manifest has a split that is none, or none where others have one.
pub const INVALID_SPLIT: Code = "invalid_split";
/// Error: a row of a manifest has no label, or no row has one.
pub const MISSING_LABEL: Code = "missing_label";
/// Error: a row's label is not a name, nor a list of different names.
pub const INVALID_LABEL: Code = "invalid_label";
/// Error: some rows of a manifest have numbers, others have names.
pub const MIXED_LABELS: Code = "mixed_labels";
/// Error: a row has more labels than a sample may have.
pub const TOO_MANY_LABELS: Code = "too_many_labels";
/// Error: a `value` is not a number, or is too large.
pub const INVALID_NUMBER: Code = "invalid_number";
/// Error: all numbers to train on are the same.
pub const CONSTANT_VALUE: Code = "constant_value";
/// Error: there are more problems than the report lists.
pub const MORE_PROBLEMS: Code = "more_problems";

/// Warning: the manifest does not name the file, and it is left out.
pub const NOT_IN_MANIFEST: Code = "not_in_manifest";
/// Warning: a table that is not called manifest.csv has the labels.
pub const LABELS_FROM_TABLE: Code = "labels_from_table";
/// Warning: a table names images and is not read.
pub const TABLE_NOT_READ: Code = "table_not_read";
/// Warning: the labels are whole numbers, and are taken as the names of classes.
pub const NUMERIC_CLASSES: Code = "numeric_classes";
/// Warning: the file is not in a class's folder, and is left out.
pub const OUTSIDE_CLASS_FOLDER: Code = "outside_class_folder";
/// Warning: the file is not an image that can be read, and is left out.
pub const NOT_AN_IMAGE: Code = "not_an_image";
/// Warning: the image's file is cut off, and is left out.
pub const TRUNCATED_IMAGE: Code = "truncated_image";
/// Warning: the image cannot be decoded, and is left out.
pub const UNREADABLE_IMAGE: Code = "unreadable_image";
/// Warning: the image has too many pixels, and is left out.
pub const TOO_MANY_PIXELS: Code = "too_many_pixels";
/// Warning: the same bytes occur more than once under one class.
pub const DUPLICATE_IMAGE: Code = "duplicate_image";
/// Warning: the same bytes occur under different classes.
pub const CONFLICTING_DUPLICATES: Code = "conflicting_duplicates";
/// Warning: the same bytes are in two of the folders `train`, `val`, `test`; all copies go to the
/// first of them.
pub const SPLIT_LEAK: Code = "split_leak";
/// Warning: a class has no image in the validation split.
pub const CLASS_NOT_VALIDATED: Code = "class_not_validated";

/// Failure that a retry may pass: the disk is full.
pub const STORAGE_FULL: Code = "storage_full";
/// Failure that a retry may pass: the machine could not read or write its own files.
pub const INTERNAL_ERROR: Code = "internal_error";
