//! Reading, checking and writing weights. Loading is strict: every missing, unexpected and
//! misshapen tensor is named, and nothing is broadcast or cut to fit. The only change of type is
//! f16 and bf16 to f32, which loses nothing. Files may come from anyone: what a header claims is
//! checked before anything of that size is allocated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use serde_json::json;
use tch::{Kind, TchError, Tensor};

use super::torch_error::is_out_of_memory;
use crate::{data::tensor_file, domain::problem::Problem, ticks::tick};

/// Bytes of a safetensors header. The largest of a network here has 0.06 MB.
pub const HEADER_BYTES: u64 = 1 << 20;
/// Tensors of one file.
pub const TENSORS: usize = 10_000;
/// Dimensions of one tensor.
pub const DIMENSIONS: usize = 8;
/// Bytes of a tensor's name.
pub const NAME_BYTES: usize = 512;

/// BatchNorm's count of training batches: an integer that nothing here reads, so that it may be
/// missing.
const COUNTER: &str = ".num_batches_tracked";

/// The types of numbers in a file: torch's, that of safetensors, and a pickle's storage.
pub(super) const TYPES: [(Kind, Dtype, &str); 10] = [
    (Kind::Double, Dtype::F64, "DoubleStorage"),
    (Kind::Float, Dtype::F32, "FloatStorage"),
    (Kind::Half, Dtype::F16, "HalfStorage"),
    (Kind::BFloat16, Dtype::BF16, "BFloat16Storage"),
    (Kind::Int64, Dtype::I64, "LongStorage"),
    (Kind::Int, Dtype::I32, "IntStorage"),
    (Kind::Int16, Dtype::I16, "ShortStorage"),
    (Kind::Int8, Dtype::I8, "CharStorage"),
    (Kind::Uint8, Dtype::U8, "ByteStorage"),
    (Kind::Bool, Dtype::BOOL, "BoolStorage"),
];

/// Tensors by name, on the CPU.
pub type Tensors = BTreeMap<String, Tensor>;

/// A weights file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Not enough memory for its tensors.
    #[error("{0}")]
    OutOfMemory(String),
    /// A wrong format, or beyond a limit. `code` is for a `Problem`.
    #[error("{message}")]
    Refused { code: &'static str, message: String },
}

impl WeightsError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// True when the error is this machine's lack of memory, not a property of the file.
    pub fn lacks_memory(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::OutOfMemory,
            Self::OutOfMemory(_) => true,
            Self::Refused { .. } => false,
        }
    }

    /// Torch failed to create the tensor `name`.
    pub(super) fn unmade(name: &str, error: &TchError) -> Self {
        let message = format!("`{name}` cannot be made: {error}");
        if is_out_of_memory(&message) {
            Self::OutOfMemory(message)
        } else {
            Self::format(message)
        }
    }

    /// The file is not what it claims to be.
    pub(super) fn format(message: impl Into<String>) -> Self {
        Self::Refused {
            code: "unsupported_format",
            message: message.into(),
        }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::Refused {
            code: "too_large",
            message: message.into(),
        }
    }
}

/// Every mismatch between a network and a weights file: one problem per tensor, whose path is the
/// tensor's name.
#[derive(Debug, Default, Clone, PartialEq, thiserror::Error)]
#[error("the weights do not fit the network: {}", self.summary())]
pub struct LoadReport {
    /// Tensors of the network that the file lacks.
    missing: Vec<Problem>,
    /// Tensors of the file that the network lacks.
    unexpected: Vec<Problem>,
    misshapen: Vec<Problem>,
    /// Tensors with numbers that no network can work with.
    unusable: Vec<Problem>,
}

impl LoadReport {
    fn kinds(&self) -> [(&'static str, &[Problem]); 4] {
        [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("misshapen", &self.misshapen),
            ("unusable", &self.unusable),
        ]
    }

    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    pub fn problems(&self) -> Vec<Problem> {
        self.kinds().map(|(_, problems)| problems).concat()
    }

    /// How many of each kind, and the first name.
    fn summary(&self) -> String {
        let kinds = self.kinds().into_iter().filter_map(|(kind, problems)| {
            let [first, rest @ ..] = problems else {
                return None;
            };
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Some(format!("{kind} `{}`{more}", first.path))
        });
        kinds.collect::<Vec<_>>().join("; ")
    }
}

/// Reads a safetensors file.
///
/// # Errors
/// A file that cannot be read, is not safetensors, or is past a limit.
pub fn read_safetensors(path: &Path) -> Result<Tensors, WeightsError> {
    let bytes = map(path)?;
    parse_safetensors(&bytes)
}

/// The metadata in a safetensors file's header.
///
/// # Errors
/// As `read_safetensors`.
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let bytes = map(path)?;
    check_header(&bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| WeightsError::format(describe(&error)))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(metadata.into_iter().collect())
}

