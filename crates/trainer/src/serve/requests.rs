//! The inference process: `Predict` lines in, `Predicted` lines out. Models stay loaded while they
//! are among the last used, and requests that wait for the same model run together.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    sync::mpsc,
};

use tch::Device;

use super::bundle::Bundle;
use crate::{
    domain::work::{Predict, Predicted, Predictions},
    process::{error::TrainError, json, memory::guarded},
};

/// Models that stay loaded.
const LOADED_MODELS: usize = 4;
/// Requests that are read ahead; further ones wait in the pipe.
const READ_AHEAD: usize = 256;

/// Answers lines of `input` on `out`, with models on `device`, until `input` ends.
///
/// # Errors
/// `Io` when an answer cannot be written, `Plan` for a line that is not a `Predict`.
pub fn serve(
    input: impl BufRead + Send + 'static,
    mut out: impl Write,
    device: Device,
) -> Result<(), TrainError> {
    let (sender, receiver) = mpsc::sync_channel(READ_AHEAD);
    let reader = std::thread::spawn(move || read_requests(input, &sender));
    let mut loaded = Loaded {
        device,
        bundles: Vec::new(),
    };
    while let Ok(first) = receiver.recv() {
        let mut by_bundle: BTreeMap<PathBuf, Vec<Predict>> = BTreeMap::new();
        for request in std::iter::once(first).chain(receiver.try_iter()) {
            let of_bundle = by_bundle.entry(request.bundle.clone());
            of_bundle.or_default().push(request);
        }
        for (folder, requests) in by_bundle {
            for answer in answer(&mut loaded, &folder, &requests) {
                json::write_line(&mut out, &answer)
                    .and_then(|()| out.flush())
                    .map_err(TrainError::io("cannot write an answer to standard output"))?;
            }
        }
    }
    reader
        .join()
        .map_err(|payload| TrainError::from_panic(&*payload))?
}

fn read_requests(
    input: impl BufRead,
    sender: &mpsc::SyncSender<Predict>,
) -> Result<(), TrainError> {
    for line in input.lines() {
        let line = line.map_err(TrainError::io("cannot read a request from standard input"))?;
        let request = serde_json::from_str(&line).map_err(|error| {
            TrainError::Plan(format!("standard input has an invalid prediction request: {error}; give one JSON object a line"))
        })?;
        if sender.send(request).is_err() {
            break;
        }
    }
    Ok(())
}

/// Runs requests for one bundle together. What goes wrong is each request's answer.
fn answer(loaded: &mut Loaded, folder: &Path, requests: &[Predict]) -> Vec<Predicted> {
    let images: Vec<PathBuf> = requests
        .iter()
        .flat_map(|request| request.images.iter().cloned())
        .collect();
    // A bundle is only read here, so that an error leaves nothing half done.
    let predicted = guarded(|| {
        let bundle = loaded.bundle(folder)?;
        let outcomes = bundle.predict(&images)?.into_iter();
        Ok((bundle.labels().to_vec(), outcomes))
    });
    let mut predicted = predicted.map_err(|error| error.failure());
    let take = |request: &Predict| Predicted {
        id: request.id,
        outcome: match &mut predicted {
            Ok((labels, outcomes)) => Ok(Predictions {
                labels: labels.clone(),
                images: outcomes.by_ref().take(request.images.len()).collect(),
            }),
            Err(failure) => Err(failure.clone()),
        },
    };
    requests.iter().map(take).collect()
}

/// The models used last, which stay on their device.
struct Loaded {
    device: Device,
    bundles: Vec<(PathBuf, Bundle)>,
}

impl Loaded {
    /// The bundle of `folder`, loaded if need be; the least recently used one makes room.
    fn bundle(&mut self, folder: &Path) -> Result<&Bundle, TrainError> {
        let entry = match self.bundles.iter().position(|(known, _)| known == folder) {
            Some(place) => self.bundles.remove(place),
            None => {
                if self.bundles.len() >= LOADED_MODELS {
                    self.bundles.remove(0);
                }
                (folder.to_owned(), Bundle::load(folder, self.device)?)
            }
        };
        self.bundles.push(entry);
        Ok(&self.bundles[self.bundles.len() - 1].1)
    }
}
