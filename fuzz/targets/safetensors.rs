//! Safetensors: tensors whose bytes are those of the file, which are the same when they are written
//! and read again, or a refusal.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rehead_fuzz::{OneFile, within};
use rehead_trainer::models::weights::{self, Tensors, WeightsError};

fuzz_target!(|bytes: &[u8]| {
    let Some(tensors) = parse(bytes) else { return };
    let sizes = tensors
        .values()
        .map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes());
    assert!(sizes.sum::<usize>() <= bytes.len());
    let file = OneFile::new(b"");
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    weights::write_safetensors(&file.path(), &named, &BTreeMap::new())
        .expect("room for a small file");
    let again = weights::read_safetensors(&file.path()).expect("what was written can be read");
    assert!(again.keys().eq(tensors.keys()));
    for (one, other) in again.values().zip(tensors.values()) {
        assert_eq!((one.kind(), one.size()), (other.kind(), other.size()));
    }
});

fn parse(bytes: &[u8]) -> Option<Tensors> {
    // A header is parsed into maps of names and shapes.
    let memory = (1 << 20) + 100 * bytes.len();
    match within(memory, || weights::parse_safetensors(bytes)) {
        Ok(tensors) => Some(tensors),
        Err(WeightsError::Refused { message, .. }) => {
            assert!(message.len() < 4_000, "{message}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
