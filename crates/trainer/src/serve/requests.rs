//! The inference process: `Predict` lines in, `Predicted` lines out. Models stay loaded as long as
//! there is memory for them, and requests that wait for the same model run together: a request
//! never waits for others to come, and those that come while some run are the next to run.

use std::{
    collections::BTreeMap,
    fs,
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

/// Images that run before the next answer is given, give or take those of one request.
const IMAGES: usize = 64;
/// Memory that a loaded model takes, relative to its files: its weights, and those of convolutions
/// once more in an order of their own.
const SIZE_FACTOR: u64 = 2;
/// Requests that are read ahead; further ones wait in the pipe.
const READ_AHEAD: usize = 256;

/// Answers lines of `input` on `out`, with models on `device`, until `input` ends. Loaded models
/// take about `max_bytes` at most, but for one that is larger.
///
/// # Errors
/// `Io` when an answer cannot be written, `Plan` for a line that is not a `Predict`.
pub fn serve(
    input: impl BufRead + Send + 'static,
    mut out: impl Write,
    device: Device,
    max_bytes: u64,
) -> Result<(), TrainError> {
    let (sender, receiver) = mpsc::sync_channel(READ_AHEAD);
    let reader = std::thread::spawn(move || read_requests(input, &sender));
    let mut loaded = Loaded {
        max_bytes,
        entries: Vec::new(),
    };
    while let Ok(first) = receiver.recv() {
        let mut by_bundle: BTreeMap<PathBuf, Vec<Predict>> = BTreeMap::new();
        let mut images = 0;
        for request in std::iter::once(first).chain(receiver.try_iter()) {
            images += request.images.len();
            let of_bundle = by_bundle.entry(request.bundle.clone());
            of_bundle.or_default().push(request);
            if images >= IMAGES {
                break;
            }
        }
        for (folder, requests) in by_bundle {
            for answer in answer(&mut loaded, device, &folder, &requests) {
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
fn answer(
    loaded: &mut Loaded<Bundle>,
    device: Device,
    folder: &Path,
    requests: &[Predict],
) -> Vec<Predicted> {
    let images: Vec<PathBuf> = requests
        .iter()
        .flat_map(|request| request.images.iter().cloned())
        .collect();
    // A bundle is only read here, so that an error leaves nothing half done.
    let predicted = guarded(|| {
        let bundle = loaded.bundle(folder, || Bundle::load(folder, device))?;
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
struct Loaded<B> {
    max_bytes: u64,
    /// The one used last at the end.
    entries: Vec<Entry<B>>,
}

struct Entry<B> {
    folder: PathBuf,
    bytes: u64,
    bundle: B,
}

impl<B> Loaded<B> {
    /// The bundle of `folder`, loaded if need be; the least recently used ones make room for it.
    fn bundle(
        &mut self,
        folder: &Path,
        load: impl FnOnce() -> Result<B, TrainError>,
    ) -> Result<&B, TrainError> {
        let place = self.entries.iter().position(|known| known.folder == folder);
        let entry = match place {
            Some(place) => self.entries.remove(place),
            None => {
                let bytes = SIZE_FACTOR * size_of(folder)?;
                while !self.entries.is_empty() && self.bytes() + bytes > self.max_bytes {
                    self.entries.remove(0);
                }
                Entry {
                    bundle: load()?,
                    folder: folder.to_owned(),
                    bytes,
                }
            }
        };
        self.entries.push(entry);
        Ok(&self.entries[self.entries.len() - 1].bundle)
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

/// Bytes of a bundle's files.
fn size_of(folder: &Path) -> Result<u64, TrainError> {
    let failed = || TrainError::io(format!("cannot read {}", folder.display()));
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        bytes += entry.metadata().map_err(failed())?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_stay_loaded_while_there_is_memory_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name);
        for (name, size) in [("small", 10), ("other", 10), ("large", 1_000)] {
            fs::create_dir(folder(name)).unwrap();
            fs::write(folder(name).join("model"), vec![0; size]).unwrap();
        }
        let mut loaded = Loaded {
            max_bytes: 2 * SIZE_FACTOR * 10,
            entries: Vec::new(),
        };
        let mut use_one = |name: &str| {
            let mut is_new = false;
            let load = || {
                is_new = true;
                Ok(())
            };
            loaded.bundle(&folder(name), load).unwrap();
            (is_new, loaded.entries.len())
        };
        assert_eq!(use_one("small"), (true, 1));
        assert_eq!(use_one("other"), (true, 2), "at the limit");
        assert_eq!(use_one("small"), (false, 2));
        assert_eq!(use_one("large"), (true, 1), "one beyond the limit, alone");
        assert_eq!(use_one("small"), (true, 1));
        assert_eq!(use_one("other"), (true, 2));
        fs::write(folder("large").join("model"), vec![0; 11]).unwrap();
        assert_eq!(use_one("large"), (true, 1), "one byte too many for two");
    }
}