/// A file as memory. Empty files map to nothing.
pub(super) fn map(path: &Path) -> Result<memmap2::Mmap, WeightsError> {
    fs::File::open(path)
        .and_then(|file| tensor_file::map(&file))
        .map_err(WeightsError::io(path))
}

/// True when these bytes begin like safetensors: a length, then a JSON object. Zip files and
/// pickles never do: where their ninth byte is a brace, their first eight bytes are no length that
/// a file could have.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    let plausible = header_length(bytes).is_some_and(|length| length < bytes.len() as u64);
    let other = bytes.starts_with(b"PK") || bytes.starts_with(b"\x80");
    bytes.get(8) == Some(&b'{') && (plausible || !other)
}

fn header_length(bytes: &[u8]) -> Option<u64> {
    bytes
        .first_chunk::<8>()
        .map(|length| u64::from_le_bytes(*length))
}

fn check_header(bytes: &[u8]) -> Result<(), WeightsError> {
    if header_length(bytes).is_some_and(|length| length > HEADER_BYTES) {
        return Err(WeightsError::format(format!(
            "the safetensors header is longer than {HEADER_BYTES} bytes"
        )));
    }
    Ok(())
}

/// The tensors of a safetensors file's bytes.
///
/// # Errors
/// Bytes that are not safetensors, or are past a limit.
pub fn parse_safetensors(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    check_header(bytes)?;
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| WeightsError::format(describe(&error)))?;
    if file.len() > TENSORS {
        return Err(WeightsError::too_large(format!(
            "{} tensors in one file; at most {TENSORS}",
            file.len()
        )));
    }
    file.iter()
        .map(|(name, view)| Ok((name.to_owned(), tensor(name, &view)?)))
        .collect()
}

/// The crate's errors as plain sentences: some of its own texts contain Rust's debug form.
fn describe(error: &SafeTensorError) -> String {
    let what = match error {
        SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
            "its header is not the JSON object it should be".to_owned()
        }
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            "it ends before its header does".to_owned()
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the bytes of `{name}` overlap another tensor's, or leave a hole before them")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "its bytes are more or fewer than its header says".to_owned()
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and bytes do not agree".to_owned(),
        SafeTensorError::ValidationOverflow => "a tensor's shape is too large to count".to_owned(),
        other => other.to_string(),
    };
    format!("not a usable safetensors file: {what}")
}

fn tensor(name: &str, view: &TensorView) -> Result<Tensor, WeightsError> {
    check_name(name)?;
    let dtype = view.dtype();
    let (kind, ..) = TYPES
        .iter()
        .find(|(_, known, _)| *known == dtype)
        .ok_or_else(|| {
            let message = format!("`{name}` holds numbers of type {dtype}, which is not supported");
            WeightsError::format(message)
        })?;
    if view.shape().len() > DIMENSIONS {
        return Err(WeightsError::too_large(format!(
            "`{name}` has more than {DIMENSIONS} dimensions"
        )));
    }
    let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::f_from_data_size(view.data(), &size, *kind)
        .map_err(|error| WeightsError::unmade(name, &error))
}

/// Names go into file formats, logs and answers.
pub(super) fn check_name(name: &str) -> Result<(), WeightsError> {
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(60).collect();
        let limit = format!("1 to {NAME_BYTES} bytes without control characters");
        return Err(WeightsError::format(format!(
            "a tensor is named {shown:?}; a name has {limit}"
        )));
    }
    Ok(())
}

/// Copies `from` into the tensors `into` by name. Nothing is copied unless everything fits. Tensors
/// of `from` whose name starts with a prefix in `ignore` may be left over.
///
/// # Errors
/// Everything that does not fit.
pub fn load_strict(
    into: &[(String, Tensor)],
    from: &Tensors,
    ignore: &[&str],
) -> Result<(), LoadReport> {
    let report = check(into, from, ignore);
    if !report.is_empty() {
        return Err(report);
    }
    tch::no_grad(|| {
        for (name, target) in into {
            target.shallow_clone().copy_(&from[name]);
        }
    });
    Ok(())
}

