//! Every training choice, resolved: nothing in a recipe is left to a default. Stored in the job and in each checkpoint.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::augmentation::Augmentation;

/// Version of what a recipe means. To be raised with every change that an older trainer would get wrong, a new field among
/// them: workers leave jobs of newer versions alone.
pub const SPEC_VERSION: u32 = 2;

/// What the trainer is told to do. Two trainers with the same recipe, weights and data do the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recipe {
    pub task: Task,
    /// Where the base model's tail is removed; `pre_logits` takes away the classifier only.
    pub cut: String,
    /// Backbone parameters that train, by name, in forward order. All others stay bit for bit.
    pub trainable: Vec<String>,
    /// What trains instead of `trainable` from later epochs on, in order; empty without a freeze schedule.
    pub later_phases: Vec<FreezePhase>,
    /// Adapters on layers of the backbone, whose own weights stay: of the backbone, what trains is theirs. `null` gives none.
    #[serde(default)]
    pub adapter: Option<Adapter>,
    pub head: Head,
    /// What is taken over from a fine-tuned model or a checkpoint; `null` where training starts from a base model.
    #[serde(default)]
    pub inherited: Option<Inherited>,
    pub n_epochs: u32,
    /// Samples that run through the network together.
    pub batch_size: u32,
    /// Batches of one optimizer step; their gradients add up to that of one large batch.
    pub accumulate: u32,
    pub optimizer: Optimizer,
    /// Peak rate of the head.
    pub learning_rate: f64,
    /// Peak rate of the backbone's trainable part.
    pub backbone_learning_rate: f64,
    /// The backbone's last stage trains at its full rate, each stage before it at this share of the next one's.
    pub layer_decay: f64,
    /// On every trained tensor of two or more dimensions (AdamW, decoupled) or on all (SGD, as L2), as PyTorch's rules in `train::step::optimizer` say.
    pub weight_decay: f64,
    pub schedule: Schedule,
    /// Share of all steps in which the rate rises linearly from 0.
    pub warmup_fraction: f64,
    pub loss: Loss,
    /// Mass taken from the true class and spread over all (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// How training images are altered; `null` shows them as the evaluation does.
    pub augmentation: Option<Augmentation>,
    /// Views of each training sample that are altered, and their features computed, ahead, while nothing but the head trains
    /// from the start: epochs train on them in turn. 0 shows samples unaltered as long.
    pub augmented_views: u32,
    /// Beta's parameter for samples that are added up in pairs, features where the whole backbone is frozen and images otherwise
    /// (Zhang et al. 2018); 0 adds none. Where both this and `cutmix` are above 0, each step draws one of them.
    pub mixup: f64,
    /// Beta's parameter for images into which a part of another is pasted while some of the backbone trains (Yun et al. 2019); 0
    /// pastes none.
    pub cutmix: f64,
    /// What a sample's loss is multiplied by, for each class in label order; with several labels a sample, what the part of
    /// those who have the label is. `null` weighs all alike.
    pub class_weights: Option<Vec<f64>>,
    /// Largest global norm of the gradient over what trains; `null` leaves it alone.
    pub gradient_clip: Option<f64>,
    /// Share of the running average of the weights that a step keeps; the averages are evaluated and exported. `null` keeps
    /// none.
    pub ema_decay: Option<f64>,
    pub batch_norm: BatchNorm,
    pub precision: Precision,
    pub early_stopping: EarlyStopping,
    /// The end of training is evaluated whatever this says.
    #[serde(default)]
    pub evaluate_every: EvaluateEvery,
    pub checkpoint_every_seconds: u32,
    pub seed: u64,
}

impl Recipe {
    /// How many of the later phases have begun in epoch `epoch` (from 1).
    pub fn phase_of(&self, epoch: u32) -> usize {
        let begun = |phase: &&FreezePhase| phase.at_epoch < epoch;
        self.later_phases.iter().take_while(begun).count()
    }

    /// What trains in each phase, in order.
    pub fn phases(&self) -> impl Iterator<Item = &[String]> {
        let later = self.later_phases.iter();
        std::iter::once(self.trainable.as_slice())
            .chain(later.map(|phase| phase.trainable.as_slice()))
    }

    /// Whether a step in several batches is, beyond rounding, another one than in one batch.
    pub fn depends_on_batches(&self) -> bool {
        let mut layers = self.head.layers.iter();
        let adapter = self.adapter.as_ref();
        self.batch_norm == BatchNorm::Update
            || adapter.is_some_and(|adapter| adapter.dropout > 0.0)
            || layers.any(|layer| matches!(layer, HeadLayer::Dropout(_) | HeadLayer::BatchNorm))
    }

