//! `method.transfer`: how a base model becomes the user's.

use super::{
    adapter::AdapterOptions,
    augmentation::{AugmentationField, AugmentationOptions},
    freeze::Freeze,
    head::HeadOptions,
    hyperparameters::Hyperparameters,
};
use crate::{
    auto::{Auto, OrNone},
    limits,
    options::{Group, Or, auto, defaults, options},
    recipe::{EvaluateEvery, Metric, Task},
    rules::{Integer, Own, Text, Word, number},
    words,
};

options! {
    /// How to transfer. An option that may be `"auto"` is so when left out; `resolved` of the job
    /// has its value then, and the reason.
    pub struct Transfer {
        /// `auto`: the task of the training file.
        task: Auto<Task> = auto(Word),
        /// `pre_logits` removes the classifier only; a stage's name removes everything after that
        /// stage, whose output is pooled. `auto`: `pre_logits`, or the cut of the model that the
        /// job starts from.
        cut: Auto<String> = auto(Text(limits::STAGE_CHARACTERS)),
        /// The part of the backbone that keeps its weights. `auto`: `all` under an adapter, or with
        /// fewer than 10 training samples a class and no option about how the backbone trains;
        /// otherwise `none`.
        freeze: Auto<Freeze> = auto(Own),
        /// Matrices that train instead of the backbone's own weights.
        adapter: Option<AdapterOptions> = Group,
        head: HeadOptions = Group,
        /// The labels of a job that starts from a fine-tuned model or a checkpoint. `auto`: `keep`,
        /// so that a class of the file that the model does not know is an error; `replace` in
        /// regression.
        labels: Auto<LabelRule> = auto(Word),
        hyperparameters: Hyperparameters = Group,
        /// Random changes of training images. `auto`: random crops if some of the backbone trains,
        /// otherwise `none`.
        augmentation: Auto<OrNone<AugmentationOptions>> = AugmentationField,
        early_stopping: EarlyStoppingOptions = Group,
        /// How often to evaluate; the last step is evaluated too. `auto`: after each epoch.
        evaluate_every: Auto<EvaluateEvery> = auto(Own),
        /// Interval between checkpoints.
        checkpoint_every_seconds: u64 = Or(300, Integer(limits::CHECKPOINT_SECONDS)),
    }
}

impl Default for Transfer {
    fn default() -> Self {
        defaults()
    }
}

words! {
    /// How a job treats the labels of the model that it starts from.
    pub enum LabelRule {
        /// They stay; the file may have fewer.
        Keep = "keep",
        /// They keep their numbers, and the file's new ones follow: the head grows.
        Extend = "extend",
        /// The file's classes replace them, on a new head.
        Replace = "replace",
    }
}

options! {
    /// When training ends early, and which evaluation is the best.
    #[derive(Default)]
    pub struct EarlyStoppingOptions {
        /// Evaluations without improvement before training ends. `auto`: 10.
        patience: Auto<u64> = auto(Integer(limits::PATIENCE)),
        /// The metric that chooses the best checkpoint. `auto`: `valid_accuracy` for single labels,
        /// `valid_mean_average_precision` for several, `valid_rmse` for numbers.
        metric: Auto<Metric> = auto(Word),
        /// The least difference that counts as an improvement, in the metric's unit.
        min_delta: f64 = Or(0.0, number(limits::MIN_DELTA)),
    }
}
