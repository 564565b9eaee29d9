//! Safetensors files, which packs and weights are: the header as it is written here, and files
//! mapped into memory.

use std::{fs::File, io};

use memmap2::Mmap;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

/// Maps a file into memory.
///
/// # Errors
/// When the file cannot be mapped.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    #[expect(
        unsafe_code,
        reason = "the file lies in a folder of ours, where nobody changes it while it is mapped"
    )]
    // SAFETY: only the validation process's anonymous spool, finished packs and weights in a
    // job's or a model's folder are mapped, and none of them changes.
    unsafe {
        Mmap::map(file)
    }
}

/// Length and header of a file with these tensors (name, type, shape), padded so that the data
/// behind it start at a multiple of eight. An object of `metadata` becomes `__metadata__`, unless
/// it is empty.
///
/// The format is <https://github.com/huggingface/safetensors#format>. It is written here because
/// the crate's order of metadata differs from run to run, and the same tensors must be the same
/// bytes.
///
/// # Errors
/// Metadata that cannot be JSON.
pub(crate) fn header<'a>(
    metadata: Value,
    tensors: impl IntoIterator<Item = (&'a str, Dtype, Vec<usize>)>,
) -> serde_json::Result<Vec<u8>> {
    let mut header = Map::new();
    if metadata != json!({}) {
        header.insert("__metadata__".to_owned(), metadata);
    }
    let mut start = 0;
    for (name, dtype, shape) in tensors {
        let end = start + dtype.bitsize() / 8 * shape.iter().product::<usize>();
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length[..], &header].concat())
}
