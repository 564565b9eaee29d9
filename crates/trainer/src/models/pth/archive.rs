//! The format of torch 1.6 and later: an uncompressed zip with `<name>/data.pkl`, one
//! `<name>/data/<key>` per storage and `<name>/byteorder`. TorchScript archives look alike, but
//! hold code: they are refused.

use std::{
    collections::HashMap,
    io::{Cursor, Read, Seek},
};

use zip::{CompressionMethod, ZipArchive};

use super::{
    pickle::{self, PICKLE_BYTES},
    saved::Saved,
};
use crate::{
    data::archive::directory::{self, DirectoryError},
    models::weights::{TENSORS, WeightsError},
};

pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// Entries of a file: its storages, and some besides.
const ENTRIES: u64 = 2 * TENSORS as u64;

pub(super) fn open(bytes: &[u8]) -> Result<Saved<'_>, WeightsError> {
    let mut archive = directory::open(Cursor::new(bytes), ENTRIES).map_err(unopened)?;
    let names = archive
        .file_names()
        .map(|name| name.map(std::borrow::Cow::into_owned));
    let names: Vec<String> = names.collect::<Result<_, _>>().map_err(broken)?;
    if names
        .iter()
        .any(|name| name.ends_with("/constants.pkl") || name.contains("/code/"))
    {
        return Err(WeightsError::format(
            "this is a TorchScript archive, which holds code: save `model.state_dict()`, or use safetensors",
        ));
    }
    let root = names.iter().find_map(|name| {
        name.strip_suffix("data.pkl")
            .filter(|root| root.ends_with('/'))
    });
    let root = root.ok_or_else(|| {
        WeightsError::format("this zip file is not one of `torch.save`: it has no data.pkl")
    })?;
    let entries = entries(bytes, &mut archive)?;
    if entries
        .get(&format!("{root}byteorder"))
        .is_some_and(|order| *order != b"little")
    {
        return Err(WeightsError::format(
            "this file was not written on a little-endian machine",
        ));
    }
    let data = entries[&format!("{root}data.pkl")];
    if data.len() > PICKLE_BYTES {
        return Err(WeightsError::too_large(format!(
            "data.pkl is longer than {PICKLE_BYTES} bytes"
        )));
    }
    let (value, machine, used) = pickle::run(data)?;
    if used != data.len() {
        return Err(WeightsError::format("bytes follow the pickle of this file"));
    }
    let storages = storages(&machine, &entries, root)?;
    Ok(Saved {
        value,
        machine,
        storages,
    })
}

fn unopened(error: DirectoryError) -> WeightsError {
    match error {
        DirectoryError::TooManyEntries => {
            WeightsError::too_large(format!("this file has more than {ENTRIES} entries"))
        }
        DirectoryError::TooLong => WeightsError::too_large("the names in this file are too long"),
        DirectoryError::Unreadable(error) => broken(error),
    }
}

fn broken(error: zip::result::ZipError) -> WeightsError {
    WeightsError::format(format!(
        "this zip file is damaged or was cut off ({error}); upload it again"
    ))
}

/// The bytes of each entry, by name. None may be compressed.
fn entries<'a>(
    bytes: &'a [u8],
    archive: &mut ZipArchive<impl Read + Seek>,
) -> Result<HashMap<String, &'a [u8]>, WeightsError> {
    let mut entries = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(broken)?;
        let (stored, start, size) = (
            entry.compression() == CompressionMethod::Stored,
            entry.data_start(),
            entry.size(),
        );
        if !stored || entry.compressed_size() != size {
            return Err(WeightsError::format(
                "an entry of this zip file is compressed, which `torch.save` never does",
            ));
        }
        let part = start.and_then(|start| {
            let start = usize::try_from(start).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        });
        let part = part.ok_or_else(|| {
            WeightsError::format("an entry of this zip file reaches past its end")
        })?;
        entries.insert(entry.name().map_err(broken)?.into_owned(), part);
    }
    Ok(entries)
}

/// The bytes of each storage, by key; exactly as long as the pickle says.
fn storages<'a>(
    machine: &pickle::Machine,
    entries: &HashMap<String, &'a [u8]>,
    root: &str,
) -> Result<HashMap<String, &'a [u8]>, WeightsError> {
    let mut storages = HashMap::with_capacity(machine.storages.len());
    for storage in &machine.storages {
        let missing = || {
            let key = storage.key.escape_debug();
            WeightsError::format(format!(
                "the storage `{key}` is not in the file, or has another length"
            ))
        };
        let part = *entries
            .get(&format!("{root}data/{}", storage.key))
            .ok_or_else(missing)?;
        let length = storage
            .count
            .checked_mul(storage.kind.elt_size_in_bytes() as u64);
        if length != Some(part.len() as u64) {
            return Err(missing());
        }
        storages.insert(storage.key.clone(), part);
    }
    Ok(storages)
}
