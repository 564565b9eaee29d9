use serde_json::json;

use super::*;
use crate::{
    file::{Class, SplitSizes},
    freeze::tests::layers,
    recipe::{BatchNorm, HeadInit, Task},
    request::{CONTRADICTION, parse},
};

pub(super) fn dataset(classes: &[&str], train: u64, validation: u64) -> Dataset {
    let class = |name: &&str| Class {
        name: (*name).to_owned(),
        train,
        validation,
        test: 0,
    };
    let n = classes.len() as u64;
    Dataset {
        modality: "image".into(),
        task: Task::SingleLabelClassification,
        target: None,
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

/// Training starts from the base model.
pub(super) fn base(layers: &Layers) -> Start<'_> {
    Start {
        layers,
        parent: None,
    }
}

pub(super) fn request(transfer: serde_json::Value) -> JobRequest {
    let file = crate::id::FileId::new();
    parse(&json!({"model": "m", "training_file": file, "method": {"type": "transfer", "transfer": transfer}})).unwrap()
}

#[test]
fn every_auto_is_settled_with_a_reason_and_nothing_else_is() {
    let asked = request(
        json!({"hyperparameters": {"n_epochs": 3, "learning_rate": 0.5, "learning_rate_multiplier": 2}}),
    );
    let resolution = resolve(
        &asked,
        base(&layers()),
        &dataset(&["a", "b"], 40, 10),
        None,
        7,
    )
    .unwrap();
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

/// A settled option's value and its reason.
fn settled_as(transfer: serde_json::Value, option: &str) -> (serde_json::Value, String) {
    let data = dataset(&["a", "b"], 40, 10);
    let resolution = resolve(&request(transfer), base(&layers()), &data, None, 7).unwrap();
    let mut resolved = resolution.resolved.into_iter();
    let one = resolved.find(|one| one.option == format!("hyperparameters.{option}"));
    one.map(|one| (one.value, one.reason)).unwrap()
}

#[test]
fn the_trunks_rate_follows_the_heads_that_is_chosen() {
    for (optimizer, rate, share) in [
        ("adamw", 1e-5, 2.0),
        ("adamw", 0.5, 2.0),
        ("sgd", 0.5, 10.0),
    ] {
        let transfer = json!({"freeze": "none", "hyperparameters": {
            "optimizer": optimizer, "learning_rate": rate, "learning_rate_multiplier": 4}});
        let (settled, _) = settled_as(transfer.clone(), "backbone_learning_rate");
        assert_eq!(settled, json!(rate / share), "{optimizer}");
        let data = dataset(&["a", "b"], 40, 10);
        let recipe = resolve(&request(transfer), base(&layers()), &data, None, 7)
            .unwrap()
            .recipe;
        assert_eq!(recipe.learning_rate, 4.0 * rate);
        assert_eq!(recipe.backbone_learning_rate, 4.0 * (rate / share));
    }
}

#[test]
fn a_frozen_trunk_has_no_rate() {
    let frozen = json!({"freeze": "all"});
    let (rate, why) = settled_as(frozen, "backbone_learning_rate");
    assert_eq!(
        (rate, why.as_str()),
        (json!(0.0), "the whole trunk is frozen")
    );
}

#[test]
fn weights_decay_under_adamw_and_not_under_sgd() {
    for (optimizer, decay, words) in [
        ("adamw", 0.01, "AdamW"),
        ("sgd", 0.0, "SGD"),
        ("nesterov", 0.0, "SGD"),
    ] {
        let transfer = json!({"freeze": "none", "hyperparameters": {"optimizer": optimizer}});
        let (settled, why) = settled_as(transfer, "weight_decay");
        assert_eq!(settled, json!(decay), "{optimizer}");
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn reasons_are_true_of_the_task() {
    let reason = |data: &Dataset, start: Start<'_>, option: &str| {
        let resolution = resolve(&request(json!({})), start, data, None, 7).unwrap();
        let mut resolved = resolution.resolved.into_iter();
        resolved.find(|one| one.option == option).unwrap().reason
    };
    let layers = layers();
    for (samples, words) in [
        (99, "fewer than 100 samples:"),
        (100, "100 samples or more:"),
    ] {
        let mut numbers = dataset(&[], 0, 0);
        numbers.task = Task::Regression;
        (numbers.splits.train, numbers.splits.validation) = (samples, 10);
        let why = reason(&numbers, base(&layers), "freeze");
        assert!(why.starts_with(words), "{why}");
    }
    let mut several = dataset(&["food", "plants"], 40, 10);
    several.task = Task::MultiLabelClassification;
    let parent = Parent {
        task: several.task,
        ..parent()
    };
    let start = Start {
        parent: Some(&parent),
        ..base(&layers)
    };
    let why = reason(&several, start, "head.init");
    assert!(why.starts_with("the head goes on"), "{why}");
}

#[test]
fn all_that_cannot_be_done_is_said_at_once() {
    let asked =
        request(json!({"freeze": {"blocks": ["layr1"]}, "hyperparameters": {"batch_size": 81}}));
    let problems = resolve(
        &asked,
        base(&layers()),
        &dataset(&["a", "b"], 40, 0),
        None,
        7,
    )
    .unwrap_err();
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
    assert!(resolve(&asked(80), base(&layers()), &data, None, 7).is_ok());
    assert!(resolve(&asked(81), base(&layers()), &data, None, 7).is_err());
    // A validation file of its own frees the training file's validation split to train.
    assert!(resolve(&asked(81), base(&layers()), &data, Some(&data), 7).is_ok());
}

#[test]
fn a_probe_starts_a_linear_head_only() {
    let data = dataset(&["a", "b"], 40, 10);
    for (head, fits) in [
        (json!([{"dropout": 0.2}]), true),
        (json!([{"linear": 8}]), false),
    ] {
        let asked = request(json!({"head": {"layers": head, "init": "probe"}}));
        let problems = resolve(&asked, base(&layers()), &data, None, 7)
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
        json!({"precision": "bfloat16"}),
        json!({"cutmix": 1.0}),
    ] {
        let frozen = request(json!({"freeze": "all", "hyperparameters": option}));
        assert_eq!(
            resolve(&frozen, base(&layers()), &data, None, 7).unwrap_err()[0].code,
            CONTRADICTION
        );
        let thawed = request(json!({"freeze": "none", "hyperparameters": option}));
        assert!(resolve(&thawed, base(&layers()), &data, None, 7).is_ok());
        // Who says how the trunk trains wants it to train, however few samples there are.
        let implied = request(json!({"hyperparameters": option}));
        let few = dataset(&["a", "b"], 16, 10);
        let recipe = resolve(&implied, base(&layers()), &few, None, 7)
            .unwrap()
            .recipe;
        assert!(!recipe.trainable.is_empty());
    }
}

#[test]
fn a_network_without_batch_norm_updates_none() {
    let data = dataset(&["a", "b"], 40, 10);
    let mut layers = layers();
    let update =
        |freeze: &str| json!({"freeze": freeze, "hyperparameters": {"batch_norm": "update"}});
    assert!(resolve(&request(update("none")), base(&layers), &data, None, 7).is_ok());
    layers.tensors.retain(|tensor| tensor.trainable);
    for freeze in ["none", "all"] {
        let problems =
            resolve(&request(update(freeze)), base(&layers), &data, None, 7).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].code, CONTRADICTION);
        assert!(problems[0].message.contains("no BatchNorm"), "{problems:?}");
    }
    // Nor does it where that is left to us, and says why.
    let zero = request(json!({"freeze": "none", "head": {"init": "zero"}}));
    let resolution = resolve(&zero, base(&layers), &data, None, 7).unwrap();
    assert_eq!(resolution.recipe.batch_norm, BatchNorm::Frozen);
    let mut resolved = resolution.resolved.into_iter();
    let norm = resolved.find(|one| one.option == "hyperparameters.batch_norm");
    assert_eq!(norm.unwrap().reason, "the network has no BatchNorm");
}

#[test]
fn grey_pictures_have_no_colour_to_move() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |channels: u32, jitter: serde_json::Value| {
        let mut layers = layers();
        layers.tensors[0].shape = vec![8, channels, 3, 3];
        let transfer = json!({"freeze": "none", "augmentation": {"color_jitter": jitter}});
        let settled = resolve(&request(transfer), base(&layers), &data, None, 7);
        let problems = settled.err().unwrap_or_default();
        let paths = problems.into_iter().map(|one| (one.path, one.code));
        paths.collect::<Vec<_>>()
    };
    let colours = json!({"brightness": 0.2, "saturation": 0.2, "hue": 0.1});
    let path = |option| format!("method.transfer.augmentation.color_jitter.{option}");
    let refused = |option| (path(option), CONTRADICTION.to_owned());
    assert_eq!(
        asked(1, colours.clone()),
        ["saturation", "hue"].map(refused)
    );
    assert_eq!(asked(1, json!({"brightness": 0.2, "hue": 0.0})), []);
    for channels in [3, 4] {
        assert_eq!(asked(channels, colours.clone()), []);
    }
}

