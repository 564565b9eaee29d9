//! Bounds of what a request may ask for, and sizes that several packages agree on. Limits that
//! depend on the machine are in `config`; these are the same everywhere.

use std::ops::{Bound, RangeInclusive};

/// Problems that an answer lists; it counts the others.
pub const PROBLEMS: usize = 100;
/// Characters of a user's text that a message repeats.
pub const QUOTED_CHARACTERS: usize = 80;
/// Epochs of one job.
pub const EPOCHS: RangeInclusive<u64> = 1..=10_000;
/// Samples that run through the network together.
pub const BATCH_SIZE: RangeInclusive<u64> = 1..=4_096;
/// Learning rates of head and backbone.
pub const LEARNING_RATE: RangeInclusive<f64> = 1e-9..=100.0;
/// Factor on both learning rates.
pub const LEARNING_RATE_MULTIPLIER: RangeInclusive<f64> = 1e-4..=1e4;
/// Ratio of a stage's learning rate to the next stage's.
pub const LAYER_DECAY: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Included(1.0));
/// Batches of one optimizer step.
pub const ACCUMULATE: RangeInclusive<u64> = 1..=1_024;
/// Shards of a batch.
pub const SHARDS: RangeInclusive<u64> = 1..=64;
/// Global norm that gradients are clipped to.
pub const GRADIENT_CLIP: RangeInclusive<f64> = 1e-6..=1e6;
/// Share of a running average that a step keeps.
pub const EMA_DECAY: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Excluded(1.0));
/// Weight of a class in the loss.
pub const CLASS_WEIGHT: RangeInclusive<f64> = 1e-6..=1e6;
/// Augmented views of each training sample under a frozen backbone; each costs a pass through the
/// backbone and a copy of the features.
pub const VIEWS: RangeInclusive<u64> = 1..=16;
/// Share of an image's area that a random crop keeps.
pub const CROP_SCALE: RangeInclusive<f64> = 0.01..=1.0;
/// Width divided by height of a random crop.
pub const CROP_ASPECT_RATIO: RangeInclusive<f64> = 0.1..=10.0;
/// Largest distance from 1 of the factors on brightness, contrast and saturation.
pub const COLOR_FACTOR: RangeInclusive<f64> = 0.0..=1.0;
/// Largest shift of the hue, in turns of the color wheel; half a turn is the farthest.
pub const HUE: RangeInclusive<f64> = 0.0..=0.5;
/// Operations of RandAugment on one image.
pub const RAND_AUGMENT_OPS: RangeInclusive<u64> = 1..=8;
/// Strength of RandAugment, as torchvision's 31 bins.
pub const RAND_AUGMENT_MAGNITUDE: RangeInclusive<u64> = 0..=30;
/// Beta's parameter of `mixup` and `cutmix`.
pub const MIX_ALPHA: RangeInclusive<f64> = 0.0..=10.0;
/// Weight decay.
pub const WEIGHT_DECAY: RangeInclusive<f64> = 0.0..=10.0;
/// Seconds between two checkpoints.
pub const CHECKPOINT_SECONDS: RangeInclusive<u64> = 1..=86_400;
/// Steps from one evaluation to the next.
pub const EVALUATION_STEPS: RangeInclusive<u64> = 1..=1_000_000;
/// Evaluations without improvement before training ends.
pub const PATIENCE: RangeInclusive<u64> = 1..=10_000;
/// Least difference that counts as an improvement, in the metric's unit.
pub const MIN_DELTA: RangeInclusive<f64> = 0.0..=1e6;

/// Priority of a job, first to last.
pub const PRIORITY: RangeInclusive<u64> = 0..=4;
/// Seed of a job: Postgres' bigint ends where `i64` does.
pub const SEED: RangeInclusive<u64> = 0..=i64::MAX as u64;
/// Seconds that all attempts of a job may run together.
pub const TIMEOUT_SECONDS: RangeInclusive<u64> = 1..=30 * 86_400;
/// Characters of a model's name, base or fine-tuned.
pub const MODEL_NAME_CHARACTERS: usize = 255;
/// Characters of a job's suffix, the part of the model's name that the user chooses.
pub const SUFFIX_CHARACTERS: usize = 64;
/// Entries of `metadata`, as OpenAI's.
pub const METADATA_ENTRIES: usize = 16;
/// Characters of a metadata key, as OpenAI's.
pub const METADATA_KEY_CHARACTERS: usize = 64;
/// Characters of a metadata value, as OpenAI's.
pub const METADATA_VALUE_CHARACTERS: usize = 512;
/// Characters of the name of a tenant or of an API key.
pub const KEY_NAME_CHARACTERS: usize = 64;
/// Characters of an `Idempotency-Key`, as Stripe's.
pub const IDEMPOTENCY_KEY_CHARACTERS: usize = 255;

