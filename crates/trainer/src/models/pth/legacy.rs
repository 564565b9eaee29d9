//! The format of torch before 1.6, still common among published weights: five pickles (magic
//! number, version, machine, object, storage keys), then each storage as a count and its bytes, in
//! the order of the keys.

use std::collections::HashMap;

use super::{
    pickle::{self, Machine, Value},
    saved::Saved,
};
use crate::models::weights::WeightsError;

/// The first pickle: the number 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: i64 = 1001;

pub(super) fn open(bytes: &[u8]) -> Result<Saved<'_>, WeightsError> {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // Some other pickle: if it asks for something, that is the answer.
        pickle::run(bytes)?;
        return Err(WeightsError::format(
            "this is a pickle, but not one of `torch.save(model.state_dict())`",
        ));
    };
    let mut next = || -> Result<_, WeightsError> {
        let (value, machine, used) = pickle::run(rest)?;
        rest = &rest[used..];
        Ok((value, machine))
    };
    let (version, _) = next()?;
    if version != Value::Int(VERSION) {
        return Err(WeightsError::format(format!(
            "only version {VERSION} of torch's old file format is read"
        )));
    }
    let (host, machine) = next()?;
    if machine.lookup(host, "little_endian") != Some(Value::Bool(true)) {
        return Err(WeightsError::format(
            "this file was not written on a little-endian machine",
        ));
    }
    let (value, machine) = next()?;
    let (keys, names) = next()?;
    let keys = names
        .items(keys)
        .ok_or_else(|| WeightsError::format("this file does not list its storages"))?;

    let keys = keys.iter().map(|&key| names.text(key));
    let storages = storages(&machine, keys, rest)?;
    Ok(Saved {
        value,
        machine,
        storages,
    })
}

/// The bytes of each storage, by key, which follow one another in the order of `keys`.
fn storages<'a, 'k>(
    machine: &Machine,
    keys: impl Iterator<Item = Result<&'k str, WeightsError>>,
    mut rest: &'a [u8],
) -> Result<HashMap<String, &'a [u8]>, WeightsError> {
    let described: HashMap<&str, (usize, u64)> = machine
        .storages
        .iter()
        .map(|storage| {
            (
                storage.key.as_str(),
                (storage.kind.elt_size_in_bytes(), storage.count),
            )
        })
        .collect();
    let mut storages = HashMap::new();
    for key in keys {
        let key = key?;
        let broken = || {
            WeightsError::format(format!(
                "the storage `{}` is cut short or has another length",
                key.escape_debug()
            ))
        };
        let &(element_bytes, count) = described.get(key).ok_or_else(broken)?;
        let (written, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        if u64::from_le_bytes(*written) != count {
            return Err(broken());
        }
        let length = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(element_bytes))
            .ok_or_else(broken)?;
        let (data, after) = after.split_at_checked(length).ok_or_else(broken)?;
        storages.insert(key.to_owned(), data);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(WeightsError::format(format!(
            "{} bytes follow the last storage of this file",
            rest.len()
        )));
    }
    Ok(storages)
}
