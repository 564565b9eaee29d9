//! From what a user asks for to what the trainer does: every `auto` settled with a reason, everything checked against
//! the base model's layers and the data. Pure.

use serde::Serialize;
use serde_json::json;

use super::{
    base_model::Layers,
    class_weights, cut,
    file::Dataset,
    freeze, limits,
    problem::{Code, Problem, suggestion},
    recipe::{
        BatchNorm, EarlyStopping, FreezePhase, Head, HeadInit, HeadLayer, Metric, Optimizer,
        Recipe, Resolved, Schedule, Task, is_linear_head,
    },
    request::{Auto, CONTRADICTION, ClassWeightRule, ClassWeights, EmaDecay, EmaOff, JobRequest},
};

/// A split that a job needs holds no sample.
pub const EMPTY_SPLIT: Code = "empty_split";
/// A class of the validation file that the training file does not have.
pub const UNKNOWN_CLASS: Code = "unknown_class";
/// More samples in a batch than there are.
pub const BATCH_TOO_LARGE: Code = "batch_too_large";

/// A recipe and how its `"auto"`s were settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    pub recipe: Recipe,
    pub resolved: Vec<Resolved>,
}

/// Settles a request. `seed` is the request's, or one drawn for it.
///
/// # Errors
/// Everything in the request that this base model or these data cannot do.
pub fn resolve(
    request: &JobRequest,
    layers: &Layers,
    training: &Dataset,
    validation: Option<&Dataset>,
    seed: u64,
) -> Result<Resolution, Vec<Problem>> {
    let mut problems = data_problems(training, validation);
    let mut noted = |found: Vec<Problem>| problems.extend(found);
    let left = cut::left(&request.transfer.cut, layers);
    let phases = left.and_then(|left| freeze::phases(&request.transfer.freeze, layers, &left));
    let phases = phases.unwrap_or_else(|found| {
        noted(found);
        Vec::new()
    });
    let class_weights = class_weights::resolve(
        &request.transfer.hyperparameters.class_weights,
        training,
        validation.is_some(),
    );
    let class_weights = class_weights.unwrap_or_else(|found| {
        noted(found);
        None
    });
    let samples = training_samples(training, validation);
    let trunk_is_frozen = phases.iter().all(|(_, trainable)| trainable.is_empty());
    noted(contradictions(request, trunk_is_frozen, samples));
    noted(late_phases(request, &phases));
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(settle(request, phases, class_weights, samples, seed))
}

/// Samples that train: with a validation file of its own, the training file's validation split trains too.
fn training_samples(training: &Dataset, validation: Option<&Dataset>) -> u64 {
    training.splits.train + validation.map_or(0, |_| training.splits.validation)
}

fn data_problems(training: &Dataset, validation: Option<&Dataset>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if training_samples(training, validation) == 0 {
        problems.push(Problem::new(
            "training_file",
            EMPTY_SPLIT,
            "the training file has no sample to train on",
        ));
    }
    let Some(validation) = validation else {
        if training.splits.validation == 0 {
            let message = "the training file's validation split is empty; add samples, or give a validation_file";
            problems.push(Problem::new("training_file", EMPTY_SPLIT, message));
        }
        return problems;
    };
    let known = training.classes.iter().map(|class| class.name.as_str());
    for class in &validation.classes {
        if !known.clone().any(|name| name == class.name) {
            let message = format!(
                "the training file has no class `{}`; {}",
                class.name,
                suggestion(&class.name, known.clone())
            );
            problems.push(Problem::new("validation_file", UNKNOWN_CLASS, message));
        }
    }
    problems
}

