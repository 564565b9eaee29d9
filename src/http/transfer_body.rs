//! `method.transfer` in the body of a job, as openapi.yaml describes it; see `job_body`. Ranges of options that may be `"auto"`
//! stand in their words, which `tests/it/job_body.rs` compares with `domain::limits`.
#![expect(dead_code, reason = "only described, never read into")]

use utoipa::ToSchema;

use crate::domain::{
    recipe::{
        BatchNorm, EvaluateEvery, HeadInit, HeadLayer, Loss, Metric, Optimizer, Precision,
        Schedule, Task,
    },
    request::{
        AdapterKind, AdapterTargets, AugmentationOff, Auto, ClassWeights, EmaDecay, Freeze,
        GradientClip, LabelRule,
    },
};

/// How to transfer. An option that may be `"auto"` is so when left out; `resolved` of the job says what became of it, and why.
#[derive(ToSchema)]
pub(super) struct TransferBody {
    /// `auto`: what the training file is for.
    task: Option<Auto<Task>>,
    /// `pre_logits` takes away the classifier only; a stage's name everything after that stage, whose output is pooled.
    /// `auto`: `pre_logits`, or the cut of the model that the job goes on from.
    #[schema(max_length = 255)]
    cut: Option<String>,
    /// What of the backbone keeps its weights. `all_but_last_stages` and `first_n` are 1 to 1,000, `fraction` 0 to 1; at most 4,096 names,
    /// 64 entries of a schedule. `auto`: `all` under an adapter, or with fewer than 10 training samples a class and no option
    /// that says how the backbone trains; otherwise `none`.
    freeze: Option<Auto<Freeze>>,
    /// What trains in the place of the backbone's own weights; none when left out.
    adapter: Option<AdapterBody>,
    head: Option<HeadBody>,
    /// Of a job that goes on: what becomes of the model's labels. `auto` is `keep`; a class of the file that the model does
    /// not know is then refused by name.
    labels: Option<Auto<LabelRule>>,
    hyperparameters: Option<HyperparametersBody>,
    /// How training images are altered. `auto`: random crops where the backbone trains, `none` where it is frozen.
    augmentation: Option<Auto<AugmentationBody>>,
    early_stopping: Option<EarlyStoppingBody>,
    /// 1 to 86,400; 300 when left out.
    #[schema(minimum = 1, maximum = 86_400)]
    checkpoint_every_seconds: Option<u64>,
    /// `epochs` is 1 to 10,000, `steps` 1 to 1,000,000; the last step is evaluated too. `auto`: after each epoch.
    evaluate_every: Option<Auto<EvaluateEvery>>,
}

/// LoRA (Hu et al. 2021), with the defaults of PEFT.
#[derive(ToSchema)]
pub(super) struct AdapterBody {
    #[schema(rename = "type")]
    kind: AdapterKind,
    /// Of the matrix that a layer's weight gains: 1 to 256, and at most the layer's smaller side. 8 when left out.
    #[schema(minimum = 1, maximum = 256)]
    rank: Option<u64>,
    /// That matrix counts `alpha / rank` times: 0.001 to 4,096. 8 when left out.
    #[schema(minimum = 0.001, maximum = 4_096)]
    alpha: Option<f64>,
    /// Share of a layer's inputs that its adapter does not see in training: 0 to below 1. 0 when left out.
    #[schema(minimum = 0, exclusive_maximum = 1)]
    dropout: Option<f64>,
    /// At most 1,024 names, or an expression of at most 1,024 characters. `all_linear` when left out.
    targets: Option<AdapterTargets>,
}

/// The new layers, before a linear one as wide as there are classes.
#[derive(ToSchema)]
pub(super) struct HeadBody {
    /// At most 16; `linear` is 1 to 16,384 wide, `dropout` from 0 to below 1. `auto`: none, or those of the model that the job
    /// goes on from.
    layers: Option<Auto<Vec<HeadLayer>>>,
    /// How its weights begin. `auto`: `probe` for a new linear head, otherwise `zero`.
    init: Option<Auto<HeadInit>>,
}

