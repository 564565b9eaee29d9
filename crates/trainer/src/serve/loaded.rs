//! The models that stay loaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::process::error::TrainError;

/// Memory that a loaded model takes, relative to its files: its weights, and those of convolutions
/// once more in an order of their own.
const SIZE_FACTOR: u64 = 2;

/// The models used last, which stay on their device.
pub(super) struct Loaded<B> {
    max_bytes: u64,
    /// The one used last at the end.
    entries: Vec<Entry<B>>,
}

struct Entry<B> {
    folder: PathBuf,
    bytes: u64,
    bundle: B,
}

impl<B: Clone> Loaded<B> {
    /// Models take `max_bytes` at most, but for one that is larger.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            entries: Vec::new(),
        }
    }

    /// The bundle of `folder`, loaded if need be; the least recently used ones make room for it.
    pub(super) fn bundle(
        &mut self,
        folder: &Path,
        load: impl FnOnce() -> Result<B, TrainError>,
    ) -> Result<B, TrainError> {
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
        let bundle = entry.bundle.clone();
        self.entries.push(entry);
        Ok(bundle)
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
        let mut loaded = Loaded::new(2 * SIZE_FACTOR * 10);
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