/// Options that would silently do nothing.
fn contradictions(request: &JobRequest, trunk_is_frozen: bool, samples: u64) -> Vec<Problem> {
    let asked = &request.transfer.hyperparameters;
    let mut problems = Vec::new();
    let head = &request.transfer.head;
    if head.init == Auto::Value(HeadInit::Probe) && !is_linear_head(&head.layers) {
        let message = "a probe is one linear layer on the features; leave `init` out, or all head layers but dropout";
        problems.push(Problem::new(
            "method.transfer.head.init",
            CONTRADICTION,
            message,
        ));
    }
    let mut contradiction = |option: &str, code, message: String| {
        problems.push(Problem::new(
            format!("method.transfer.hyperparameters.{option}"),
            code,
            message,
        ));
    };
    let batch_size = match asked.batch_size {
        Auto::Value(batch_size) => batch_size,
        Auto::Auto => default_batch_size(samples),
    };
    if let Auto::Value(batch_size) = asked.batch_size
        && batch_size > samples
        && samples > 0
    {
        let message = format!(
            "batch_size is {batch_size}, but only {samples} samples train; give at most {samples}"
        );
        contradiction("batch_size", BATCH_TOO_LARGE, message);
    } else if let Auto::Value(accumulate) = asked.accumulate
        && samples > 0
    {
        let most = samples.div_ceil(batch_size);
        if accumulate > most {
            let message = format!(
                "accumulate is {accumulate}, but {samples} samples make only {most} batches of {batch_size}; give at most {most}"
            );
            contradiction("accumulate", BATCH_TOO_LARGE, message);
        }
    }
    if batch_size == 1 && request.transfer.head.layers.contains(&HeadLayer::BatchNorm) {
        let message = "a batch of one sample has no statistics for the head's batch_norm; give a batch_size of at least 2";
        contradiction("batch_size", CONTRADICTION, message.to_owned());
    }
    if asked.schedule == Auto::Value(Schedule::OneCycle)
        && matches!(asked.warmup_fraction, Auto::Value(share) if share > 0.0)
    {
        let message = "one_cycle has a warm-up of its own; leave warmup_fraction out or choose another schedule";
        contradiction("warmup_fraction", CONTRADICTION, message.to_owned());
    }
    if trunk_is_frozen && matches!(asked.layer_decay, Auto::Value(share) if share < 1.0) {
        let message = "layer_decay has no effect while the whole trunk is frozen; leave it out or freeze less";
        contradiction("layer_decay", CONTRADICTION, message.to_owned());
    }
    if trunk_is_frozen && asked.backbone_learning_rate != Auto::Auto {
        let message = "backbone_learning_rate has no effect while the whole trunk is frozen; leave it out or freeze less";
        contradiction("backbone_learning_rate", CONTRADICTION, message.to_owned());
    }
    if trunk_is_frozen && asked.batch_norm == Auto::Value(BatchNorm::Update) {
        let message = "a frozen trunk never updates BatchNorm; leave batch_norm out or freeze less";
        contradiction("batch_norm", CONTRADICTION, message.to_owned());
    }
    problems
}

fn settle(
    request: &JobRequest,
    mut phases: Vec<(u64, Vec<String>)>,
    class_weights: Option<Vec<f64>>,
    samples: u64,
    seed: u64,
) -> Resolution {
    let head_only = phases.iter().all(|(_, trainable)| trainable.is_empty());
    let last_phase = phases.last().map_or(0, |(at_epoch, _)| *at_epoch);
    let later = phases.split_off(phases.len().min(1));
    let asked = &request.transfer.hyperparameters;
    let stopping = &request.transfer.early_stopping;
    let mut autos = Autos::default();

    let task = autos.settle(
        "task",
        request.transfer.task,
        Task::SingleLabelClassification,
        "a folder per class",
    );
    let init = autos.settle(
        "head.init",
        request.transfer.head.init,
        HeadInit::Zero,
        "the first loss is then ln(classes), whatever the features",
    );
    let (epochs, why) = if last_phase > 0 {
        (
            default_epochs(last_phase),
            "at least 5 epochs after the last change of what is frozen",
        )
    } else if head_only {
        (30, "cached features make epochs cheap")
    } else {
        (10, "each epoch runs the trunk")
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
    let learning_rate = multiplier
        * autos.settle(
            "hyperparameters.learning_rate",
            asked.learning_rate,
            rate,
            why,
        );
    let backbone = multiplier
        * autos.settle(
            "hyperparameters.backbone_learning_rate",
            asked.backbone_learning_rate,
            rate / 10.0,
            "a tenth of the head's: pre-trained weights need small steps",
        );
    let layer_decay = autos.settle(
        "hyperparameters.layer_decay",
        asked.layer_decay,
        1.0,
        "one rate for the whole trunk",
    );
    let (decay, why) = if head_only {
        (0.0, "a head on frozen features is chosen by validation")
    } else {
        (0.01, "usual for fine-tuning with AdamW")
    };
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
            "keeps a new head's first gradients from upsetting the trunk",
        )
    };
    let warmup_fraction = autos.settle(
        "hyperparameters.warmup_fraction",
        asked.warmup_fraction,
        warmup,
        why,
    );
    let label_smoothing = autos.settle(
        "hyperparameters.label_smoothing",
        asked.label_smoothing,
        0.0,
        "probabilities stay calibrated",
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
        (None, "a linear head on fixed features needs none")
    } else {
        (Some(1.0), "usual for fine-tuning")
    };
    let gradient_clip = autos.settle(
        "hyperparameters.gradient_clip",
        optional(asked.gradient_clip),
        clip,
        why,
    );
    let (norm, why) = batch_norm(head_only, batch_size);
    let batch_norm = autos.settle("hyperparameters.batch_norm", asked.batch_norm, norm, why);
    let patience = autos.settle(
        "early_stopping.patience",
        optional(stopping.patience),
        Some(10),
        "ten evaluations without a better one",
    );
    let metric = autos.settle(
        "early_stopping.metric",
        stopping.metric,
        Metric::ValidAccuracy,
        "what a user of the model sees; ties go to the lower loss",
    );

    let recipe = Recipe {
        task,
        cut: request.transfer.cut.clone(),
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
        head: Head {
            layers: request.transfer.head.layers.clone(),
            init,
        },
        n_epochs: narrow(n_epochs),
        batch_size: narrow(batch_size),
        accumulate: narrow(accumulate),
        optimizer,
        learning_rate,
        backbone_learning_rate: if head_only { 0.0 } else { backbone },
        layer_decay,
        weight_decay,
        schedule,
        warmup_fraction,
        label_smoothing,
        class_weights,
        gradient_clip,
        ema_decay: match ema_decay {
            EmaDecay::Off(EmaOff::None) => None,
            EmaDecay::Decay(decay) => Some(decay),
        },
        batch_norm,
        early_stopping: EarlyStopping {
            patience: patience.map(narrow),
            metric,
            min_delta: stopping.min_delta,
        },
        checkpoint_every_seconds: narrow(request.transfer.checkpoint_every_seconds),
        seed,
    };
    Resolution {
        recipe,
        resolved: autos.0,
    }
}