/// The report of `load_strict`, without copying.
pub fn check(into: &[(String, Tensor)], from: &Tensors, ignore: &[&str]) -> LoadReport {
    let mut report = LoadReport::default();
    for (name, target) in into {
        let wanted = target.size();
        let Some(source) = from.get(name) else {
            let message =
                format!("the network needs `{name}` of shape {wanted:?}; the file has none");
            report
                .missing
                .push(Problem::new(name, "missing_tensor", message));
            continue;
        };
        let (found, holds, computes) = (source.size(), source.kind(), target.kind());
        if found != wanted {
            let message =
                format!("`{name}` has shape {found:?} in the file; the network needs {wanted:?}");
            report
                .misshapen
                .push(Problem::new(name, "misshapen_tensor", message));
        } else if !fits(computes, holds) {
            let message = format!("`{name}` holds {holds:?}; the network computes in {computes:?}");
            report
                .unusable
                .push(Problem::new(name, "wrong_dtype", message));
        } else if !is_finite(source) {
            let message = format!("`{name}` holds NaN or infinity");
            report
                .unusable
                .push(Problem::new(name, "not_finite", message));
        }
    }
    let wanted: BTreeSet<&str> = into.iter().map(|(name, _)| name.as_str()).collect();
    report.unexpected = from
        .iter()
        .filter(|(name, _)| !wanted.contains(name.as_str()) && !name.ends_with(COUNTER))
        .filter(|(name, _)| !ignore.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, tensor)| {
            let message = format!(
                "the file holds `{name}` of shape {:?}; the network has no such tensor",
                tensor.size()
            );
            Problem::new(name, "unexpected_tensor", message)
        })
        .collect();
    report
}

/// True when copying changes no number.
pub(super) fn fits(target: Kind, source: Kind) -> bool {
    target == source || (target == Kind::Float && matches!(source, Kind::Half | Kind::BFloat16))
}

fn is_finite(tensor: &Tensor) -> bool {
    !tensor.is_floating_point() || tensor.isfinite().all().int64_value(&[]) != 0
}

/// Writes a safetensors file, by a temporary file, fsync and rename. `metadata` becomes
/// `__metadata__`.
///
/// # Errors
/// A disk that is full or read-only.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(&partial)?);
        write_to(&mut file, tensors, metadata)?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&partial, path)?;
        path.parent()
            .map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&partial);
        WeightsError::Io {
            path: path.to_owned(),
            source,
        }
    })
}

fn write_to(
    file: &mut impl io::Write,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let mut sorted: Vec<&(String, Tensor)> = tensors.iter().collect();
    // Wide numbers first, so that each tensor is aligned to its own width.
    sorted
        .sort_by_key(|(name, tensor)| (std::cmp::Reverse(tensor.kind().elt_size_in_bytes()), name));
    let described = sorted.iter().map(|(name, tensor)| {
        let shape = tensor
            .size()
            .into_iter()
            .map(|side| side as usize)
            .collect();
        (name.as_str(), dtype(tensor.kind()), shape)
    });
    file.write_all(&tensor_file::header(json!(metadata), described)?)?;
    sorted.iter().try_for_each(|(_, tensor)| {
        tick();
        file.write_all(&contiguous_bytes(tensor))
    })
}

fn dtype(kind: Kind) -> Dtype {
    let found = TYPES.iter().find(|(known, ..)| *known == kind);
    let (_, dtype, _) =
        found.unwrap_or_else(|| panic!("no weights are of type {kind:?}: this is a bug"));
    *dtype
}

