//! Every option of a request at its limits, and one past them.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{tests::body, *};
use crate::{
    recipe::{Loss, Schedule},
    words::Words as _,
};

/// Values that an option accepts, and values that it refuses.
struct Case {
    path: String,
    good: Vec<Value>,
    bad: Vec<Value>,
}

impl Case {
    fn of(path: &str, good: Vec<Value>, bad: Vec<Value>) -> Self {
        Self {
            path: path.to_owned(),
            good,
            bad,
        }
    }

    fn also(mut self, good: Value) -> Self {
        self.good.push(good);
        self
    }

    /// The same option as one entry of an object, such as `{"linear": …}`.
    fn wrapped(mut self, wrap: impl Fn(&Value) -> Value) -> Self {
        self.good = self.good.iter().map(&wrap).collect();
        self.bad = self.bad.iter().map(&wrap).collect();
        self
    }
}

fn whole(path: &str, range: RangeInclusive<u64>) -> Case {
    let (least, most) = (*range.start(), *range.end());
    let below = least.checked_sub(1).map_or(json!(-1), |one| json!(one));
    let good = vec![json!(least), json!(most)];
    Case::of(
        path,
        good,
        vec![below, json!(most + 1), json!(1.5), json!("1")],
    )
}

fn real(path: &str, range: RangeInclusive<f64>) -> Case {
    let (least, most) = (*range.start(), *range.end());
    let bad = vec![json!(least.next_down()), json!(most.next_up()), json!("1")];
    Case::of(path, vec![json!(least), json!(most)], bad)
}

/// From 0 to 1, one or both of which are not allowed themselves.
fn share(path: &str, zero: bool, one: bool) -> Case {
    let mut case = Case::of(
        path,
        vec![json!(f64::MIN_POSITIVE), json!(1.0_f64.next_down())],
        vec![json!(0.0_f64.next_down()), json!(1.0_f64.next_up())],
    );
    let mut edge = |value, allowed| match allowed {
        true => case.good.push(value),
        false => case.bad.push(value),
    };
    edge(json!(0), zero);
    edge(json!(1), one);
    case
}

fn words(path: &str, words: &[&str]) -> Case {
    let good = words.iter().map(|word| json!(word)).collect();
    Case::of(path, good, vec![json!(format!("{}s", words[0])), json!(1)])
}

fn texts(path: &str, characters: usize) -> Case {
    let long = |n: usize| json!("x".repeat(n));
    Case::of(
        path,
        vec![long(1), long(characters)],
        vec![long(characters + 1), json!(1)],
    )
}

/// Lists of so many entries like `one`.
fn lists(path: &str, range: RangeInclusive<usize>, one: impl Fn(usize) -> Value) -> Case {
    let many = |n: usize| Value::Array((0..n).map(&one).collect());
    let (least, most) = (*range.start(), *range.end());
    let below = least.checked_sub(1).map(many);
    let mut bad = vec![many(most + 1), json!(1)];
    bad.extend(below);
    Case::of(path, vec![many(least), many(most)], bad)
}

