//! scikit-learn's small data sets, as `make demo-data` brings them. For tests.

use std::{fs, io::Read, path::PathBuf};

use tch::{Kind, Tensor};

/// 1797 images of 8x8 as rows of 64 numbers in 0..=16, f64, and their digits, i64.
pub(super) fn digits() -> (Tensor, Tensor) {
    let file = fs::File::open(path("digits.csv.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    table(&text)
}

/// 150 flowers as rows of 4 lengths in cm, f64, and their species, i64.
pub(super) fn iris() -> (Tensor, Tensor) {
    let text = fs::read_to_string(path("iris.csv")).unwrap();
    // The first line tells sizes and names.
    table(text.split_once('\n').unwrap().1)
}

/// A row per line; the last number is the label.
fn table(text: &str) -> (Tensor, Tensor) {
    let numbers: Vec<f64> = text
        .split(['\n', ','])
        .filter(|field| !field.trim().is_empty())
        .map(|field| field.trim().parse().unwrap())
        .collect();
    let rows = text.lines().count() as i64;
    let all = Tensor::from_slice(&numbers).view([rows, -1]);
    let width = all.size()[1] - 1;
    let labels = all.select(1, width).to_kind(Kind::Int64);
    (all.narrow(1, 0, width).contiguous(), labels)
}

fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../.deps/demo/scikit-learn/sklearn/datasets/data")
        .join(name);
    assert!(path.exists(), "no {}: run `make demo-data`", path.display());
    path
}
