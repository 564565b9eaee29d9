//! The numbers of tests/fixtures/parity/README.md: weights and inputs that follow from a tensor's name.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The folder of recorded numbers.
pub(crate) fn folder() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity");
    std::env::var_os("REHEAD_PARITY_DIR").map_or_else(|| own.into(), PathBuf::from)
}

/// Checks every recording that `wanted` chooses, and says all that fail.
pub(crate) fn check_all(
    wanted: fn(&str) -> bool,
    check: impl Fn(&str, &Value) -> Result<(), String>,
) {
    tch::set_num_threads(2);
    let recordings = recordings(wanted);
    let failures: Vec<String> = recordings
        .iter()
        .filter_map(|(file, recording)| {
            let failure = check(file, recording).err()?;
            Some(format!("{file}: {failure}"))
        })
        .collect();
    let (read, failures) = (recordings.len(), failures.join("\n"));
    assert!(failures.is_empty(), "{read} recordings read\n{failures}");
}

/// Every recording, by file name in order, that `wanted` chooses.
pub(crate) fn recordings(wanted: fn(&str) -> bool) -> Vec<(String, Value)> {
    let folder = folder();
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name.ends_with(".json") && wanted(name));
    names.sort();
    assert!(!names.is_empty(), "no recordings in {}", folder.display());
    let read = |name: String| {
        let value = serde_json::from_slice(&fs::read(folder.join(&name)).unwrap()).unwrap();
        (name, value)
    };
    names.into_iter().map(read).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn fmix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// `u(name, i)` for every element, f64 of this shape.
fn uniform(name: &str, size: &[i64]) -> Tensor {
    let count = size.iter().product::<i64>() as u32;
    let seed = crc32(name.as_bytes());
    let draw = |i: u32| {
        f64::from(fmix32(seed.wrapping_add(i.wrapping_mul(0x9E37_79B9)))) / 4_294_967_296.0 - 0.5
    };
    let numbers: Vec<f64> = (0..count).map(draw).collect();
    Tensor::from_slice(&numbers).view(size)
}

/// Images: `4 * u(name, i)`, f32 [N, 3, H, W].
pub(crate) fn images(name: &str, size: &[i64]) -> Tensor {
    (uniform(name, size) * 4.0).to_kind(Kind::Float)
}

/// Rows of integers, such as tokens' ids: [N, T].
pub(crate) fn tokens(rows: &Value) -> Tensor {
    let rows: Vec<Vec<i64>> = serde_json::from_value(rows.clone()).unwrap();
    let size = [rows.len() as i64, rows[0].len() as i64];
    Tensor::from_slice(&rows.concat()).view(size)
}

/// A tensor of weights by the rules for its name and shape, f32.
pub(crate) fn weights(name: &str, size: &[i64]) -> Tensor {
    let u = uniform(name, size);
    let numbers = if name.ends_with("running_var") {
        u + 1.0
    } else if name.ends_with("running_mean") {
        u * 0.02
    } else if size.len() >= 2 {
        let fan_in = size[1..].iter().product::<i64>() as f64;
        u * (24.0 / fan_in).sqrt()
    } else if name.ends_with("weight") || name.ends_with("gamma") {
        u * 0.2 + 1.0
    } else {
        u * 0.02
    };
    numbers.to_kind(Kind::Float).to_device(Device::Cpu)
}

/// Overwrites these tensors by the rules.
pub(crate) fn fill(tensors: &[(String, Tensor)]) {
    tch::no_grad(|| {
        for (name, tensor) in tensors {
            tensor.shallow_clone().copy_(&weights(name, &tensor.size()));
        }
    });
}

/// Whether two vectors agree as the recordings ask: norms within 1e-3 of each other, and every given first element
/// within 1e-3 of the norm. Says what differs.
pub(crate) fn compare(what: &str, found: &Tensor, first: &Value, norm: f64) -> Result<(), String> {
    let found_norm = found.to_kind(Kind::Double).norm().double_value(&[]);
    let bound = 1e-3 * norm;
    if (found_norm - norm).abs() > bound || !found_norm.is_finite() {
        return Err(format!("{what}: norm {found_norm}, recorded {norm}"));
    }
    compare_first(what, found, first, norm)
}

/// Whether the given first elements are within 1e-3 of `norm`. Says what differs.
pub(crate) fn compare_first(
    what: &str,
    found: &Tensor,
    first: &Value,
    norm: f64,
) -> Result<(), String> {
    let bound = 1e-3 * norm;
    for (i, recorded) in (0..).zip(first.as_array().unwrap()) {
        let (found, recorded) = (found.double_value(&[i]), recorded.as_f64().unwrap());
        if (found - recorded).abs() > bound {
            return Err(format!(
                "{what}[{i}]: {found}, recorded {recorded}, norm {norm}"
            ));
        }
    }
    Ok(())
}