/// A head's peak rate on features of unit order, measured on the clip-art set (docs/recipes.md).
fn head_rate(optimizer: Optimizer) -> (f64, &'static str) {
    match optimizer {
        Optimizer::Adamw => (1e-3, "measured best of 1e-4 to 1e-1 for AdamW"),
        Optimizer::Sgd | Optimizer::Nesterov => (1e-2, "measured best of 1e-4 to 1e-1 for SGD"),
    }
}

/// Phases of a freeze schedule that would begin when training is over.
fn late_phases(request: &JobRequest, phases: &[(u64, Vec<String>)]) -> Vec<Problem> {
    let last = phases.last().map_or(0, |(at_epoch, _)| *at_epoch);
    let n_epochs = match request.transfer.hyperparameters.n_epochs {
        Auto::Value(n_epochs) => n_epochs,
        Auto::Auto => default_epochs(last),
    };
    let message = format!(
        "the schedule's last entry begins at_epoch {last}, but there are only {n_epochs} epochs; give an n_epochs above {last}"
    );
    let problem = Problem::new("method.transfer.freeze", CONTRADICTION, message);
    Vec::from_iter((last > 0 && last >= n_epochs).then_some(problem))
}

/// With a freeze schedule whose last entry begins then.
fn default_epochs(last_phase: u64) -> u64 {
    (last_phase + 5).clamp(10, *limits::EPOCHS.end())
}

fn default_batch_size(samples: u64) -> u64 {
    samples.clamp(1, 32)
}

fn batch_norm(head_only: bool, batch_size: u64) -> (BatchNorm, &'static str) {
    match (head_only, batch_size) {
        (true, _) => (BatchNorm::Frozen, "the whole trunk is frozen"),
        (false, 16..) => (
            BatchNorm::Update,
            "a batch of 16 or more has usable statistics",
        ),
        (false, _) => (
            BatchNorm::Frozen,
            "fewer than 16 samples a batch have no usable statistics",
        ),
    }
}

/// The settled `"auto"`s, in the order they were settled.
#[derive(Default)]
struct Autos(Vec<Resolved>);

