//! Fills a recipe from a checked request, subject by subject; every `"auto"` gets its default and a
//! reason.

use super::{augmentation, auto_log::AutoLog, defaults, network::NetworkShape, trained::Trained};
use crate::{
    recipe::{EvaluateEvery, Head, Optimizer, Precision, Recipe, Resolved, Schedule, Task},
    request::{ClassWeightRule, ClassWeights, Hyperparameters, OrNone, Transfer},
};

/// Facts about the data and the network.
pub(super) struct DataFacts {
    pub(super) task: Task,
    /// Samples that train.
    pub(super) samples: u64,
    /// Resolved weights, in label order.
    pub(super) class_weights: Option<Vec<f64>>,
    /// True when the backbone has BatchNorm layers.
    pub(super) has_batch_norm: bool,
}

/// The recipe of a request, with seed 0.
pub(super) fn fill_defaults(
    asked: &Transfer,
    shape: &NetworkShape,
    trained: &Trained,
    facts: DataFacts,
) -> (Recipe, Vec<Resolved>) {
    let mut fill = Fill {
        recipe: Recipe::base(facts.task),
        head_only: trained.head_only(),
        log: AutoLog::default(),
        asked,
        shape,
        trained,
        facts,
    };
    fill.network();
    fill.epochs_and_batches();
    fill.rates();
    fill.schedule();
    fill.loss();
    fill.images();
    fill.regularization();
    fill.arithmetic();
    fill.evaluation();
    (fill.recipe, fill.log.0)
}

/// A recipe that is being filled.
struct Fill<'a> {
    recipe: Recipe,
    log: AutoLog,
    asked: &'a Transfer,
    shape: &'a NetworkShape,
    trained: &'a Trained,
    facts: DataFacts,
    /// True when nothing of the backbone trains, in any phase.
    head_only: bool,
}

