//! The samples of a run, and what an epoch reads of them: features or pixels, made once and cached.

/// Packs, labels and splits.
pub mod samples;

/// The batches of an epoch.
pub mod batches;

/// The inputs of every preparation.
pub mod preparation;

/// Progress of a long preparation.
pub mod meter;

/// Names of cache entries.
pub mod cache;

/// Features of a frozen backbone.
pub mod feature_cache;

/// Decoded images.
pub mod pixel_cache;

/// Augmented training images, and their features.
pub mod augmented_views;

/// Mixup and CutMix.
pub mod mix;

/// Features or pixels, as training and evaluation read them.
pub mod inputs;
