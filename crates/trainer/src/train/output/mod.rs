//! Files that outlive a run: checkpoints and the bundle.

/// Folders that appear whole or not at all.
mod folder;

/// Checkpoint folders.
pub mod checkpoint;

/// When and what to save.
pub mod saver;

/// Contents and file names of a bundle.
pub mod bundle;

/// Writing a bundle.
pub mod export;

/// Its README.
mod model_card;
