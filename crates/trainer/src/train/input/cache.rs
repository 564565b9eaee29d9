//! The cache of features and pixels: a folder whose files are named by everything that they depend
//! on.

use std::fs;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    domain::{augmentation::Augmentation, input::Input, work::TrainPlan},
    process::error::TrainError,
};

/// The cache key: everything an entry depends on; its hash is the entry's name. The device and the
/// size of batches are part of it because they decide the last bits, and a resumed run must find
/// the bits it began with. The number of threads decides nothing.
#[derive(Debug, Serialize)]
pub struct CacheKey<'a> {
    pub what: &'a str,
    /// Version of the code that makes the entry; raised when its results change.
    pub version: u32,
    pub pack_sha256: &'a str,
    pub preprocessing: &'a Input,
    /// Weights, architecture, cut, device kind and samples of a batch, where a backbone ran.
    pub backbone: Option<(&'a str, &'a str, &'a str, &'a str, usize)>,
    /// The samples, in the order of the entry, where it is not of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<&'a [usize]>,
    /// Set for augmented training samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<View<'a>>,
}

/// Everything an augmented view of the training samples depends on.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    pub augmentation: Option<&'a Augmentation>,
    /// Version of the augmentation code.
    pub version: u32,
    pub seed: u64,
    pub number: u32,
    /// True when the pack's validation split trains too.
    pub validates_elsewhere: bool,
}

impl CacheKey<'_> {
    /// Lower-case hex.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).expect("a key is plain data: this is a bug");
        hex::encode(Sha256::digest(text))
    }
}

pub fn make_cache(plan: &TrainPlan) -> Result<(), TrainError> {
    let failed = format!("cannot create the cache folder {}", plan.cache.display());
    fs::create_dir_all(&plan.cache).map_err(TrainError::io(failed))
}
