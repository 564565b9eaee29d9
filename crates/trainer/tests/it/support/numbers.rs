//! The numbers of tests/fixtures/parity/README.md: weights and inputs that follow from a tensor's
//! name.

use std::{fs, path::PathBuf};

use rehead_test_support::weights;
use serde_json::Value;
use tch::{Kind, Tensor};

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

/// The recording of an image network, by the registry's name.
pub(crate) fn recording(architecture: &str) -> Option<Value> {
    let files = ["timm", "tv"].map(|from| folder().join(format!("{from}-{architecture}.json")));
    let file = files.iter().find_map(|file| fs::read(file).ok())?;
    Some(serde_json::from_slice(&file).unwrap())
}

/// `u(name, i)` for every element, f64 of this shape.
fn uniform(name: &str, size: &[i64]) -> Tensor {
    let count = size.iter().product::<i64>() as usize;
    Tensor::from_slice(&weights::uniform(name, count)).view(size)
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
    let shape: Vec<usize> = size.iter().map(|&side| side as usize).collect();
    Tensor::from_slice(&weights::by_rules(name, &shape)).view(size)
}

/// Overwrites these tensors by the rules.
pub(crate) fn fill(tensors: &[(String, Tensor)]) {
    tch::no_grad(|| {
        for (name, tensor) in tensors {
            tensor.shallow_clone().copy_(&weights(name, &tensor.size()));
        }
    });
}

/// The same with a recording's gain.
pub(crate) fn fill_for(tensors: &[(String, Tensor)], recording: &Value) {
    fill(tensors);
    let gain = recording["gain"].as_f64().unwrap_or(1.0);
    let scaled = tensors.iter().filter(|(_, tensor)| tensor.dim() >= 2);
    tch::no_grad(|| {
        for (_, tensor) in scaled {
            let _ = tensor.shallow_clone().g_mul_scalar_(gain);
        }
    });
}

/// Compares two vectors as the recordings ask: norms within 1e-3 of each other, and every
/// given first element within 1e-3 of the norm. The error is the difference.
pub(crate) fn compare(what: &str, found: &Tensor, first: &Value, norm: f64) -> Result<(), String> {
    let found_norm = found.to_kind(Kind::Double).norm().double_value(&[]);
    let bound = 1e-3 * norm;
    if (found_norm - norm).abs() > bound || !found_norm.is_finite() {
        return Err(format!("{what}: norm {found_norm}, recorded {norm}"));
    }
    compare_first(what, found, first, norm)
}

/// Compares the given first elements to within 1e-3 of `norm`. The error is the difference.
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