    /// Whether training by either gives the same numbers. How often it is saved does not matter.
    pub fn is_same_training(&self, other: &Self) -> bool {
        let saved_as = Self {
            checkpoint_every_seconds: other.checkpoint_every_seconds,
            ..self.clone()
        };
        saved_as == *other
    }
}

/// Batches of an epoch over `samples` samples: all of `batch_size`, but for a smaller last one. A last batch of one sample
/// joins the one before it, because BatchNorm has no statistics over one (a `batch_size` of 1 is kept as it is).
pub fn steps_per_epoch(samples: u64, batch_size: u64) -> u64 {
    let lone = samples % batch_size == 1 && samples > batch_size;
    samples.div_ceil(batch_size) - u64::from(lone)
}

/// What a job that goes on takes over from its parent besides the backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inherited {
    /// The result's classes in label order: the parent's, which keep their numbers, then new ones.
    pub labels: Vec<String>,
    /// How many of them the parent's head knows; 0 where the head is new.
    pub known: u32,
}

impl Inherited {
    /// Whether the parent's head goes on.
    pub fn keeps_head(&self) -> bool {
        self.known > 0
    }

    /// Whether the head goes on with new rows.
    pub fn grows(&self) -> bool {
        self.keeps_head() && (self.known as usize) < self.labels.len()
    }
}

/// A part of a training in which the same parameters train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreezePhase {
    /// Epochs that are over when it begins.
    pub at_epoch: u32,
    /// As `Recipe::trainable`.
    pub trainable: Vec<String>,
}

/// Low-rank adapters (LoRA, Hu et al. 2021): each layer's weight gains `alpha / rank * B A`, with A [rank, inputs] and B
/// [outputs, rank], which begins at zero. The result has them in its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Adapter {
    pub rank: u32,
    pub alpha: f64,
    /// Share of a layer's inputs that A does not see while training.
    pub dropout: f64,
    /// Linear layers of the backbone, by name, in forward order.
    pub layers: Vec<String>,
}

impl Adapter {
    /// What B A is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank)
    }

    /// The names of A and B of a layer, as PEFT has them.
    pub fn tensors_of(layer: &str) -> [String; 2] {
        ["A", "B"].map(|matrix| format!("{layer}.lora_{matrix}.weight"))
    }

    /// Whether a tensor of this name is an adapter's.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Each sample is of one class.
    SingleLabelClassification,
    /// Each sample has any number of labels.
    MultiLabelClassification,
    /// Each sample has a number.
    Regression,
}

impl Task {
    /// The word that requests and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}

/// The new layers: these, then one linear layer as wide as there are classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// Before the last linear layer, in order.
    pub layers: Vec<HeadLayer>,
    pub init: HeadInit,
}

/// Whether a head of these layers is one linear layer in evaluation, as timm's classifiers are.
pub fn is_linear_head<'a>(layers: impl IntoIterator<Item = &'a HeadLayer>) -> bool {
    let mut layers = layers.into_iter();
    layers.all(|layer| matches!(layer, HeadLayer::Dropout(_)))
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadLayer {
    /// Share of features dropped while training.
    Dropout(f64),
    /// As wide as this.
    Linear(u32),
    Relu,
    /// Exact, by the error function (Hendrycks & Gimpel 2016).
    Gelu,
    /// Always on the batch's statistics while training; the running ones are saved with the weights.
    BatchNorm,
    LayerNorm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// Weights and bias 0 (BiT's `zero_head`): the first loss is exactly ln(classes). New rows of a head that goes on begin
    /// at the mean of its old ones.
    Zero,
    /// Weights from N(0, 0.01), bias 0; around that mean in a head that goes on.
    Normal,
    /// The best linear classifier on the base model's features, by convex optimization (LP-FT, Kumar et al. 2022).
    Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Momentum 0.9.
    Sgd,
    /// Momentum 0.9, Nesterov's form.
    Nesterov,
    /// Betas 0.9 and 0.999, epsilon 1e-8, bias-corrected.
    Adamw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Constant,
    /// Half a cosine, from the peak to 0.
    Cosine,
    /// A straight line, from the peak to 0.
    Linear,
    /// The peak, a tenth of it after half of all steps, a hundredth after three quarters.
    Step,
    /// Over 30 % of all steps half a cosine from a 25th of the peak up to it, then half a cosine down to a 10,000th of where
    /// it began (Smith & Topin 2018); has its own warm-up.
    OneCycle,
}

/// How BatchNorm runs in the part that trains. In the frozen part it always uses, and never touches, the running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    Frozen,
    Update,
}