/// Side of a network's square input, in pixels.
pub const INPUT_SIZE: RangeInclusive<u32> = 32..=1_024;
/// Channels of a network's input: gray, color, color with alpha.
pub const CHANNELS: [u32; 3] = [1, 3, 4];
/// Share of the short side of an image that the crop keeps.
pub const CROP_FRACTION: RangeInclusive<f64> = 0.1..=1.0;
/// Mean of a channel, on pixels scaled to 0..1.
pub const MEAN: RangeInclusive<f64> = -10.0..=10.0;
/// Standard deviation of a channel, on pixels scaled to 0..1.
pub const STD: RangeInclusive<f64> = 1e-3..=100.0;
/// Characters of a base model's id.
pub const MODEL_ID_CHARACTERS: usize = 64;
/// Characters of an architecture, a license, and the texts of a source task.
pub const PHRASE_CHARACTERS: usize = 128;

/// Entries of a list of models, networks or licenses.
pub const CANDIDATES: usize = 1_000;
/// Parameters of a model.
pub const MODEL_PARAMETERS: RangeInclusive<u64> = 1..=1_000_000_000_000;
/// Multiplications of a model for one sample.
pub const MODEL_MACS: RangeInclusive<u64> = 1..=1_000_000_000_000_000;

/// Layers of a head, before its last linear one.
pub const HEAD_LAYERS: usize = 16;
/// Width of a head's linear layer.
pub const HEAD_WIDTH: RangeInclusive<u64> = 1..=16_384;
/// Numbers in a head before its last layer: 4 GiB, three times that with an optimizer's moments.
pub const HEAD_PARAMETERS: u64 = 1 << 30;
/// Characters of a stage's name.
pub const STAGE_CHARACTERS: usize = 255;
/// Stages that a freeze policy counts; the model's own number is a limit too.
pub const FREEZE_STAGES: RangeInclusive<u64> = 1..=1_000;
/// Entries of a freeze schedule.
pub const FREEZE_PHASES: usize = 64;
/// Names in one `freeze` list.
pub const FREEZE_NAMES: usize = 4_096;
/// Characters of a regular expression in `freeze` and `adapter`.
pub const REGEX_CHARACTERS: usize = 1_024;
/// Rank of an adapter; a layer's smaller side is a limit too.
pub const ADAPTER_RANK: RangeInclusive<u64> = 1..=256;
/// Numerator of the factor `alpha / rank` on an adapter.
pub const ADAPTER_ALPHA: RangeInclusive<f64> = 1e-3..=4_096.0;
/// Names in one adapter's `targets`.
pub const ADAPTER_TARGETS: usize = 1_024;

/// Characters of a class name.
pub const LABEL_CHARACTERS: usize = 255;
/// Classes of one data set.
pub const CLASSES: usize = 10_000;
/// Labels of one sample.
pub const LABELS: usize = 1_000;
/// A target value of a regression.
pub const VALUE: RangeInclusive<f64> = -1e12..=1e12;
/// Seconds after its creation at which a file may expire, as OpenAI's.
pub const FILE_LIFETIME_SECONDS: RangeInclusive<u64> = 3_600..=2_592_000;
/// Characters of a media type.
pub const MEDIA_TYPE_CHARACTERS: usize = 255;
/// Characters of a file's name.
pub const FILENAME_CHARACTERS: usize = 255;

/// Default limit on width times height of one image.
pub const IMAGE_PIXELS: u64 = 50_000_000;

/// Largest number of classes for which a report has a confusion matrix.
pub const CONFUSION_CLASSES: usize = 1_000;
/// Samples in a job's sample report: those that it was measured on first, then those that it
/// trained on.
pub const SAMPLE_REPORT_ROWS: usize = 200_000;
/// Training samples that a report's `transferability` is measured on.
pub const TRANSFERABILITY_SAMPLES: usize = 2_000;
/// Samples of a split that a probe is fitted to, at most.
pub const PROBE_SAMPLES: usize = 20_000;
/// Samples that run through the network together outside training.
pub const EVALUATION_BATCH: usize = 32;
/// Characters of a URL.
pub const URL_CHARACTERS: usize = 2_048;
