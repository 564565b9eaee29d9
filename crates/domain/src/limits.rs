//! The bounds of what a request may ask for. What a machine can bear is in `config`; these are the same everywhere.

/// Epochs of one job.
pub const EPOCHS: std::ops::RangeInclusive<u64> = 1..=10_000;
/// Samples of one optimizer step.
pub const BATCH_SIZE: std::ops::RangeInclusive<u64> = 1..=4_096;
/// Learning rates, of head and backbone.
pub const LEARNING_RATE: std::ops::RangeInclusive<f64> = 1e-9..=100.0;
/// Batches of one optimizer step.
pub const ACCUMULATE: std::ops::RangeInclusive<u64> = 1..=1_024;
/// A class's weight in the loss.
pub const CLASS_WEIGHT: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// Views of each training sample under a frozen backbone; each costs a pass through it and a copy of the features.
pub const VIEWS: std::ops::RangeInclusive<u64> = 1..=16;
/// Shares of an image's area that a random crop takes.
pub const CROP_SCALE: std::ops::RangeInclusive<f64> = 0.01..=1.0;
/// Width by height of a random crop.
pub const CROP_ASPECT_RATIO: std::ops::RangeInclusive<f64> = 0.1..=10.0;
/// How far from 1 the factors of brightness, contrast and saturation are drawn.
pub const COLOR_FACTOR: std::ops::RangeInclusive<f64> = 0.0..=1.0;
/// How far a hue turns, in turns of the color wheel: half of one is as far as it goes.
pub const HUE: std::ops::RangeInclusive<f64> = 0.0..=0.5;
/// Operations of RandAugment on one image.
pub const RAND_AUGMENT_OPS: std::ops::RangeInclusive<u64> = 1..=8;
/// Strength of RandAugment, as torchvision's 31 bins.
pub const RAND_AUGMENT_MAGNITUDE: std::ops::RangeInclusive<u64> = 0..=30;
/// Beta's parameter of `mixup` and `cutmix`.
pub const MIX_ALPHA: std::ops::RangeInclusive<f64> = 0.0..=10.0;
/// Characters of a stage's name.
pub const STAGE_CHARACTERS: usize = 255;
/// Weight decay.
pub const WEIGHT_DECAY: std::ops::RangeInclusive<f64> = 0.0..=10.0;
/// Seconds between two checkpoints.
pub const CHECKPOINT_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Seconds a job may run.
pub const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=30 * 86_400;
/// Steps from one evaluation to the next.
pub const EVALUATION_STEPS: std::ops::RangeInclusive<u64> = 1..=1_000_000;
/// Evaluations without improvement before training ends.
pub const PATIENCE: std::ops::RangeInclusive<u64> = 1..=10_000;
/// Characters of a job's suffix, the part of the model's name that the user chooses.
pub const SUFFIX_CHARACTERS: usize = 64;
/// Entries of `metadata`, as OpenAI's.
pub const METADATA_ENTRIES: usize = 16;
/// Characters of a metadata key, as OpenAI's.
pub const METADATA_KEY_CHARACTERS: usize = 64;
/// Characters of a metadata value, as OpenAI's.
pub const METADATA_VALUE_CHARACTERS: usize = 512;
/// Sides of a network's square input, in pixels.
pub const INPUT_SIZE: std::ops::RangeInclusive<u32> = 32..=1_024;
/// Channels of a network's input: gray, colors, colors and alpha.
pub const CHANNELS: [u32; 3] = [1, 3, 4];
/// Share of the short side that is kept of an image.
pub const CROP_FRACTION: std::ops::RangeInclusive<f64> = 0.1..=1.0;
/// Mean of a channel, on pixels scaled to 0..1.
pub const MEAN: std::ops::RangeInclusive<f64> = -10.0..=10.0;
/// Deviation of a channel, on pixels scaled to 0..1.
pub const STD: std::ops::RangeInclusive<f64> = 1e-3..=100.0;
/// Characters of a base model's id.
pub const MODEL_ID_CHARACTERS: usize = 64;
/// Layers of a head, before its last linear one.
pub const HEAD_LAYERS: usize = 16;
/// Width of a head's linear layer.
pub const HEAD_WIDTH: std::ops::RangeInclusive<u64> = 1..=16_384;
/// Entries of a freeze schedule.
pub const FREEZE_PHASES: usize = 64;
/// Names in one `freeze` list.
pub const FREEZE_NAMES: usize = 4_096;
/// Characters of a regular expression in `freeze` and `adapter`.
pub const REGEX_CHARACTERS: usize = 1_024;
/// Rank of an adapter; a layer's smaller side is a limit too.
pub const ADAPTER_RANK: std::ops::RangeInclusive<u64> = 1..=256;
/// An adapter counts this over its rank.
pub const ADAPTER_ALPHA: std::ops::RangeInclusive<f64> = 1e-3..=4_096.0;
/// Names in one adapter's `targets`.
pub const ADAPTER_TARGETS: usize = 1_024;
/// Characters of a class name.
pub const LABEL_CHARACTERS: usize = 255;
/// Classes of one data set.
pub const CLASSES: usize = 10_000;
/// Classes of a report that has a confusion matrix.
pub const CONFUSION_CLASSES: usize = 1_000;
/// Labels of one sample.
pub const LABELS: usize = 1_000;
/// A number to be predicted.
pub const VALUE: std::ops::RangeInclusive<f64> = -1e12..=1e12;
/// Characters of a file's name.
pub const FILENAME_CHARACTERS: usize = 255;
/// Characters of an `Idempotency-Key`, as Stripe's.
pub const IDEMPOTENCY_KEY_CHARACTERS: usize = 255;
/// Samples in a job's sample report: those that it was measured on first, then those that it trained on.
pub const SAMPLE_REPORT_ROWS: usize = 200_000;
/// Training samples that a report's `transferability` is measured on.
pub const TRANSFERABILITY_SAMPLES: usize = 2_000;
