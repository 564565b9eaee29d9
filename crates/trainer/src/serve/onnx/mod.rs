//! A bundle as one ONNX file: preprocessed images [N, C, S, S] f32 in, logits [N, outputs] out, for
//! any N. What a program needs around the network (preprocessing, labels, how to read logits) is in
//! the file's metadata, under the keys of docs/onnx.md.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use prost::Message as _;
use serde::Serialize;
use tch::Device;

use super::{bundle::Bundle, golden::Golden};
use crate::{
    data::source::BatchSource,
    models::onnx::{self, proto::Model},
    process::error::TrainError,
    train::eval::metrics::OutputDecoding,
};

mod evaluate;

/// Size of the largest file: readers of protobuf count bytes in 31 bits.
const LIMIT: usize = i32::MAX as usize;

/// Writes the bundle in `folder` to `target`.
///
/// # Errors
/// As `Bundle::load`; `ExportTooLarge`; `Io`.
pub(super) fn write(folder: &Path, target: &Path) -> Result<(), TrainError> {
    let model = model(&Bundle::load(folder, Device::Cpu)?)?;
    let bytes = encode(model, LIMIT)?;
    let write = || {
        let mut file = File::create(target)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(TrainError::io(format!("cannot write {}", target.display())))
}

fn model(bundle: &Bundle) -> Result<Model, TrainError> {
    let BatchSource::Image(preprocessing) = BatchSource::new(bundle.input())?;
    let (backbone, head) = bundle.network();
    let entries = metadata(bundle);
    Ok(onnx::model(backbone, head, &preprocessing, entries))
}

fn metadata(bundle: &Bundle) -> Vec<(String, String)> {
    let mut entries = vec![
        ("task", bundle.task().as_str().to_owned()),
        ("labels", json(&bundle.labels())),
        ("preprocess", json(bundle.input())),
    ];
    entries.extend(bundle.model().map(|model| ("model", model.to_owned())));
    entries.extend(match bundle.decoding() {
        OutputDecoding::Temperature(temperature) => Some(("temperature", json(temperature))),
        OutputDecoding::Thresholds(thresholds) => Some(("thresholds", json(thresholds))),
        OutputDecoding::Plain => None,
    });
    let named = entries.into_iter();
    named
        .map(|(key, value)| (format!("rehead.{key}"), value))
        .collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

/// # Errors
/// `ExportTooLarge`.
fn encode(model: Model, limit: usize) -> Result<Vec<u8>, TrainError> {
    let bytes = model.encoded_len();
    if bytes > limit {
        return Err(TrainError::ExportTooLarge(format!(
            "the model takes {bytes} bytes as ONNX, whose files have at most {limit}; export it as `torchscript` or `zip`"
        )));
    }
    Ok(model.encode_to_vec())
}

/// Reads what `write` wrote for the bundle in `folder`, evaluates it operator by operator, and
/// compares with the golden logits. Returns the difference, as `Golden::compare`.
///
/// # Errors
/// `ExportMismatch`, `Io`.
pub(super) fn verify(folder: &Path, file: &Path) -> Result<f64, TrainError> {
    let golden = Golden::read(folder)?;
    let failed = format!("cannot read {}", file.display());
    let bytes = fs::read(file).map_err(TrainError::io(failed))?;
    let wrong = |reason| TrainError::ExportMismatch(format!("the ONNX file {reason}"));
    let program = evaluate::Program::read(bytes).map_err(wrong)?;
    golden.compare("the ONNX file", |images| {
        let _no_grad = tch::no_grad_guard();
        program.run(images).map_err(wrong)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_protobufs_limit_is_refused() {
        let model = Model {
            producer_name: "x".repeat(100),
            ..Model::default()
        };
        // A tag and a length come before the text.
        assert_eq!(encode(model.clone(), 102).unwrap().len(), 102);
        let error = encode(model, 101).unwrap_err();
        assert_eq!(error.failure().code, "export_too_large");
        assert!(!error.failure().retryable);
        let message = error.to_string();
        assert!(message.contains("102 bytes") && message.contains("at most 101"));
    }
}
