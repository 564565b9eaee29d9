//! Recipes: every training choice, resolved. A job and each of its checkpoints store one.
//!
//! No value is left to a default inside the trainer: two trainers with the same recipe, weights and
//! data compute the same.

mod choices;
#[cfg(test)]
mod version_tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::choices::{
    BatchNorm, EvaluateEvery, HeadInit, HeadLayer, Loss, Metric, Optimizer, Precision, Schedule,
    Task, is_linear_head,
};
use crate::augmentation::Augmentation;

/// Version of the meaning of a recipe. Raise it with every change that an older trainer would get
/// wrong, new fields included: workers do not claim jobs of later versions. Recipes of earlier
/// versions stay readable, as jobs and models keep theirs.
pub const SPEC_VERSION: u32 = 4;

/// The cut that removes the classifier only.
pub const PRE_LOGITS: &str = "pre_logits";

/// Every choice of one training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recipe {
    pub task: Task,
    /// The stage after which the base model's tail is removed; `pre_logits` removes the classifier
    /// only.
    pub cut: String,
    /// Names of the backbone parameters that train, in forward order. All others keep their bits.
    pub trainable: Vec<String>,
    /// Changes of `trainable` in later epochs, in order; empty without a freeze schedule.
    pub later_phases: Vec<FreezePhase>,
    /// Adapters on layers of the backbone. Their matrices train; the backbone's own weights do not.
    pub adapter: Option<Adapter>,
    pub head: Head,
    /// Labels and head of the fine-tuned model or checkpoint that the job starts from; `null` when
    /// it starts from a base model.
    pub inherited: Option<Inherited>,
    pub n_epochs: u32,
    /// Samples that run through the network together.
    pub batch_size: u32,
    /// Batches of one optimizer step; their gradients add up to that of one large batch.
    pub accumulate: u32,
    /// Parts of a batch that run side by side on a CPU while some of the backbone trains; see
    /// `shards_of`.
    #[serde(default = "one")]
    pub shards: u32,
    pub optimizer: Optimizer,
    /// Peak learning rate of the head.
    pub learning_rate: f64,
    /// Peak learning rate of the backbone's trainable part.
    pub backbone_learning_rate: f64,
    /// Ratio of a stage's learning rate to the next stage's; the last stage has the full rate.
    pub layer_decay: f64,
    /// Applies to trained tensors of two or more dimensions (AdamW, decoupled) or to all (SGD, as
    /// L2); `train::step::optimizer` has PyTorch's rules.
    pub weight_decay: f64,
    pub schedule: Schedule,
    /// Share of all steps in which the rate rises linearly from 0.
    pub warmup_fraction: f64,
    pub loss: Loss,
    /// Probability taken from the true class and spread over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// Random changes of training images; `null` shows them as the evaluation does.
    pub augmentation: Option<Augmentation>,
    /// Augmented views of each training sample whose features are computed in advance while only
    /// the head trains from the start; epochs cycle through them. 0 uses unaltered samples.
    pub augmented_views: u32,
    /// Beta's parameter for adding samples up in pairs: features when the whole backbone is frozen,
    /// otherwise images (Zhang et al. 2018). 0 turns it off. With `cutmix` above 0 as well, each
    /// step draws one of the two.
    pub mixup: f64,
    /// Beta's parameter for pasting a part of one image into another while some of the backbone
    /// trains (Yun et al. 2019). 0 turns it off.
    pub cutmix: f64,
    /// Factor on a sample's loss, for each class in label order; with several labels a sample, the
    /// factor on the loss of samples that have the label. `null` weighs all alike.
    pub class_weights: Option<Vec<f64>>,
    /// Largest global norm of the gradient over everything that trains; `null` sets no bound.
    pub gradient_clip: Option<f64>,
    /// Share of the running average of the weights that a step keeps; the averages are evaluated
    /// and exported. `null` keeps no average.
    pub ema_decay: Option<f64>,
    pub batch_norm: BatchNorm,
    pub precision: Precision,
    /// The number format in which a wholly frozen backbone computes features.
    #[serde(default)]
    pub features_precision: Precision,
    pub early_stopping: EarlyStopping,
    /// The end of training is evaluated in any case.
    pub evaluate_every: EvaluateEvery,
    pub checkpoint_every_seconds: u32,
    pub seed: u64,
}

impl Recipe {
    /// The plainest training of a task: one epoch of a zero head on a frozen backbone. Resolving a
    /// request, tests and examples start from it and change what they are about.
    pub fn base(task: Task) -> Self {
        Self {
            task,
            cut: PRE_LOGITS.to_owned(),
            trainable: Vec::new(),
            later_phases: Vec::new(),
            adapter: None,
            head: Head {
                layers: Vec::new(),
                init: HeadInit::Zero,
            },
            inherited: None,
            n_epochs: 1,
            batch_size: 8,
            accumulate: 1,
            shards: 1,
            optimizer: Optimizer::Sgd,
            learning_rate: 0.01,
            backbone_learning_rate: 0.001,
            layer_decay: 1.0,
            weight_decay: 0.0,
            schedule: Schedule::Constant,
            warmup_fraction: 0.0,
            loss: Loss::of(task)[0],
            label_smoothing: 0.0,
            augmentation: None,
            augmented_views: 0,
            mixup: 0.0,
            cutmix: 0.0,
            class_weights: None,
            gradient_clip: None,
            ema_decay: None,
            batch_norm: BatchNorm::Frozen,
            precision: Precision::Float32,
            features_precision: Precision::Float32,
            early_stopping: EarlyStopping {
                patience: None,
                metric: Metric::default_of(task),
                min_delta: 0.0,
            },
            evaluate_every: EvaluateEvery::default(),
            checkpoint_every_seconds: 300,
            seed: 0,
        }
    }

