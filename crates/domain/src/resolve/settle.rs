//! A checked request becomes a recipe; every `"auto"` is settled with a reason.

use serde::Serialize;
use serde_json::json;

use super::{
    augmentation,
    defaults::{
        backbone_rate, batch_norm, default_batch_size, default_epochs, head_rate, mixup,
        weight_decay,
    },
    form::Form,
};
use crate::{
    recipe::{
        EarlyStopping, EvaluateEvery, FreezePhase, Head, HeadInit, Loss, Metric, Optimizer,
        Precision, Recipe, Resolved, Schedule, Task, is_linear_head,
    },
    request::{
        Auto, ClassWeightRule, ClassWeights, ClipOff, EmaDecay, EmaOff, GradientClip, JobRequest,
    },
};

/// What the data and the network say.
pub(super) struct Told {
    pub(super) task: Task,
    /// Samples that train.
    pub(super) samples: u64,
    pub(super) class_weights: Option<Vec<f64>>,
    /// Of the backbone.
    pub(super) has_batch_norm: bool,
}

pub(super) fn settle(
    request: &JobRequest,
    form: &Form,
    mut phases: Vec<(u64, Vec<String>)>,
    told: Told,
    seed: u64,
) -> (Recipe, Vec<Resolved>) {
    let Told {
        task,
        samples,
        class_weights,
        has_batch_norm,
    } = told;
    let adapts = form.adapter.is_some();
    let head_only = phases.iter().all(|(_, trainable)| trainable.is_empty());
    let frozen_epochs = augmentation::frozen_epochs(&phases, u64::MAX);
    let last_phase = phases.last().map_or(0, |(at_epoch, _)| *at_epoch);
    let later = phases.split_off(phases.len().min(1));
    let asked = &request.transfer.hyperparameters;
    let stopping = &request.transfer.early_stopping;
    let mut autos = Autos::default();

    let task = autos.settle(
        "task",
        request.transfer.task,
        task,
        match task {
            Task::SingleLabelClassification => "each sample has one class",
            Task::MultiLabelClassification => "samples have lists of labels",
            Task::Regression => "samples have numbers",
        },
    );
    let (init, why) = head_init(task, form);
    let init = autos.settle("head.init", request.transfer.head.init, init, why);
    let (epochs, why) = if last_phase > 0 {
        (
            default_epochs(last_phase),
            "at least 5 epochs after the last change of what is frozen",
        )
    } else if head_only {
        (30, "cached features make epochs cheap")
    } else {
        (10, "each epoch runs the backbone")
    };
    let n_epochs = autos.settle("hyperparameters.n_epochs", asked.n_epochs, epochs, why);
    let batch_size = autos.settle(
        "hyperparameters.batch_size",
        asked.batch_size,
        default_batch_size(samples),
        "32, or all samples when there are fewer",
    );
    let accumulate = autos.settle(
        "hyperparameters.accumulate",
        asked.accumulate,
        1,
        "a batch fits at once",
    );
    let optimizer = autos.settle(
        "hyperparameters.optimizer",
        asked.optimizer,
        Optimizer::Adamw,
        "needs little tuning of its rate",
    );
    let multiplier = autos.settle(
        "hyperparameters.learning_rate_multiplier",
        asked.learning_rate_multiplier,
        1.0,
        "rates as they are",
    );
    let (rate, why) = head_rate(optimizer);
    let learning_rate = autos.settle(
        "hyperparameters.learning_rate",
        asked.learning_rate,
        rate,
        why,
    );
    let (rate, why) = if head_only {
        (0.0, "the whole backbone is frozen")
    } else {
        backbone_rate(optimizer, learning_rate, (has_batch_norm, adapts))
    };
    let backbone_learning_rate = autos.settle(
        "hyperparameters.backbone_learning_rate",
        asked.backbone_learning_rate,
        rate,
        why,
    );
    let layer_decay = autos.settle(
        "hyperparameters.layer_decay",
        asked.layer_decay,
        1.0,
        "one rate for the whole backbone",
    );
    let (decay, why) = weight_decay(optimizer, head_only);
    let weight_decay = autos.settle(
        "hyperparameters.weight_decay",
        asked.weight_decay,
        decay,
        why,
    );
    let schedule = autos.settle(
        "hyperparameters.schedule",
        asked.schedule,
        Schedule::Cosine,
        "ends in small steps without tuning",
    );
    let (warmup, why) = if schedule == Schedule::OneCycle {
        (0.0, "one_cycle has a warm-up of its own")
    } else if head_only {
        (0.0, "nothing pre-trained to protect")
    } else {
        (
            0.1,
            "keeps a new head's first gradients from upsetting the backbone",
        )
    };
    let warmup_fraction = autos.settle(
        "hyperparameters.warmup_fraction",
        asked.warmup_fraction,
        warmup,
        why,
    );
    let loss = autos.settle(
        "hyperparameters.loss",
        asked.loss,
        Loss::of(task)[0],
        match task {
            Task::SingleLabelClassification => "the likelihood of one class a sample",
            Task::MultiLabelClassification => "the likelihood of each label by itself",
            Task::Regression => "the mean is what R2 and RMSE ask for",
        },
    );
    let label_smoothing = autos.settle(
        "hyperparameters.label_smoothing",
        asked.label_smoothing,
        0.0,
        "probabilities stay calibrated",
    );
    let (augmentation, views) = augmentation::settle(
        request,
        head_only,
        (frozen_epochs.min(n_epochs), samples),
        &mut autos,
    );
    let (alpha, why) = match task {
        Task::SingleLabelClassification => mixup(head_only, samples),
        Task::MultiLabelClassification => (0.0, "thresholds are chosen on whole labels"),
        Task::Regression => (0.0, "it mixes classes, not numbers"),
    };
    let mixup = autos.settle("hyperparameters.mixup", asked.mixup, alpha, why);
    let cutmix = autos.settle(
        "hyperparameters.cutmix",
        asked.cutmix,
        0.0,
        "pays off in long trainings only",
    );
    autos.settle(
        "hyperparameters.class_weights",
        asked.class_weights.clone(),
        ClassWeights::Rule(ClassWeightRule::None),
        "every sample counts alike",
    );
    let ema_decay = autos.settle(
        "hyperparameters.ema_decay",
        asked.ema_decay,
        EmaDecay::Off(EmaOff::None),
        "the best evaluation is chosen instead",
    );
    let (clip, why) = if head_only {
        (
            GradientClip::Off(ClipOff::None),
            "a head on fixed features needs none",
        )
    } else {
        (GradientClip::Norm(1.0), "usual for fine-tuning")
    };
    let gradient_clip = autos.settle(
        "hyperparameters.gradient_clip",
        asked.gradient_clip,
        clip,
        why,
    );
    let (norm, why) = batch_norm(has_batch_norm, head_only || adapts, init, batch_size);
    let batch_norm = autos.settle("hyperparameters.batch_norm", asked.batch_norm, norm, why);
    let precision = autos.settle(
        "hyperparameters.precision",
        asked.precision,
        Precision::Float32,
        "the same numbers on every device, and the faster ones where bfloat16 is not built in",
    );
    let patience = autos.settle(
        "early_stopping.patience",
        optional(stopping.patience),
        Some(10),
        "ten evaluations without a better one",
    );
    let metric = autos.settle(
        "early_stopping.metric",
        stopping.metric,
        match task {
            Task::SingleLabelClassification => Metric::ValidAccuracy,
            Task::MultiLabelClassification => Metric::ValidMeanAveragePrecision,
            Task::Regression => Metric::ValidRmse,
        },
        match task {
            Task::SingleLabelClassification => {
                "what a user of the model sees; ties go to the lower loss"
            }
            Task::MultiLabelClassification => "needs no thresholds, which are chosen afterwards",
            Task::Regression => "the error in the unit of the numbers",
        },
    );
    let evaluate_every = autos.settle(
        "evaluate_every",
        request.transfer.evaluate_every,
        EvaluateEvery::default(),
        "after each pass over the training split",
    );

    let recipe = Recipe {
        task,
        cut: form.cut.clone(),
        trainable: phases
            .pop()
            .map(|(_, trainable)| trainable)
            .unwrap_or_default(),
        later_phases: later
            .into_iter()
            .map(|(at_epoch, trainable)| FreezePhase {
                at_epoch: narrow(at_epoch),
                trainable,
            })
            .collect(),
        adapter: form.adapter.clone(),
        head: Head {
            layers: form.head.clone(),
            init,
        },
        inherited: form.inherited.clone(),
        n_epochs: narrow(n_epochs),
        batch_size: narrow(batch_size),
        accumulate: narrow(accumulate),
        optimizer,
        learning_rate: multiplier * learning_rate,
        backbone_learning_rate: multiplier * backbone_learning_rate,
        layer_decay,
        weight_decay,
        schedule,
        warmup_fraction,
        loss,
        label_smoothing,
        augmentation,
        augmented_views: narrow(views),
        mixup,
        cutmix,
        class_weights,
        gradient_clip: match gradient_clip {
            GradientClip::Off(ClipOff::None) => None,
            GradientClip::Norm(norm) => Some(norm),
        },
        ema_decay: match ema_decay {
            EmaDecay::Off(EmaOff::None) => None,
            EmaDecay::Decay(decay) => Some(decay),
        },
        batch_norm,
        precision,
        early_stopping: EarlyStopping {
            patience: patience.map(narrow),
            metric,
            min_delta: stopping.min_delta,
        },
        evaluate_every,
        checkpoint_every_seconds: narrow(request.transfer.checkpoint_every_seconds),
        seed,
    };
    (recipe, autos.0)
}