impl Autos {
    fn settle<T: Serialize>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        file::{Class, SplitSizes},
        freeze::tests::layers,
        request::parse,
    };

    fn dataset(classes: &[&str], train: u64, validation: u64) -> Dataset {
        let class = |name: &&str| Class {
            name: (*name).to_owned(),
            train,
            validation,
            test: 0,
        };
        let n = classes.len() as u64;
        Dataset {
            modality: "image".into(),
            task: "single_label_classification".into(),
            classes: classes.iter().map(class).collect(),
            samples: n * (train + validation),
            splits: SplitSizes {
                train: n * train,
                validation: n * validation,
                test: 0,
            },
            split_by: "hash".into(),
            unusable: 0,
            duplicates: 0,
        }
    }

    fn request(transfer: serde_json::Value) -> JobRequest {
        let file = crate::id::FileId::new();
        parse(&json!({"model": "m", "training_file": file, "method": {"type": "transfer", "transfer": transfer}})).unwrap()
    }

    #[test]
    fn every_auto_is_settled_with_a_reason_and_nothing_else_is() {
        let asked = request(
            json!({"hyperparameters": {"n_epochs": 3, "learning_rate": 0.5, "learning_rate_multiplier": 2}}),
        );
        let resolution =
            resolve(&asked, &layers(), &dataset(&["a", "b"], 40, 10), None, 7).unwrap();
        assert_eq!(resolution.recipe.n_epochs, 3);
        assert_eq!(resolution.recipe.learning_rate, 1.0);
        assert_eq!(resolution.recipe.seed, 7);
        let options: Vec<&str> = resolution
            .resolved
            .iter()
            .map(|resolved| resolved.option.as_str())
            .collect();
        assert!(
            options.contains(&"hyperparameters.batch_size")
                && !options.contains(&"hyperparameters.n_epochs")
        );
        assert!(
            resolution
                .resolved
                .iter()
                .all(|resolved| !resolved.reason.is_empty())
        );
    }

    #[test]
    fn all_that_cannot_be_done_is_said_at_once() {
        let asked = request(
            json!({"freeze": {"blocks": ["layr1"]}, "hyperparameters": {"batch_size": 81}}),
        );
        let problems =
            resolve(&asked, &layers(), &dataset(&["a", "b"], 40, 0), None, 7).unwrap_err();
        let codes: Vec<&str> = problems
            .iter()
            .map(|problem| problem.code.as_str())
            .collect();
        assert_eq!(codes, [EMPTY_SPLIT, freeze::UNKNOWN_LAYER, BATCH_TOO_LARGE]);
    }

    #[test]
    fn a_batch_may_hold_all_samples_but_not_one_more() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked = |n: u64| request(json!({"hyperparameters": {"batch_size": n}}));
        assert!(resolve(&asked(80), &layers(), &data, None, 7).is_ok());
        assert!(resolve(&asked(81), &layers(), &data, None, 7).is_err());
        // A validation file of its own frees the training file's validation split to train.
        assert!(resolve(&asked(81), &layers(), &data, Some(&data), 7).is_ok());
    }

    #[test]
    fn a_probe_starts_a_linear_head_only() {
        let data = dataset(&["a", "b"], 40, 10);
        for (head, fits) in [
            (json!([{"dropout": 0.2}]), true),
            (json!([{"linear": 8}]), false),
        ] {
            let asked = request(json!({"head": {"layers": head, "init": "probe"}}));
            let problems = resolve(&asked, &layers(), &data, None, 7)
                .err()
                .unwrap_or_default();
            assert_eq!(problems.is_empty(), fits, "{problems:?}");
        }
    }

    #[test]
    fn options_without_effect_are_refused() {
        let data = dataset(&["a", "b"], 40, 10);
        for option in [
            json!({"backbone_learning_rate": 1e-4}),
            json!({"batch_norm": "update"}),
        ] {
            let frozen = request(json!({"hyperparameters": option}));
            assert_eq!(
                resolve(&frozen, &layers(), &data, None, 7).unwrap_err()[0].code,
                CONTRADICTION
            );
            let thawed = request(json!({"freeze": "none", "hyperparameters": option}));
            assert!(resolve(&thawed, &layers(), &data, None, 7).is_ok());
        }
    }

    #[test]
    fn accumulation_takes_no_more_batches_than_there_are() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked =
            |n: u64| request(json!({"hyperparameters": {"batch_size": 16, "accumulate": n}}));
        let most = resolve(&asked(5), &layers(), &data, None, 7).unwrap();
        assert_eq!(most.recipe.accumulate, 5);
        let problems = resolve(&asked(6), &layers(), &data, None, 7).unwrap_err();
        assert_eq!(problems[0].code, BATCH_TOO_LARGE);
    }

    #[test]
    fn a_freeze_schedule_becomes_phases_that_begin_before_the_end() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked = |n_epochs: serde_json::Value, block: &str| {
            let schedule = json!([{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": {"blocks": [block]}}]);
            let transfer = json!({"freeze": {"schedule": schedule}, "hyperparameters": {"n_epochs": n_epochs, "layer_decay": 0.5}});
            resolve(&request(transfer), &layers(), &data, None, 7)
        };
        let recipe = asked(json!(4), "stem").unwrap().recipe;
        assert!(recipe.trainable.is_empty() && recipe.backbone_learning_rate > 0.0);
        assert_eq!(recipe.later_phases[0].at_epoch, 3);
        assert_eq!(recipe.later_phases[0].trainable.len(), 4);
        let phases: Vec<usize> = (1..=5).map(|epoch| recipe.phase_of(epoch)).collect();
        assert_eq!(phases, [0, 0, 0, 1, 1]);
        assert_eq!(asked(json!("auto"), "stem").unwrap().recipe.n_epochs, 10);
        assert_eq!(asked(json!(3), "stem").unwrap_err()[0].code, CONTRADICTION);
        assert_eq!(
            asked(json!(4), "stemm").unwrap_err()[0].code,
            freeze::UNKNOWN_LAYER
        );
    }

    #[test]
    fn a_batch_of_one_has_no_statistics() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked = |n: u64| {
            request(
                json!({"head": {"layers": [{"batch_norm": true}]}, "hyperparameters": {"batch_size": n}}),
            )
        };
        assert!(resolve(&asked(2), &layers(), &data, None, 7).is_ok());
        let problems = resolve(&asked(1), &layers(), &data, None, 7).unwrap_err();
        assert_eq!(problems[0].code, CONTRADICTION);
    }

    #[test]
    fn one_cycle_warms_up_by_itself() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked = |warmup: serde_json::Value| {
            request(
                json!({"freeze": "none", "hyperparameters": {"schedule": "one_cycle", "warmup_fraction": warmup}}),
            )
        };
        let settled = resolve(&asked(json!("auto")), &layers(), &data, None, 7).unwrap();
        assert_eq!(settled.recipe.warmup_fraction, 0.0);
        let problems = resolve(&asked(json!(0.1)), &layers(), &data, None, 7).unwrap_err();
        assert_eq!(problems[0].code, CONTRADICTION);
    }

    #[test]
    fn what_is_cut_away_neither_trains_nor_counts() {
        let data = dataset(&["a", "b"], 40, 10);
        let settled =
            |transfer: serde_json::Value| resolve(&request(transfer), &layers(), &data, None, 7);
        let recipe = settled(json!({"cut": "layer1", "freeze": {"last_stages": 1}}))
            .unwrap()
            .recipe;
        assert_eq!(recipe.cut, "layer1");
        assert_eq!(
            recipe.trainable,
            ["layer1.0.conv.weight", "layer1.1.conv.weight"]
        );
        for (transfer, words) in [
            (json!({"cut": "layr1"}), "did you mean `layer1`"),
            (
                json!({"cut": "layer1", "freeze": {"last_stages": 3}}),
                "has 2 stages",
            ),
            (
                json!({"cut": "layer1", "freeze": {"blocks": ["layer2"]}}),
                "is cut away",
            ),
            (
                json!({"cut": "layer1", "freeze": {"names": ["layer2.0.conv.weight"]}}),
                "is cut away",
            ),
            (
                json!({"cut": "layer1", "freeze": {"regex": "^layer2"}}),
                "is cut away",
            ),
        ] {
            let problems = settled(transfer.clone()).unwrap_err();
            assert!(
                problems.len() == 1 && problems[0].message.contains(words),
                "{transfer}: {problems:?}"
            );
        }
    }

    #[test]
    fn options_without_effect_on_a_frozen_trunk_say_so() {
        let data = dataset(&["a", "b"], 40, 10);
        let asked = |share: f64| request(json!({"hyperparameters": {"layer_decay": share}}));
        assert!(resolve(&asked(1.0), &layers(), &data, None, 7).is_ok());
        assert!(resolve(&asked(0.9), &layers(), &data, None, 7).is_err());
    }

    #[test]
    fn a_validation_file_has_no_classes_of_its_own() {
        let problems = resolve(
            &request(json!({})),
            &layers(),
            &dataset(&["cats", "dogs"], 40, 10),
            Some(&dataset(&["cats", "dog"], 40, 10)),
            7,
        );
        assert!(
            problems.unwrap_err()[0]
                .message
                .contains("did you mean `dogs`?")
        );
    }
}
