//! Stores the model bundle of a finished job: verified by a process that did not make it, uploaded,
//! and described for the model's row.

use std::{collections::BTreeMap, ffi::OsStr, path::Path};

use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::{
    context::Worker,
    fault::Fault,
    files::{plain_file, read_json},
};
use crate::{
    child,
    db::queue::{Claimed, NewModel},
    domain::{
        checkpoint::{ManifestEntry, Metrics},
        object::MODEL,
        progress::Verified,
        report::Report,
    },
    objects::{At, ObjectError},
    sandbox::{Grants, Home, WORK},
};

const FOLDER: &str = "bundle";
const REPORT: &str = "report.json";
const LABELS: &str = "labels.json";
const METRICS: &str = "metrics.json";
/// Largest JSON file in bytes: a confusion matrix of 10,000 classes takes a few hundred MiB.
const JSON_BYTES: u64 = 512 << 20;
/// Largest header of `model.safetensors` in bytes.
const HEADER_BYTES: u64 = 16 << 20;
/// Most files of a bundle.
const FILES: usize = 64;

/// The part of `metrics.json` that is needed here.
#[derive(Deserialize)]
struct BestMetrics {
    best: Metrics,
}

/// A tensor in a safetensors header.
#[derive(Deserialize)]
struct HeaderTensor {
    shape: Vec<u64>,
}

/// Verifies the bundle in a finished job folder, stores it, and describes its model.
///
/// # Errors
/// A bundle that does not reproduce its golden logits; a full disk.
pub(super) async fn store(
    worker: &Worker,
    claimed: &Claimed,
    home: &Home,
) -> Result<NewModel, Fault> {
    verify(worker, home).await?;
    let folder = home.work().join(FOLDER);
    let report: Report = read_json(&home.work(), REPORT, JSON_BYTES).await?;
    let labels: Vec<String> = read_json(&folder, LABELS, JSON_BYTES).await?;
    let metrics: BestMetrics = read_json(&folder, METRICS, JSON_BYTES).await?;
    let parameters = count_parameters(&plain_file(&folder, MODEL)?).await?;
    let objects = format!("bundles/{}/{}/", claimed.job.0.simple(), claimed.token);
    let mut entries = tokio::fs::read_dir(&folder).await.at(&folder)?;
    let mut files = BTreeMap::new();
    while let Some(entry) = entries.next_entry().await.at(&folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stored = worker
            .objects
            .put_file(&format!("{objects}{name}"), &plain_file(&folder, &name)?)
            .await?;
        files.insert(name, ManifestEntry::from(stored));
        if files.len() > FILES {
            return Err(Fault::result(format!(
                "the bundle has more than {FILES} files"
            )));
        }
    }
    let weights = files.get(MODEL);
    let weights_sha256 = weights.map_or_else(String::new, |entry| entry.sha256.clone());
    Ok(NewModel {
        labels,
        metrics: metrics.best,
        report,
        objects,
        parameters,
        weights_sha256,
        files,
        results: None,
    })
}

/// Has a fresh process load the bundle from its files and compare its outputs with those of the
/// trained network.
async fn verify(worker: &Worker, home: &Home) -> Result<(), Fault> {
    let bundle = Path::new(WORK).join(FOLDER);
    let arguments = [OsStr::new("verify"), bundle.as_os_str()];
    let launch = worker.sandbox.launch(home, Grants::READ);
    match child::answer_of(launch, &arguments, worker.args.timing.stall).await {
        Ok(Verified::Same { .. }) => Ok(()),
        Ok(Verified::Failed(failure)) => Err(Fault::Failed(failure)),
        Err(error) => Err(Fault::Unanswered("verification of the result", error)),
    }
}

async fn read_start(path: &Path, bytes: u64) -> Result<Vec<u8>, ObjectError> {
    let file = tokio::fs::File::open(path).await.at(path)?;
    let mut start = Vec::new();
    file.take(bytes).read_to_end(&mut start).await.at(path)?;
    Ok(start)
}

/// Counts the trainable parameters in a safetensors file (8 bytes of header length, JSON header,
/// data): all but BatchNorm's statistics.
async fn count_parameters(path: &Path) -> Result<u64, Fault> {
    let damaged = |what: &str| Fault::result(format!("invalid `{MODEL}` in the result: {what}"));
    let length = read_start(path, 8).await?;
    let length = u64::from_le_bytes(length.try_into().map_err(|_| damaged("it is too short"))?);
    if length > HEADER_BYTES {
        return Err(damaged("its header is too long"));
    }
    let start = read_start(path, 8 + length).await?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&start[8..]).map_err(|error| damaged(&error.to_string()))?;
    header.remove("__metadata__");
    let is_statistic = |name: &str| {
        ["running_mean", "running_var", "num_batches_tracked"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let mut parameters = 0;
    for (_, tensor) in header.into_iter().filter(|(name, _)| !is_statistic(name)) {
        let tensor: HeaderTensor =
            serde_json::from_value(tensor).map_err(|error| damaged(&error.to_string()))?;
        parameters += tensor.shape.iter().product::<u64>();
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parameters_are_counted_without_statistics() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = br#"{"__metadata__":{"format":"pt"},"fc.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
            "bn.running_mean":{"dtype":"F32","shape":[7],"data_offsets":[24,52]},"x":{"dtype":"F32","shape":[],"data_offsets":[52,56]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 56]].concat();
        std::fs::write(file.path(), bytes).unwrap();
        assert_eq!(count_parameters(file.path()).await.unwrap(), 7);
        std::fs::write(file.path(), [255; 9]).unwrap();
        assert!(count_parameters(file.path()).await.is_err());
    }
}