#[derive(ToSchema)]
pub(super) struct HyperparametersBody {
    /// Passes over the training split, 1 to 10,000.
    n_epochs: Option<Auto<u64>>,
    /// Samples that run through the network together, 1 to 4,096. `auto`: 32, or all when there are fewer.
    batch_size: Option<Auto<u64>>,
    /// Peak rate of the head, 1e-9 to 100.
    learning_rate: Option<Auto<f64>>,
    /// Peak rate of the backbone's last stage, 1e-9 to 100.
    backbone_learning_rate: Option<Auto<f64>>,
    /// What both learning rates are multiplied by, 0.0001 to 10,000. `auto`: 1.
    learning_rate_multiplier: Option<Auto<f64>>,
    /// `auto`: `adamw`.
    optimizer: Option<Auto<Optimizer>>,
    /// 0 to 10. `adamw` shrinks tensors of two or more dimensions by the rate times this in each step (decoupled): no biases,
    /// no normalizations. `sgd` and `nesterov` add this times the weight to the gradient (L2), of every tensor that trains.
    /// `auto`: 0.01 with `adamw` where some of the backbone trains, otherwise 0.
    weight_decay: Option<Auto<f64>>,
    /// How the rates go from step to step. `auto`: `cosine`.
    schedule: Option<Auto<Schedule>>,
    /// Share of all steps in which the rates rise linearly from 0: 0 to 1.
    warmup_fraction: Option<Auto<f64>>,
    /// Above 0, at most 1: what each stage's rate is of the next one's. `auto`: 1.
    layer_decay: Option<Auto<f64>>,
    /// Batches of one optimizer step, 1 to 1,024. `auto`: 1.
    accumulate: Option<Auto<u64>>,
    /// `cross_entropy` for single labels, `binary_cross_entropy` for several, `mse` (`auto`) or `huber` for numbers.
    loss: Option<Auto<Loss>>,
    /// Share of the true class that is spread over all classes: 0 to below 1. `auto`: 0.
    label_smoothing: Option<Auto<f64>>,
    /// Beta's parameter for samples of one class each that are added up in pairs, 0 to 10; 0 adds none.
    mixup: Option<Auto<f64>>,
    /// Beta's parameter for images into which a part of another is pasted while some of the backbone trains, 0 to 10; 0 (`auto`)
    /// pastes none.
    cutmix: Option<Auto<f64>>,
    /// What a sample's loss is multiplied by: a rule, or 1e-6 to 1,000,000 by class name, for 1 to 10,000 classes.
    /// `auto`: `none`.
    class_weights: Option<Auto<ClassWeights>>,
    /// Largest global norm of the gradient, 1e-6 to 1,000,000; `none` sets no bound. `auto`: 1 where some of the backbone trains,
    /// otherwise `none`.
    gradient_clip: Option<Auto<GradientClip>>,
    /// Share of the running average of the weights that a step keeps, above 0 and below 1; the averages are evaluated and
    /// exported. `none` (`auto`) keeps none.
    ema_decay: Option<Auto<EmaDecay>>,
    /// How BatchNorm runs in the part that trains: on its running statistics, or updating them.
    batch_norm: Option<Auto<BatchNorm>>,
    /// In which numbers the backbone's trained part computes. `auto`: `float32`.
    precision: Option<Auto<Precision>>,
}

#[derive(ToSchema)]
pub(super) struct EarlyStoppingBody {
    /// Evaluations without improvement before training ends, 1 to 10,000. `auto`: 10.
    patience: Option<Auto<u64>>,
    /// What chooses the best epoch. `auto`: `valid_accuracy` for single labels, `valid_mean_average_precision` for several,
    /// `valid_rmse` for numbers.
    metric: Option<Auto<Metric>>,
    /// What counts as an improvement, in the metric's unit: 0 to 1,000,000. 0 when left out.
    #[schema(minimum = 0, maximum = 1_000_000)]
    min_delta: Option<f64>,
}

/// `none`, or what is done to a training image, each time anew, in the order of the fields; what is left out is not done.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum AugmentationBody {
    Off(AugmentationOff),
    Chosen(ChosenAugmentationBody),
}

#[derive(ToSchema)]
pub(super) struct ChosenAugmentationBody {
    random_resized_crop: Option<RandomResizedCropBody>,
    /// Probability of a mirror image, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    horizontal_flip: Option<f64>,
    color_jitter: Option<ColorJitterBody>,
    rand_augment: Option<RandAugmentBody>,
    /// Probability that a rectangle of 2 to 33 % of the area becomes the mean color, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    random_erasing: Option<f64>,
    /// Altered views of each training sample whose features are computed ahead while the whole backbone is frozen, 1 to 16; an
    /// epoch trains on one of them.
    views: Option<Auto<u64>>,
}

/// A random part of the image, resized to the input.
#[derive(ToSchema)]
pub(super) struct RandomResizedCropBody {
    /// Least and largest share of the area, 0.01 to 1. `[0.08, 1]` when left out.
    #[schema(min_items = 2, max_items = 2, minimum = 0.01, maximum = 1)]
    scale: Option<Vec<f64>>,
    /// Least and largest width by height, 0.1 to 10. From 3/4 to 4/3 when left out.
    #[schema(min_items = 2, max_items = 2, minimum = 0.1, maximum = 10)]
    aspect_ratio: Option<Vec<f64>>,
}

/// How far colors move, in a random order; 0 when left out.
#[derive(ToSchema)]
pub(super) struct ColorJitterBody {
    /// The factor is drawn from 1 less this to 1 plus this: 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    brightness: Option<f64>,
    /// As `brightness`, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    contrast: Option<f64>,
    /// As `brightness`, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    saturation: Option<f64>,
    /// The turn is drawn from less this to plus this, in turns of the color wheel: 0 to 0.5.
    #[schema(minimum = 0, maximum = 0.5)]
    hue: Option<f64>,
}

/// Some operations drawn from a list, all of one strength (Cubuk et al. 2020).
#[derive(ToSchema)]
pub(super) struct RandAugmentBody {
    /// Operations on each image, 1 to 8. 2 when left out.
    #[schema(minimum = 1, maximum = 8)]
    n_ops: Option<u64>,
    /// 0 to 30, the strongest. 9 when left out.
    #[schema(minimum = 0, maximum = 30)]
    magnitude: Option<u64>,
}