/// A tensor's numbers in row-major order, in the byte order of safetensors (little-endian, as every
/// machine here).
pub(super) fn contiguous_bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    if !bytes.is_empty() {
        let count = bytes.len();
        tensor
            .view(-1)
            .view_dtype(Kind::Uint8)
            .copy_data(&mut bytes, count);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        parse_safetensors(bytes)
            .expect_err("a hostile file is refused")
            .to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.safetensors");
        let turned = Tensor::arange(6, (Kind::Float, tch::Device::Cpu))
            .view([2, 3])
            .tr();
        let count = Tensor::from_slice(&[7i64]).squeeze();
        let written = [
            ("a.weight".to_owned(), turned.copy()),
            ("n".to_owned(), count),
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&path, &written, &metadata).expect("it is written");
        let read = read_safetensors(&path).expect("it is read");
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a.weight", "n"]);
        assert_eq!(read["a.weight"], turned);
        assert_eq!(read["n"].int64_value(&[]), 7);
        assert_eq!(
            fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn hostile_headers_are_refused_with_a_sentence() {
        let tensor =
            |offsets: &str| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "ends before its header"),
            ((1u64 << 63).to_le_bytes().to_vec(), "longer than 1048576"),
            (file("[]", b""), "not the JSON object"),
            (
                file(&format!(r#"{{"a":{}}}"#, tensor("[0,4]")), &[0; 5]),
                "more or fewer",
            ),
            (
                file(&format!(r#"{{"a":{}}}"#, tensor("[0,4]")), &[0; 3]),
                "more or fewer",
            ),
            (
                file(&format!(r#"{{"a":{}}}"#, tensor("[4,8]")), &[0; 8]),
                "hole",
            ),
            (
                file(
                    &format!(r#"{{"a":{},"b":{}}}"#, tensor("[0,4]"), tensor("[0,4]")),
                    &[0; 4],
                ),
                "overlap",
            ),
            (
                file(
                    r#"{"a":{"dtype":"F32","shape":[4611686018427387904,16],"data_offsets":[0,4]}}"#,
                    &[0; 4],
                ),
                "too large",
            ),
            (
                file(
                    r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
                    &[0; 4],
                ),
                "not the JSON object",
            ),
            (
                file(&format!(r#"{{"a\nb":{}}}"#, tensor("[0,4]")), &[0; 4]),
                "control characters",
            ),
            (
                file(
                    r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
                    &[0; 4],
                ),
                "dimensions",
            ),
        ];
        for (bytes, expected) in cases {
            let message = refusal(&bytes);
            assert!(
                message.contains(expected),
                "{message:?} should say {expected:?}"
            );
        }
    }

    #[test]
    fn loading_lists_every_mismatch_and_copies_nothing() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, tch::Device::Cpu));
        let into: Vec<(String, Tensor)> = ["fits", "missing", "wide", "nan", "whole"]
            .into_iter()
            .map(|name| (name.to_owned(), zeros(&[2])))
            .collect();
        let from = Tensors::from([
            ("fits".to_owned(), zeros(&[2]) + 1.0),
            ("wide".to_owned(), zeros(&[1])),
            ("nan".to_owned(), Tensor::from_slice(&[0.0f32, f32::NAN])),
            ("whole".to_owned(), Tensor::from_slice(&[1i64, 2])),
            ("stranger".to_owned(), zeros(&[3])),
            (
                "bn.num_batches_tracked".to_owned(),
                Tensor::from_slice(&[1i64]),
            ),
            ("fc.weight".to_owned(), zeros(&[5])),
        ]);
        let report = load_strict(&into, &from, &["fc."]).expect_err("it does not fit");
        let found: Vec<(String, String)> = report
            .problems()
            .into_iter()
            .map(|p| (p.path, p.code))
            .collect();
        let expected = [
            ("missing", "missing_tensor"),
            ("stranger", "unexpected_tensor"),
            ("wide", "misshapen_tensor"),
            ("nan", "not_finite"),
            ("whole", "wrong_dtype"),
        ];
        assert_eq!(
            found,
            expected.map(|(path, code)| (path.to_owned(), code.to_owned()))
        );
        assert_eq!(into[0].1, zeros(&[2]));
        assert!(report.to_string().contains("missing `missing`"), "{report}");
    }

    #[test]
    fn halves_become_floats() {
        let into = [(
            "a".to_owned(),
            Tensor::zeros([2], (Kind::Float, tch::Device::Cpu)),
        )];
        for kind in [Kind::Half, Kind::BFloat16] {
            let from = Tensors::from([(
                "a".to_owned(),
                Tensor::from_slice(&[0.5f32, -3.0]).to_kind(kind),
            )]);
            load_strict(&into, &from, &[]).expect("halves fit");
            assert_eq!(into[0].1, Tensor::from_slice(&[0.5f32, -3.0]));
        }
    }
}
