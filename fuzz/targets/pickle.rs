//! Torch's pickles, as whole files and as the object of an old one: tensors whose numbers are those
//! of the file, or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rehead_fuzz::within;
use rehead_trainer::models::{pth, weights::WeightsError};

/// Pickles before the object in torch's old format: magic number, version, machine.
const LEGACY: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";

fuzz_target!(|bytes: &[u8]| {
    parse(bytes);
    parse(&[LEGACY, bytes].concat());
});

fn parse(bytes: &[u8]) {
    // The machine's values are small, and a byte makes at most one container.
    let memory = (1 << 20) + 300 * bytes.len();
    let tensors = match within(memory, || pth::parse(bytes)) {
        Ok(tensors) => tensors,
        Err(WeightsError::Refused { message, .. }) => {
            assert!(message.len() < 2_000, "{message}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let sizes = tensors
        .values()
        .map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes());
    assert!(sizes.sum::<usize>() <= 2 * bytes.len());
    assert!(
        tensors
            .keys()
            .all(|name| !name.chars().any(char::is_control))
    );
}