    /// How many of the later phases have begun in epoch `epoch` (from 1).
    pub fn phase_of(&self, epoch: u32) -> usize {
        let begun = |phase: &&FreezePhase| phase.at_epoch < epoch;
        self.later_phases.iter().take_while(begun).count()
    }

    /// The trainable parameters of each phase, in order.
    pub fn phases(&self) -> impl Iterator<Item = &[String]> {
        let later = self.later_phases.iter();
        std::iter::once(self.trainable.as_slice())
            .chain(later.map(|phase| phase.trainable.as_slice()))
    }

    /// True when training takes BatchNorm's statistics from the samples that run together:
    /// splitting a step into several batches then changes it beyond rounding.
    pub fn has_batch_statistics(&self) -> bool {
        self.batch_norm == BatchNorm::Update || self.head.layers.contains(&HeadLayer::BatchNorm)
    }

    /// The shards that a batch of `samples` runs in on a CPU, side by side, while the backbone
    /// trains; their gradients add up. They follow from the recipe alone, so that the result does
    /// not depend on the machine's threads. Of fewer samples than `batch_size`, there are fewer.
    pub fn shards_of(&self, samples: usize) -> usize {
        let size = (self.batch_size / self.shards).max(1) as usize;
        (samples / size).clamp(1, self.shards as usize)
    }

    /// True when training by either recipe gives the same numbers. The interval between checkpoints
    /// does not matter.
    pub fn is_same_training(&self, other: &Self) -> bool {
        let saved_as = Self {
            checkpoint_every_seconds: other.checkpoint_every_seconds,
            ..self.clone()
        };
        saved_as == *other
    }
}

/// Shards of a recipe that has none.
fn one() -> u32 {
    1
}

/// Batches of an epoch over `samples` samples: all of `batch_size`, except for a smaller last one.
/// A last batch of one sample joins the batch before it, because BatchNorm has no statistics over
/// one sample (a `batch_size` of 1 is kept as it is).
pub fn steps_per_epoch(samples: u64, batch_size: u64) -> u64 {
    let lone = samples % batch_size == 1 && samples > batch_size;
    samples.div_ceil(batch_size) - u64::from(lone)
}

/// The labels of a job that starts from a fine-tuned model or a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inherited {
    /// The result's classes in label order: the parent's, which keep their numbers, then new ones.
    pub labels: Vec<String>,
    /// How many of them the parent's head knows; 0 when the head is new.
    pub known: u32,
}

impl Inherited {
    /// True when the job continues with the parent's head.
    pub fn keeps_head(&self) -> bool {
        self.known > 0
    }

    /// True when the job adds rows to the parent's head.
    pub fn grows(&self) -> bool {
        self.keeps_head() && (self.known as usize) < self.labels.len()
    }
}

/// A part of a training in which the same parameters train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreezePhase {
    /// Number of epochs before it begins.
    pub at_epoch: u32,
    /// Names of the backbone parameters that train, in forward order.
    pub trainable: Vec<String>,
}

/// Low-rank adapters (LoRA, Hu et al. 2021): each layer's weight gains `alpha / rank * B A`, with A
/// [rank, inputs] and B [outputs, rank], which starts at zero. The exported model has them merged
/// into its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Adapter {
    pub rank: u32,
    pub alpha: f64,
    /// Share of a layer's inputs that A does not see in training.
    pub dropout: f64,
    /// Names of the backbone's linear layers that get an adapter, in forward order.
    pub layers: Vec<String>,
}

impl Adapter {
    /// The factor on B A.
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank)
    }

    /// The names of a layer's A and B, as in PEFT.
    pub fn tensors_of(layer: &str) -> [String; 2] {
        ["A", "B"].map(|matrix| format!("{layer}.lora_{matrix}.weight"))
    }

    /// True when a tensor of this name belongs to an adapter.
    pub fn is_tensor(name: &str) -> bool {
        [".lora_A.weight", ".lora_B.weight"]
            .iter()
            .any(|end| name.ends_with(end))
    }

    /// The names of all its tensors, in forward order.
    pub fn tensors(&self) -> Vec<String> {
        let layers = self.layers.iter();
        layers.flat_map(|layer| Self::tensors_of(layer)).collect()
    }
}

/// The new layers: `layers`, then one linear layer with an output for each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// The layers before the last linear one, in order.
    pub layers: Vec<HeadLayer>,
    pub init: HeadInit,
}

/// When training ends early, and which evaluation is the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EarlyStopping {
    /// Evaluations without improvement before training ends; `null` never ends it early.
    pub patience: Option<u32>,
    pub metric: Metric,
    /// The least difference that counts as an improvement.
    pub min_delta: f64,
}

/// How one `"auto"` was resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Path inside `method.transfer`, such as `hyperparameters.learning_rate`.
    pub option: String,
    pub value: serde_json::Value,
    /// One phrase.
    pub reason: String,
}