#[test]
fn the_number_of_samples_decides_what_trains() {
    let settled = |samples: u64| {
        let data = dataset(&["a", "b", "c"], samples, 10);
        let resolution = resolve(&request(json!({})), base(&layers()), &data, None, 7).unwrap();
        let freeze = resolution
            .resolved
            .into_iter()
            .find(|one| one.option == "freeze");
        (freeze.unwrap().value, resolution.recipe)
    };
    let (freeze, recipe) = settled(9);
    assert_eq!(freeze, json!("all"));
    assert!(recipe.trainable.is_empty());
    let (freeze, recipe) = settled(10);
    assert_eq!(freeze, json!("none"));
    assert!(!recipe.trainable.is_empty());
    // The head starts at the probe either way.
    assert_eq!(recipe.head.init, HeadInit::Probe);
}

#[test]
fn a_head_that_cannot_be_a_probe_begins_at_zero() {
    let data = dataset(&["a", "b"], 40, 10);
    let init = |layers_asked: serde_json::Value| {
        let asked = request(json!({"head": {"layers": layers_asked}}));
        resolve(&asked, base(&layers()), &data, None, 7)
            .unwrap()
            .recipe
            .head
            .init
    };
    assert_eq!(init(json!([{"dropout": 0.5}])), HeadInit::Probe);
    assert_eq!(init(json!([{"linear": 8}, {"relu": true}])), HeadInit::Zero);
}