impl<'a> Fill<'a> {
    fn hyperparameters(&self) -> &'a Hyperparameters {
        &self.asked.hyperparameters
    }

    fn network(&mut self) {
        let (asked, task) = (self.asked, self.facts.task);
        let reason = match task {
            Task::SingleLabelClassification => "each sample has one class",
            Task::MultiLabelClassification => "samples have lists of labels",
            Task::Regression => "samples have numbers",
        };
        self.recipe.task = self.log.resolve("task", asked.task, (task, reason));
        let init = defaults::head_init(task, self.shape.keeps_head(), &self.shape.head);
        let init = self.log.resolve("head.init", asked.head.init, init);
        let mut phases = self.trained.phases.iter().cloned();
        self.recipe = Recipe {
            cut: self.shape.cut.clone(),
            trainable: phases.next().map_or_else(Vec::new, |first| first.trainable),
            later_phases: phases.collect(),
            adapter: self.trained.adapter.clone(),
            head: Head {
                layers: self.shape.head.clone(),
                init,
            },
            inherited: self.shape.inherited.clone(),
            ..self.recipe.clone()
        };
    }

    fn epochs_and_batches(&mut self) {
        let asked = self.hyperparameters();
        let epochs = defaults::n_epochs(self.trained.last_phase(), self.head_only);
        let (path, given) = ("hyperparameters.n_epochs", asked.n_epochs);
        self.recipe.n_epochs = narrow(self.log.resolve(path, given, epochs));
        let batch_size = (
            defaults::batch_size(self.facts.samples),
            "32, or all samples when there are fewer",
        );
        let (path, given) = ("hyperparameters.batch_size", asked.batch_size);
        self.recipe.batch_size = narrow(self.log.resolve(path, given, batch_size));
        let (path, given) = ("hyperparameters.accumulate", asked.accumulate);
        let one = (1, "a batch fits at once");
        self.recipe.accumulate = narrow(self.log.resolve(path, given, one));
    }

    fn rates(&mut self) {
        let (asked, log) = (self.hyperparameters(), &mut self.log);
        let default = (Optimizer::Adamw, "needs little tuning of its rate");
        let optimizer = log.resolve("hyperparameters.optimizer", asked.optimizer, default);
        let (path, given) = (
            "hyperparameters.learning_rate_multiplier",
            asked.learning_rate_multiplier,
        );
        let multiplier = log.resolve(path, given, (1.0, "rates as they are"));
        let (path, given) = ("hyperparameters.learning_rate", asked.learning_rate);
        let head = log.resolve(path, given, defaults::head_rate(optimizer));
        let default = if self.head_only {
            (0.0, "the whole backbone is frozen")
        } else {
            let has_adapter = self.trained.adapter.is_some();
            defaults::backbone_rate(optimizer, head, (self.facts.has_batch_norm, has_adapter))
        };
        let (path, given) = (
            "hyperparameters.backbone_learning_rate",
            asked.backbone_learning_rate,
        );
        let backbone = log.resolve(path, given, default);
        let default = (1.0, "one rate for the whole backbone");
        let layer_decay = log.resolve("hyperparameters.layer_decay", asked.layer_decay, default);
        self.recipe.optimizer = optimizer;
        self.recipe.learning_rate = multiplier * head;
        self.recipe.backbone_learning_rate = multiplier * backbone;
        self.recipe.layer_decay = layer_decay;
    }

    fn schedule(&mut self) {
        let (asked, log) = (self.hyperparameters(), &mut self.log);
        let default = (Schedule::Cosine, "ends in small steps without tuning");
        let schedule = log.resolve("hyperparameters.schedule", asked.schedule, default);
        let default = defaults::warmup(schedule, self.head_only);
        let (path, given) = ("hyperparameters.warmup_fraction", asked.warmup_fraction);
        self.recipe.warmup_fraction = log.resolve(path, given, default);
        self.recipe.schedule = schedule;
    }

    fn loss(&mut self) {
        let (asked, log) = (self.hyperparameters(), &mut self.log);
        let default = defaults::loss(self.facts.task);
        self.recipe.loss = log.resolve("hyperparameters.loss", asked.loss, default);
        let (path, given) = ("hyperparameters.label_smoothing", asked.label_smoothing);
        self.recipe.label_smoothing =
            log.resolve(path, given, (0.0, "probabilities stay calibrated"));
        let none = ClassWeights::Rule(ClassWeightRule::None);
        let (path, given) = ("hyperparameters.class_weights", asked.class_weights.clone());
        log.resolve(path, given, (none, "every sample counts alike"));
        self.recipe.class_weights = self.facts.class_weights.take();
    }

    fn images(&mut self) {
        let (asked, samples) = (self.hyperparameters(), self.facts.samples);
        let frozen_epochs = self.trained.frozen_epochs(self.recipe.n_epochs.into());
        let (augmentation, views) = augmentation::resolve(
            &self.asked.augmentation,
            defaults::augmentation(self.head_only, samples),
            defaults::views(frozen_epochs),
            &mut self.log,
        );
        self.recipe.augmentation = augmentation;
        self.recipe.augmented_views = narrow(views);
        let default = defaults::mixup(self.facts.task, self.head_only, samples);
        self.recipe.mixup = self
            .log
            .resolve("hyperparameters.mixup", asked.mixup, default);
        let default = (0.0, "pays off in long trainings only");
        self.recipe.cutmix = self
            .log
            .resolve("hyperparameters.cutmix", asked.cutmix, default);
    }

    fn regularization(&mut self) {
        let (asked, log) = (self.hyperparameters(), &mut self.log);
        let default = defaults::weight_decay(self.recipe.optimizer, self.head_only);
        let (path, given) = ("hyperparameters.weight_decay", asked.weight_decay);
        self.recipe.weight_decay = log.resolve(path, given, default);
        let default = (OrNone::None, "the best evaluation is chosen instead");
        let ema_decay = log.resolve("hyperparameters.ema_decay", asked.ema_decay, default);
        self.recipe.ema_decay = ema_decay.value();
        let default = defaults::gradient_clip(self.head_only);
        let (path, given) = ("hyperparameters.gradient_clip", asked.gradient_clip);
        self.recipe.gradient_clip = log.resolve(path, given, default).value();
    }

    fn arithmetic(&mut self) {
        let (asked, log, recipe) = (self.hyperparameters(), &mut self.log, &mut self.recipe);
        let keeps_statistics = self.head_only || self.trained.adapter.is_some();
        let default = if self.facts.has_batch_norm {
            defaults::batch_norm(keeps_statistics, recipe.head.init, recipe.batch_size)
        } else {
            defaults::NO_BATCH_NORM
        };
        recipe.batch_norm = log.resolve("hyperparameters.batch_norm", asked.batch_norm, default);
        let default = (
            Precision::Float32,
            "gives the same numbers on every device, and is faster where bfloat16 is not native",
        );
        recipe.precision = log.resolve("hyperparameters.precision", asked.precision, default);
    }

    fn evaluation(&mut self) {
        let (asked, log, recipe) = (self.asked, &mut self.log, &mut self.recipe);
        let stopping = &asked.early_stopping;
        let default = (10, "ten evaluations without a better one");
        let patience = log.resolve("early_stopping.patience", stopping.patience, default);
        recipe.early_stopping.patience = Some(narrow(patience));
        let default = defaults::metric(self.facts.task);
        recipe.early_stopping.metric =
            log.resolve("early_stopping.metric", stopping.metric, default);
        recipe.early_stopping.min_delta = stopping.min_delta;
        let default = (
            EvaluateEvery::default(),
            "after each pass over the training split",
        );
        recipe.evaluate_every = log.resolve("evaluate_every", asked.evaluate_every, default);
        recipe.checkpoint_every_seconds = narrow(asked.checkpoint_every_seconds);
    }
}

/// For numbers that `limits` keeps far below 2^32.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("a number within its limit fits 32 bits: this is a bug")
}