/// Where the new head begins.
fn head_init(task: Task, form: &Form) -> (HeadInit, &'static str) {
    match task {
        _ if form.keeps_head() => (
            HeadInit::Zero,
            "the head goes on; what it lacks begins at the mean of its rows, so that no prediction changes at first",
        ),
        _ if is_linear_head(&form.head) => (
            HeadInit::Probe,
            "the best linear head on fixed features: training begins there, and its result is no worse on the validation split",
        ),
        Task::SingleLabelClassification => (
            HeadInit::Zero,
            "the first loss is then ln(classes), whatever the features",
        ),
        Task::MultiLabelClassification => (
            HeadInit::Zero,
            "each label then begins at one chance in two",
        ),
        Task::Regression => (
            HeadInit::Zero,
            "training then begins at the mean of its numbers",
        ),
    }
}

/// The settled `"auto"`s, in the order they were settled.
#[derive(Default)]
pub(super) struct Autos(Vec<Resolved>);

impl Autos {
    pub(super) fn settle<T: Serialize>(
        &mut self,
        option: &str,
        asked: Auto<T>,
        default: T,
        reason: &str,
    ) -> T {
        match asked {
            Auto::Value(value) => value,
            Auto::Auto => {
                let (option, reason) = (option.to_owned(), reason.to_owned());
                self.0.push(Resolved {
                    option,
                    value: json!(default),
                    reason,
                });
                default
            }
        }
    }
}

/// For options whose default may be "none".
fn optional<T>(asked: Auto<T>) -> Auto<Option<T>> {
    match asked {
        Auto::Auto => Auto::Auto,
        Auto::Value(value) => Auto::Value(Some(value)),
    }
}

/// For numbers that `limits` keeps far below 2^32.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("a number within its limit fits 32 bits: this is a bug")
}
