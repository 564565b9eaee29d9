//! Objects of the store, as rows describe them. No I/O.

use std::{collections::BTreeMap, fmt::Display};

use super::checkpoint::ManifestEntry;

/// The weights of a base model, a bundle or a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The files of a checkpoint with their hashes.
pub const MANIFEST: &str = "manifest.json";

/// An object: where it is, and which bytes it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The row that names it, in words for its user: "file `file-…`".
    pub owner: String,
    pub key: String,
    /// `None` where the row has the hash only.
    pub bytes: Option<u64>,
    /// Lower-case hex.
    pub sha256: String,
}

impl Descriptor {
    /// The object `name` below `prefix`, which ends in `/`.
    pub fn new(owner: impl Display, prefix: &str, name: &str, entry: &ManifestEntry) -> Self {
        Self {
            bytes: Some(entry.bytes),
            ..Self::of_hash(owner, prefix, name, &entry.sha256)
        }
    }

    /// As `new`, where the row has the hash only.
    pub fn of_hash(owner: impl Display, prefix: &str, name: &str, sha256: &str) -> Self {
        Self {
            owner: owner.to_string(),
            key: format!("{prefix}{name}"),
            bytes: None,
            sha256: sha256.to_owned(),
        }
    }

    /// The object `name` beside this one.
    pub fn beside(&self, name: &str, entry: &ManifestEntry) -> Self {
        Self::new(&self.owner, self.prefix(), name, entry)
    }

    /// The key up to the name: empty, or with a `/` at its end.
    pub fn prefix(&self) -> &str {
        &self.key[..self.key.len() - self.name().len()]
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }
}

/// The objects of a model that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub weights: Descriptor,
    /// All files by name. `None` for a base model, which has its weights only, and for models that
    /// version 0.1.0 made.
    pub files: Option<BTreeMap<String, ManifestEntry>>,
}

impl Bundle {
    /// The files that the row describes: all, or the weights.
    pub fn described(&self) -> Vec<Descriptor> {
        match &self.files {
            Some(files) => {
                let files = files.iter();
                files
                    .map(|(name, entry)| self.weights.beside(name, entry))
                    .collect()
            }
            None => vec![self.weights.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_beside_each_other() {
        let object = Descriptor::of_hash("model `m`", "bundles/a/1/", MODEL, "00");
        assert_eq!((object.prefix(), object.name()), ("bundles/a/1/", MODEL));
        let entry = ManifestEntry {
            bytes: 3,
            sha256: "11".to_owned(),
        };
        let labels = object.beside("labels.json", &entry);
        assert_eq!(labels.key, "bundles/a/1/labels.json");
        assert_eq!(
            (labels.bytes, labels.owner.as_str()),
            (Some(3), "model `m`")
        );
        let files = [("labels.json".to_owned(), entry)].into();
        let bundle = Bundle {
            weights: object,
            files: Some(files),
        };
        assert_eq!(bundle.described(), [labels]);
    }
}