fn entries(n: usize) -> Value {
    (0..n)
        .map(|i| (i.to_string(), json!("")))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn job() -> Vec<Case> {
    let word = |n: usize| "x".repeat(n);
    let (key, value) = (
        limits::METADATA_KEY_CHARACTERS,
        limits::METADATA_VALUE_CHARACTERS,
    );
    let most = limits::METADATA_ENTRIES;
    let file = || json!(FileId::new());
    vec![
        texts("model", limits::MODEL_NAME_CHARACTERS),
        Case::of(
            "training_file",
            vec![file()],
            vec![json!("file-1"), json!(1)],
        ),
        Case::of(
            "validation_file",
            vec![file()],
            vec![json!("file-1"), json!(1)],
        ),
        Case {
            bad: vec![
                json!(""),
                json!("a b"),
                json!(word(limits::SUFFIX_CHARACTERS + 1)),
            ],
            ..texts("suffix", limits::SUFFIX_CHARACTERS)
        },
        Case::of(
            "seed",
            vec![json!(0), json!(i64::MAX)],
            vec![json!(-1), json!(1_u64 << 63)],
        ),
        Case::of(
            "metadata",
            vec![entries(0), entries(most), json!({ word(key): word(value) })],
            vec![
                entries(most + 1),
                json!({ word(key + 1): "" }),
                json!({ "a": word(value + 1) }),
                json!({ "a": "nul \u{0}" }),
                json!({ "a": 1 }),
            ],
        ),
        whole("priority", 0..=4),
        whole("timeout_seconds", limits::TIMEOUT_SECONDS),
    ]
}

fn transfer() -> Vec<Case> {
    let freeze = |name: &'static str| move |value: &Value| json!({ name: value });
    let layer = |name: &'static str| move |value: &Value| json!([{ name: value }]);
    let target = |name: &'static str| move |value: &Value| json!({"type": "lora", name: value});
    let lora = |case: Case| {
        let name = case.path.clone().leak();
        let case = case.wrapped(target(name));
        // A number of the wrong type is named by its own path; what is past a limit, too.
        Case {
            path: format!("adapter.{name}"),
            ..case
        }
    };
    let name = |i: usize| json!(format!("layer{i}"));
    let schedule = |i: usize| json!({"at_epoch": i, "freeze": "all"});
    let last = limits::EPOCHS.end() - 1;
    let metrics = [
        "valid_loss",
        "valid_accuracy",
        "valid_balanced_accuracy",
        "valid_macro_f1",
        "valid_micro_f1",
        "valid_mean_average_precision",
        "valid_roc_auc",
        "valid_r2",
        "valid_mae",
        "valid_rmse",
    ];
    vec![
        words(
            "task",
            &[
                "single_label_classification",
                "multi_label_classification",
                "regression",
                "auto",
            ],
        ),
        texts("cut", limits::STAGE_CHARACTERS),
        words("freeze", &["all", "none", "auto"]),
        whole("freeze", 1..=1_000).wrapped(freeze("all_but_last_stages")),
        whole("freeze", 1..=1_000).wrapped(freeze("first_n")),
        share("freeze", true, true).wrapped(freeze("fraction")),
        lists("freeze", 1..=limits::FREEZE_NAMES, name).wrapped(freeze("blocks")),
        lists("freeze", 1..=limits::FREEZE_NAMES, name).wrapped(freeze("names")),
        texts("freeze", limits::REGEX_CHARACTERS).wrapped(freeze("regex")),
        lists("freeze", 1..=limits::FREEZE_PHASES, schedule).wrapped(freeze("schedule")),
        whole("freeze", 1..=last).wrapped(|epoch| {
            let later = json!({"at_epoch": epoch, "freeze": "none"});
            json!({"schedule": [{"at_epoch": 0, "freeze": "all"}, later]})
        }),
        lora(words("type", &["lora"])),
        lora(whole("rank", limits::ADAPTER_RANK)),
        lora(real("alpha", limits::ADAPTER_ALPHA)),
        lora(share("dropout", true, false)),
        lora(lists("targets", 1..=limits::ADAPTER_TARGETS, name).also(json!("all_linear"))),
        lora(texts("targets", limits::REGEX_CHARACTERS).wrapped(|one| json!({"regex": one}))),
        lists("head.layers", 0..=limits::HEAD_LAYERS, |_| json!("relu")).also(json!("auto")),
        whole("head.layers", limits::HEAD_WIDTH).wrapped(layer("linear")),
        share("head.layers", true, false).wrapped(layer("dropout")),
        words("head.init", &["zero", "normal", "probe", "auto"]),
        words("labels", &["keep", "extend", "replace", "auto"]),
        whole("early_stopping.patience", limits::PATIENCE).also(json!("auto")),
        words("early_stopping.metric", &metrics).also(json!("auto")),
        real("early_stopping.min_delta", 0.0..=1e6),
        whole("evaluate_every", limits::EPOCHS).wrapped(|epochs| json!({"epochs": epochs})),
        whole("evaluate_every", limits::EVALUATION_STEPS).wrapped(|steps| json!({"steps": steps})),
        whole("checkpoint_every_seconds", limits::CHECKPOINT_SECONDS),
    ]
}

fn augmentation() -> Vec<Case> {
    let bounds = |path, range: RangeInclusive<f64>| {
        let (least, most) = (*range.start(), *range.end());
        let good = vec![json!([least, most]), json!([least, least])];
        let outside = [
            json!([least.next_down(), most]),
            json!([least, most.next_up()]),
        ];
        let [low, high] = outside;
        Case::of(
            path,
            good,
            vec![low, high, json!([most, least]), json!([least]), json!(1)],
        )
    };
    vec![
        words("augmentation", &["none", "auto"]),
        Case::of(
            "augmentation.random_resized_crop",
            vec![json!({})],
            vec![json!(1)],
        ),
        bounds("augmentation.random_resized_crop.scale", limits::CROP_SCALE),
        bounds(
            "augmentation.random_resized_crop.aspect_ratio",
            limits::CROP_ASPECT_RATIO,
        ),
        share("augmentation.horizontal_flip", true, true),
        share("augmentation.random_erasing", true, true),
        real("augmentation.color_jitter.brightness", limits::COLOR_FACTOR),
        real("augmentation.color_jitter.contrast", limits::COLOR_FACTOR),
        real("augmentation.color_jitter.saturation", limits::COLOR_FACTOR),
        real("augmentation.color_jitter.hue", limits::HUE),
        whole("augmentation.rand_augment.n_ops", limits::RAND_AUGMENT_OPS),
        whole(
            "augmentation.rand_augment.magnitude",
            limits::RAND_AUGMENT_MAGNITUDE,
        ),
        whole("augmentation.views", limits::VIEWS),
    ]
}

fn hyperparameters() -> Vec<Case> {
    let given = |weight: f64| json!({ "cats": weight });
    let classes = |n| {
        (0..n)
            .map(|i| (i.to_string(), json!(1)))
            .collect::<serde_json::Map<_, _>>()
    };
    let (light, heavy) = (*limits::CLASS_WEIGHT.start(), *limits::CLASS_WEIGHT.end());
    vec![
        whole("n_epochs", limits::EPOCHS),
        whole("batch_size", limits::BATCH_SIZE),
        real("learning_rate", limits::LEARNING_RATE),
        real("backbone_learning_rate", limits::LEARNING_RATE),
        real("learning_rate_multiplier", 1e-4..=1e4),
        words("optimizer", &["sgd", "nesterov", "adamw"]),
        real("weight_decay", limits::WEIGHT_DECAY),
        words("schedule", Schedule::WORDS),
        share("warmup_fraction", true, true),
        share("layer_decay", false, true),
        whole("accumulate", limits::ACCUMULATE),
        whole("shards", limits::SHARDS),
        words("loss", Loss::WORDS),
        share("label_smoothing", true, false),
        real("mixup", limits::MIX_ALPHA),
        real("cutmix", limits::MIX_ALPHA),
        Case::of(
            "class_weights",
            vec![
                json!("none"),
                json!("balanced"),
                given(light),
                given(heavy),
                classes(limits::CLASSES).into(),
            ],
            vec![
                given(light.next_down()),
                given(heavy.next_up()),
                json!({}),
                classes(limits::CLASSES + 1).into(),
                json!("equal"),
                json!(2),
            ],
        ),
        real("gradient_clip", limits::GRADIENT_CLIP).also(json!("none")),
        share("ema_decay", false, false).also(json!("none")),
        words("batch_norm", &["frozen", "update"]),
        words("precision", &["float32", "bfloat16"]),
        words("features_precision", &["float32", "bfloat16"]),
    ]
    .into_iter()
    .map(|case| case.also(json!("auto")))
    .collect()
}

fn candidates() -> Vec<Case> {
    let list = |path: &str| {
        let names = |count: usize| json!(vec!["a"; count]);
        Case::of(
            path,
            vec![names(1), names(limits::CANDIDATES)],
            vec![names(0), names(limits::CANDIDATES + 1), json!("a")],
        )
    };
    vec![
        list("models"),
        list("architectures"),
        list("licenses"),
        whole("max_parameters", limits::MODEL_PARAMETERS),
        whole("max_macs", limits::MODEL_MACS),
    ]
}

fn all() -> Vec<Case> {
    let under = |prefix: &'static str| {
        move |case: Case| Case {
            path: format!("{prefix}{}", case.path),
            ..case
        }
    };
    let transfer = transfer().into_iter().chain(augmentation());
    let hyperparameters = hyperparameters().into_iter();
    let transfer = transfer.chain(hyperparameters.map(under("hyperparameters.")));
    job()
        .into_iter()
        .chain(candidates().into_iter().map(under("candidates.")))
        .chain(transfer.map(under("method.transfer.")))
        .collect()
}