/// In which numbers the backbone's trained part computes. Weights, normalizations, head, loss, gradients and optimizer are
/// float32 either way, and so are the frozen part and every evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    Float32,
    /// Has float32's range, so that no loss is scaled, and three significant digits. Faster only where the device computes in
    /// it; slower elsewhere.
    Bfloat16,
}

/// How much training lies between two evaluations on the validation split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvaluateEvery {
    /// At the end of each such epoch.
    Epochs(u32),
    /// After each so many steps, wherever epochs end.
    Steps(u64),
}

impl Default for EvaluateEvery {
    fn default() -> Self {
        Self::Epochs(1)
    }
}

impl EvaluateEvery {
    /// Whether to evaluate after step `step` of epoch `epoch` (both from 1), which may end that epoch.
    pub fn is_due(self, step: u64, epoch: u32, ends_epoch: bool) -> bool {
        match self {
            Self::Epochs(epochs) => ends_epoch && epoch.is_multiple_of(epochs),
            Self::Steps(steps) => step.is_multiple_of(steps),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EarlyStopping {
    /// Evaluations without improvement before training ends; `null` never ends it early.
    pub patience: Option<u32>,
    pub metric: Metric,
    /// What counts as an improvement.
    pub min_delta: f64,
}

/// What chooses the best checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    ValidAccuracy,
    ValidBalancedAccuracy,
    ValidLoss,
    ValidMacroF1,
    ValidMicroF1,
    ValidMeanAveragePrecision,
    ValidRocAuc,
    ValidR2,
    ValidMae,
    ValidRmse,
}

impl Metric {
    pub const ALL: [Self; 10] = [
        Self::ValidLoss,
        Self::ValidAccuracy,
        Self::ValidBalancedAccuracy,
        Self::ValidMacroF1,
        Self::ValidMicroF1,
        Self::ValidMeanAveragePrecision,
        Self::ValidRocAuc,
        Self::ValidR2,
        Self::ValidMae,
        Self::ValidRmse,
    ];

    /// The word that requests and answers use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidLoss => "valid_loss",
            Self::ValidAccuracy => "valid_accuracy",
            Self::ValidBalancedAccuracy => "valid_balanced_accuracy",
            Self::ValidMacroF1 => "valid_macro_f1",
            Self::ValidMicroF1 => "valid_micro_f1",
            Self::ValidMeanAveragePrecision => "valid_mean_average_precision",
            Self::ValidRocAuc => "valid_roc_auc",
            Self::ValidR2 => "valid_r2",
            Self::ValidMae => "valid_mae",
            Self::ValidRmse => "valid_rmse",
        }
    }

    /// Whether an evaluation of this task measures it.
    pub fn is_of(self, task: Task) -> bool {
        use Task::{
            MultiLabelClassification as Multi, Regression, SingleLabelClassification as Single,
        };
        match self {
            Self::ValidLoss => true,
            Self::ValidAccuracy | Self::ValidBalancedAccuracy => task == Single,
            Self::ValidMacroF1 | Self::ValidRocAuc => matches!(task, Single | Multi),
            Self::ValidMicroF1 | Self::ValidMeanAveragePrecision => task == Multi,
            Self::ValidR2 | Self::ValidMae | Self::ValidRmse => task == Regression,
        }
    }

    pub fn is_higher_better(self) -> bool {
        !matches!(self, Self::ValidLoss | Self::ValidMae | Self::ValidRmse)
    }
}

/// What training makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Of one class a sample, in nats.
    CrossEntropy,
    /// Of each label by itself, mean over the classes, in nats.
    BinaryCrossEntropy,
    /// The square of the error, in standard deviations of the training split.
    Mse,
    /// Half the square of an error below one standard deviation of the training split, a straight line beyond (Huber 1964).
    Huber,
}

impl Loss {
    /// The losses of a task; the first is the default.
    pub fn of(task: Task) -> &'static [Self] {
        match task {
            Task::SingleLabelClassification => &[Self::CrossEntropy],
            Task::MultiLabelClassification => &[Self::BinaryCrossEntropy],
            Task::Regression => &[Self::Mse, Self::Huber],
        }
    }

    /// The word that requests use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross_entropy",
            Self::BinaryCrossEntropy => "binary_cross_entropy",
            Self::Mse => "mse",
            Self::Huber => "huber",
        }
    }
}

/// How one `"auto"` was settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Where in `method.transfer`, such as `hyperparameters.learning_rate`.
    pub option: String,
    pub value: serde_json::Value,
    /// One phrase.
    pub reason: String,
}
