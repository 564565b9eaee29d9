//! Fills a recipe from a checked request, subject by subject; every `"auto"` gets its default and a
//! reason.

use super::{
    augmentation, auto_log::AutoLog, data::Data, defaults, network::NetworkShape, trained::Trained,
};
use crate::{
    base_model::Layers,
    estimate,
    recipe::{
        EarlyStopping, EvaluateEvery, Head, Optimizer, Precision, Recipe, Resolved, Schedule, Task,
    },
    request::{ClassWeightRule, ClassWeights, OrNone, Transfer},
};

/// The recipe of a request, with seed 0 and without class weights.
pub(super) fn fill_defaults(
    asked: &Transfer,
    layers: &Layers,
    data: Data<'_>,
    (shape, trained): (&NetworkShape, &Trained),
) -> (Recipe, Vec<Resolved>) {
    let task = data.training.task;
    let mut fill = Fill {
        recipe: Recipe::base(task),
        log: AutoLog::default(),
        asked,
        layers,
        shape,
        trained,
        task,
        samples: data.training_samples(),
        head_only: trained.head_only(),
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
    /// The whole backbone's.
    layers: &'a Layers,
    shape: &'a NetworkShape,
    trained: &'a Trained,
    task: Task,
    /// Samples that train.
    samples: u64,
    /// True when nothing of the backbone trains, in any phase.
    head_only: bool,
}

/// The hyperparameter of that name: as requested, or its default, which is a value and a reason.
macro_rules! hyperparameter {
    ($fill:ident, $name:ident, $default:expr) => {
        $fill.log.resolve(
            concat!("hyperparameters.", stringify!($name)),
            $fill.asked.hyperparameters.$name.clone(),
            $default,
        )
    };
}

impl Fill<'_> {
    fn network(&mut self) {
        let (asked, task) = (self.asked, self.task);
        let reason = match task {
            Task::SingleLabelClassification => "each sample has one class",
            Task::MultiLabelClassification => "samples have lists of labels",
            Task::Regression => "samples have numbers",
        };
        self.recipe.task = self.log.resolve("task", asked.task, (task, reason));
        let init = defaults::head_init(task, self.shape.keeps_head(), &self.shape.head);
        let init = self.log.resolve("head.init", asked.head.init, init);
        let mut phases = self.trained.phases.iter().cloned();
        let recipe = &mut self.recipe;
        recipe.cut = self.shape.cut.clone();
        recipe.trainable = phases.next().map_or_else(Vec::new, |first| first.trainable);
        recipe.later_phases = phases.collect();
        recipe.adapter = self.trained.adapter.clone();
        recipe.head = Head {
            layers: self.shape.head.clone(),
            init,
        };
        recipe.inherited = self.shape.inherited.clone();
    }

    fn epochs_and_batches(&mut self) {
        let epochs = defaults::n_epochs(self.trained.last_phase(), self.head_only);
        self.recipe.n_epochs = narrow(hyperparameter!(self, n_epochs, epochs));
        let batch_size = (
            defaults::batch_size(self.samples),
            "32, or all samples when there are fewer",
        );
        self.recipe.batch_size = narrow(hyperparameter!(self, batch_size, batch_size));
        let one = (1, "a batch fits at once");
        self.recipe.accumulate = narrow(hyperparameter!(self, accumulate, one));
    }

    fn rates(&mut self) {
        let adamw = (Optimizer::Adamw, "needs little tuning of its rate");
        let optimizer = hyperparameter!(self, optimizer, adamw);
        let one = (1.0, "rates as they are");
        let multiplier = hyperparameter!(self, learning_rate_multiplier, one);
        let head = hyperparameter!(self, learning_rate, defaults::head_rate(optimizer));
        let default = if self.head_only {
            (0.0, "the whole backbone is frozen")
        } else {
            let has_adapter = self.trained.adapter.is_some();
            defaults::backbone_rate(optimizer, head, (self.trained.has_batch_norm, has_adapter))
        };
        let backbone = hyperparameter!(self, backbone_learning_rate, default);
        let one = (1.0, "one rate for the whole backbone");
        self.recipe.layer_decay = hyperparameter!(self, layer_decay, one);
        self.recipe.optimizer = optimizer;
        self.recipe.learning_rate = multiplier * head;
        self.recipe.backbone_learning_rate = multiplier * backbone;
    }

    fn schedule(&mut self) {
        let cosine = (Schedule::Cosine, "ends in small steps without tuning");
        let schedule = hyperparameter!(self, schedule, cosine);
        let warmup = defaults::warmup(schedule, self.head_only);
        self.recipe.warmup_fraction = hyperparameter!(self, warmup_fraction, warmup);
        self.recipe.schedule = schedule;
    }

    fn loss(&mut self) {
        self.recipe.loss = hyperparameter!(self, loss, defaults::loss(self.task));
        let none = (0.0, "probabilities stay calibrated");
        self.recipe.label_smoothing = hyperparameter!(self, label_smoothing, none);
        let none = ClassWeights::Rule(ClassWeightRule::None);
        hyperparameter!(self, class_weights, (none, "every sample counts alike"));
    }

    fn images(&mut self) {
        let frozen_epochs = self.trained.frozen_epochs(self.recipe.n_epochs.into());
        let (augmentation, views) = augmentation::resolve(
            &self.asked.augmentation,
            defaults::augmentation(self.head_only, self.samples),
            defaults::views(frozen_epochs),
            &mut self.log,
        );
        self.recipe.augmentation = augmentation;
        self.recipe.augmented_views = narrow(views);
        let alpha = defaults::mixup(self.task, self.head_only, self.samples);
        self.recipe.mixup = hyperparameter!(self, mixup, alpha);
        let none = (0.0, "pays off in long trainings only");
        self.recipe.cutmix = hyperparameter!(self, cutmix, none);
    }

    fn regularization(&mut self) {
        let decay = defaults::weight_decay(self.recipe.optimizer, self.head_only);
        self.recipe.weight_decay = hyperparameter!(self, weight_decay, decay);
        let none = (OrNone::None, "the best evaluation is chosen instead");
        self.recipe.ema_decay = hyperparameter!(self, ema_decay, none).value();
        let clip = defaults::gradient_clip(self.head_only);
        self.recipe.gradient_clip = hyperparameter!(self, gradient_clip, clip).value();
    }

    fn arithmetic(&mut self) {
        let frozen = self.head_only || self.trained.adapter.is_some();
        let backbone = (self.trained.has_batch_norm, frozen);
        let asked = self.asked.hyperparameters.shards.value();
        let shard = self.recipe.batch_size / narrow(asked.unwrap_or(1));
        let norm = defaults::batch_norm(backbone, self.recipe.head.init, shard);
        self.recipe.batch_norm = hyperparameter!(self, batch_norm, norm);
        let shards = estimate::shards(&self.recipe, self.layers);
        self.recipe.shards = narrow(hyperparameter!(self, shards, shards));
        let float32 = (
            Precision::Float32,
            "gives the same numbers on every device, and is faster where bfloat16 is not native",
        );
        self.recipe.precision = hyperparameter!(self, precision, float32);
        self.recipe.features_precision = hyperparameter!(self, features_precision, float32);
    }

    fn evaluation(&mut self) {
        let (asked, log, recipe) = (self.asked, &mut self.log, &mut self.recipe);
        let stopping = &asked.early_stopping;
        let ten = (10, "ten evaluations without a better one");
        let patience = log.resolve("early_stopping.patience", stopping.patience, ten);
        let metric = defaults::metric(self.task);
        recipe.early_stopping = EarlyStopping {
            patience: Some(narrow(patience)),
            metric: log.resolve("early_stopping.metric", stopping.metric, metric),
            min_delta: stopping.min_delta,
        };
        let each = (
            EvaluateEvery::default(),
            "after each pass over the training split",
        );
        recipe.evaluate_every = log.resolve("evaluate_every", asked.evaluate_every, each);
        recipe.checkpoint_every_seconds = narrow(asked.checkpoint_every_seconds);
    }
}

/// For numbers that `limits` keeps far below 2^32.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("a number within its limit fits 32 bits: this is a bug")
}