/// A request with this one option.
fn request(path: &str, value: &Value) -> Value {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let mut names: Vec<&str> = rest.split('.').filter(|name| !name.is_empty()).collect();
    names.reverse();
    let nested = names
        .iter()
        .fold(value.clone(), |inner, name| json!({ *name: inner }));
    let mut request = body(json!({ first: nested }));
    if first == "candidates" {
        request["model"] = json!(AUTO);
    }
    if first == "method" {
        request["method"]["type"] = json!("transfer");
    }
    request
}

#[test]
fn every_option_holds_at_its_limits_and_not_one_past_them() {
    for case in all() {
        // An adapter's options stand beside its type.
        let place = case
            .path
            .find(".adapter.")
            .map_or(case.path.as_str(), |at| &case.path[..at + 8]);
        for good in &case.good {
            let found = parse(&request(place, good));
            assert!(found.is_ok(), "{}: {good}: {found:?}", case.path);
        }
        for bad in &case.bad {
            let problems = parse(&request(place, bad)).expect_err(&format!("{}: {bad}", case.path));
            let paths: Vec<&str> = problems.iter().map(|one| one.path.as_str()).collect();
            assert_eq!(paths, [case.path.as_str()], "{bad}: {problems:?}");
        }
    }
}

/// An option that nobody tries would fail here.
#[test]
fn every_option_has_a_test_of_its_limits() {
    let tried: BTreeSet<String> = all().into_iter().map(|case| case.path).collect();
    let tried = |path: &str| {
        let inside = format!("{path}.");
        tried
            .iter()
            .any(|one| one == path || one.starts_with(&inside))
    };
    let request = serde_json::to_value(parse(&body(json!({}))).unwrap()).unwrap();
    let names =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut missing: Vec<String> = names(&request);
    missing.retain(|name| name != "transfer");
    let transfer = &request["transfer"];
    missing.extend(
        names(transfer)
            .iter()
            .map(|name| format!("method.transfer.{name}")),
    );
    for group in ["hyperparameters", "head", "early_stopping"] {
        let under = |name: &String| format!("method.transfer.{group}.{name}");
        missing.extend(names(&transfer[group]).iter().map(under));
    }
    let all = missing.len();
    missing.retain(|path| !tried(path));
    assert!(
        all > 35 && missing.is_empty(),
        "{all} options, not tried: {missing:?}; add a case to this file"
    );
}