#[test]
fn accumulation_takes_no_more_batches_than_there_are() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n: u64| request(json!({"hyperparameters": {"batch_size": 16, "accumulate": n}}));
    let most = resolve(&asked(5), base(&layers()), &data, None, 7).unwrap();
    assert_eq!(most.recipe.accumulate, 5);
    let problems = resolve(&asked(6), base(&layers()), &data, None, 7).unwrap_err();
    assert_eq!(problems[0].code, BATCH_TOO_LARGE);
}

#[test]
fn a_freeze_schedule_becomes_phases_that_begin_before_the_end() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n_epochs: serde_json::Value, block: &str| {
        let schedule = json!([{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": {"blocks": [block]}}]);
        let transfer = json!({"freeze": {"schedule": schedule}, "hyperparameters": {"n_epochs": n_epochs, "layer_decay": 0.5}});
        resolve(&request(transfer), base(&layers()), &data, None, 7)
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
    assert!(resolve(&asked(2), base(&layers()), &data, None, 7).is_ok());
    let problems = resolve(&asked(1), base(&layers()), &data, None, 7).unwrap_err();
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
    let settled = resolve(&asked(json!("auto")), base(&layers()), &data, None, 7).unwrap();
    assert_eq!(settled.recipe.warmup_fraction, 0.0);
    let problems = resolve(&asked(json!(0.1)), base(&layers()), &data, None, 7).unwrap_err();
    assert_eq!(problems[0].code, CONTRADICTION);
}

#[test]
fn what_is_cut_away_neither_trains_nor_counts() {
    let data = dataset(&["a", "b"], 40, 10);
    let settled =
        |transfer: serde_json::Value| resolve(&request(transfer), base(&layers()), &data, None, 7);
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
        (
            json!({"cut": "layer1", "freeze": {"schedule": [
                {"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": {"blocks": ["layer2"]}}]}}),
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
fn only_samples_of_one_class_each_are_mixed() {
    let of = |task: Task| Dataset {
        task,
        ..dataset(&["a", "b"], 10_000, 10)
    };
    let settled = |task, transfer| resolve(&request(transfer), base(&layers()), &of(task), None, 7);
    let single = Task::SingleLabelClassification;
    for (task, words) in [
        (Task::MultiLabelClassification, "threshold"),
        (Task::Regression, "not numbers"),
    ] {
        for option in ["mixup", "cutmix"] {
            let asked = |alpha: f64| json!({"freeze": "none", "hyperparameters": {option: alpha}});
            let problems = settled(task, asked(0.2)).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(
                problems[0].path,
                format!("method.transfer.hyperparameters.{option}")
            );
            assert_eq!(problems[0].code, CONTRADICTION);
            assert!(problems[0].message.contains(words), "{problems:?}");
            assert!(settled(task, asked(0.0)).is_ok(), "{option}");
            assert!(settled(single, asked(0.2)).is_ok(), "{option}");
        }
        assert_eq!(settled(task, json!({})).unwrap().recipe.mixup, 0.0);
    }
    assert_eq!(settled(single, json!({})).unwrap().recipe.mixup, 0.1);
}

#[test]
fn options_without_effect_on_a_frozen_trunk_say_so() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked =
        |share: f64| request(json!({"freeze": "all", "hyperparameters": {"layer_decay": share}}));
    assert!(resolve(&asked(1.0), base(&layers()), &data, None, 7).is_ok());
    assert!(resolve(&asked(0.9), base(&layers()), &data, None, 7).is_err());
}

#[test]
fn a_validation_file_has_no_classes_of_its_own() {
    let problems = resolve(
        &request(json!({})),
        base(&layers()),
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

#[test]
fn pictures_are_altered_where_the_trunk_trains() {
    let asked = |transfer: serde_json::Value, samples: u64| {
        let data = dataset(&["a", "b"], samples / 2, 10);
        resolve(&request(transfer), base(&layers()), &data, None, 7)
            .unwrap()
            .recipe
    };
    let smallest = |recipe: Recipe| {
        let crop = recipe.augmentation?.random_resized_crop?;
        Some(crop.scale[0])
    };
    assert_eq!(asked(json!({"freeze": "all"}), 100).augmentation, None);
    assert_eq!(
        smallest(asked(json!({"freeze": "none"}), 19_998)),
        Some(0.6)
    );
    assert_eq!(
        smallest(asked(json!({"freeze": "none"}), 20_000)),
        Some(0.08)
    );
    let off = json!({"freeze": "none", "augmentation": "none"});
    assert_eq!(asked(off, 100).augmentation, None);
}

#[test]
fn a_frozen_trunk_sees_several_views_or_none() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |freeze: serde_json::Value, augmentation: serde_json::Value| {
        let transfer = json!({"freeze": freeze, "augmentation": augmentation, "hyperparameters": {"n_epochs": 6}});
        resolve(&request(transfer), base(&layers()), &data, None, 7)
    };
    let views = |freeze, views| {
        let augmentation = json!({"horizontal_flip": 0.5, "views": views});
        asked(freeze, augmentation).map(|settled| settled.recipe.augmented_views)
    };
    let thawing = json!([{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": "none"}]);
    let thawing = json!({"schedule": thawing});
    assert_eq!(views(json!("all"), json!("auto")).unwrap(), 4);
    assert_eq!(views(json!("all"), json!(6)).unwrap(), 6);
    assert_eq!(views(thawing.clone(), json!("auto")).unwrap(), 3);
    assert_eq!(views(json!("none"), json!("auto")).unwrap(), 0);
    for (freeze, number, words) in [
        (json!("all"), 1, "at least 2 views"),
        (json!("all"), 7, "only 6 epochs"),
        (thawing, 4, "only 3 epochs"),
        (json!("none"), 2, "leave views out"),
    ] {
        let problems = views(freeze, json!(number)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "method.transfer.augmentation.views");
        assert_eq!(problems[0].code, CONTRADICTION);
        assert!(problems[0].message.contains(words), "{problems:?}");
    }
    for (augmentation, place) in [
        (json!({}), ""),
        (json!({"color_jitter": {}}), ""),
        (
            json!({"horizontal_flip": 1, "color_jitter": {}}),
            ".color_jitter",
        ),
    ] {
        let problems = asked(json!("none"), augmentation).unwrap_err();
        let path = format!("method.transfer.augmentation{place}");
        assert_eq!((problems.len(), &problems[0].path), (1, &path));
    }
}

pub(super) fn parent() -> Parent {
    Parent {
        id: "ft:m::1".to_owned(),
        task: crate::recipe::Task::SingleLabelClassification,
        cut: "pre_logits".to_owned(),
        head: Vec::new(),
        labels: ["plants", "food"].map(str::to_owned).into(),
        weights: Vec::new(),
    }
}

/// The labels of a job that goes on with these classes in its file, or the first problem.
fn goes_on(transfer: serde_json::Value, classes: &[&str]) -> Result<Recipe, Problem> {
    let (layers, parent) = (layers(), parent());
    let start = Start {
        layers: &layers,
        parent: Some(&parent),
    };
    let resolution = resolve(
        &request(transfer),
        start,
        &dataset(classes, 40, 10),
        None,
        7,
    );
    resolution
        .map(|resolution| resolution.recipe)
        .map_err(|problems| problems[0].clone())
}

/// A data set for this task; `food` and `plants` are its classes, where it has any.
fn for_task(task: Task) -> Dataset {
    let data = dataset(&["food", "plants"], 40, 10);
    Dataset {
        task,
        classes: match task {
            Task::Regression => Vec::new(),
            _ => data.classes,
        },
        ..data
    }
}

#[test]
fn the_head_of_every_task_begins_at_a_probe() {
    let layers = layers();
    let start = Start {
        layers: &layers,
        parent: None,
    };
    for task in [
        Task::SingleLabelClassification,
        Task::MultiLabelClassification,
        Task::Regression,
    ] {
        let data = for_task(task);
        let resolved = |transfer| resolve(&request(transfer), start, &data, None, 7).unwrap();
        for transfer in [json!({}), json!({"head": {"init": "probe"}})] {
            assert_eq!(resolved(transfer).recipe.head.init, HeadInit::Probe);
        }
        let deep = json!({"head": {"layers": [{"linear": 8}]}});
        assert_eq!(resolved(deep).recipe.head.init, HeadInit::Zero);
    }
}

/// A head that told classes apart says nothing of numbers; it is not thrown away in silence either.
#[test]
fn a_head_goes_on_only_with_its_own_task() {
    let layers = layers();
    let parent = |task| Parent {
        task,
        labels: match task {
            Task::Regression => Vec::new(),
            _ => parent().labels,
        },
        ..parent()
    };
    let tasks = [
        Task::SingleLabelClassification,
        Task::MultiLabelClassification,
        Task::Regression,
    ];
    let pairs = tasks
        .iter()
        .flat_map(|&one| tasks.map(|other| (one, other)));
    for (of_parent, of_file) in pairs {
        let (parent, data) = (parent(of_parent), for_task(of_file));
        let start = Start {
            layers: &layers,
            parent: Some(&parent),
        };
        let resolved = |transfer| resolve(&request(transfer), start, &data, None, 7);
        let anew = resolved(json!({"labels": "replace"})).unwrap().recipe;
        assert_eq!(anew.head.init, HeadInit::Probe);
        match resolved(json!({})) {
            Err(problems) => {
                assert_ne!(of_parent, of_file, "{problems:?}");
                assert_eq!(problems[0].code, TASK_MISMATCH);
                assert_eq!(problems[0].path, "method.transfer.labels");
            }
            Ok(resolution) => {
                assert_eq!(of_parent, of_file);
                let settled = &resolution.resolved;
                let labels = settled.iter().find(|one| one.option == "labels").unwrap();
                let (rule, init) = match of_file {
                    Task::Regression => ("replace", HeadInit::Probe),
                    _ => ("keep", HeadInit::Zero),
                };
                assert_eq!(
                    (&labels.value, resolution.recipe.head.init),
                    (&json!(rule), init)
                );
            }
        }
    }
    let (parent, data) = (parent(Task::Regression), for_task(Task::Regression));
    let start = Start {
        layers: &layers,
        parent: Some(&parent),
    };
    let kept = resolve(&request(json!({"labels": "keep"})), start, &data, None, 7).unwrap_err();
    assert_eq!(kept[0].code, CONTRADICTION);
}

#[test]
fn a_job_that_goes_on_never_renumbers_a_class() {
    let labels = |transfer, classes: &[&str]| {
        let inherited = goes_on(transfer, classes).unwrap().inherited.unwrap();
        (inherited.labels.join(" "), inherited.known)
    };
    assert_eq!(
        labels(json!({}), &["food", "plants"]),
        ("plants food".into(), 2)
    );
    assert_eq!(labels(json!({}), &["food"]), ("plants food".into(), 2));
    let extend = || json!({"labels": "extend"});
    assert_eq!(
        labels(extend(), &["animals", "food"]),
        ("plants food animals".into(), 2)
    );
    let replace = || json!({"labels": "replace"});
    assert_eq!(
        labels(replace(), &["animals", "food"]),
        ("animals food".into(), 0)
    );
}

#[test]
fn a_class_that_is_new_is_named_and_never_taken_in_silence() {
    for transfer in [json!({}), json!({"labels": "keep"})] {
        let problem = goes_on(transfer, &["food", "plant"]).unwrap_err();
        assert_eq!(problem.code, NEW_CLASS);
        assert!(problem.message.contains("`plant`"), "{problem:?}");
        assert!(
            problem.message.contains("did you mean `plants`"),
            "{problem:?}"
        );
        assert!(problem.message.contains("extend"), "{problem:?}");
    }
    let nothing_new = goes_on(json!({"labels": "extend"}), &["food"]).unwrap_err();
    assert_eq!(nothing_new.code, CONTRADICTION);
}

#[test]
fn what_needs_a_new_head_is_refused_unless_one_is_asked_for() {
    let classes = ["food", "plants"];
    for transfer in [
        json!({"cut": "layer1"}),
        json!({"head": {"layers": [{"dropout": 0.5}]}}),
        json!({"head": {"init": "normal"}}),
        json!({"head": {"init": "probe"}}),
    ] {
        let problem = goes_on(transfer.clone(), &classes).unwrap_err();
        assert_eq!(problem.code, CONTRADICTION, "{transfer}");
        assert!(problem.message.contains("replace"), "{problem:?}");
        let mut replaced = transfer;
        replaced["labels"] = json!("replace");
        assert!(goes_on(replaced.clone(), &classes).is_ok(), "{replaced}");
    }
    let normal = json!({"labels": "extend", "head": {"init": "normal"}});
    assert!(goes_on(normal, &["animals", "food"]).is_ok());
    let base_model = request(json!({"labels": "keep"}));
    let data = dataset(&classes, 40, 10);
    let problems = resolve(&base_model, base(&layers()), &data, None, 7).unwrap_err();
    assert_eq!(problems[0].code, CONTRADICTION);
}

#[test]
fn class_weights_follow_the_labels_not_the_file() {
    let weights = json!({"hyperparameters": {"class_weights": {"food": 3.0}}});
    let recipe = goes_on(weights, &["food"]).unwrap();
    assert_eq!(recipe.class_weights, Some(vec![1.0, 3.0]));
}
