//! Every option reaches training.

use std::{cell::RefCell, collections::BTreeSet};

use rehead_domain::recipe::{Head, HeadInit, HeadLayer, Recipe, Schedule, Task};

use super::train_head;
use crate::support::training::recipe;

/// Fields of a recipe that a head on fixed features cannot show, each with the tests of its effect.
const TESTED_ELSEWHERE: &[(&str, &str)] = &[
    ("task", include_str!("../metrics.rs")),
    ("cut", include_str!("head.rs")),
    ("trainable", include_str!("freezing.rs")),
    ("later_phases", include_str!("freezing.rs")),
    ("adapter", include_str!("adapters.rs")),
    ("inherited", include_str!("parents.rs")),
    ("n_epochs", include_str!("../resume.rs")),
    ("batch_size", include_str!("batches.rs")),
    ("shards", include_str!("../resume.rs")),
    ("optimizer", include_str!("rates.rs")),
    ("learning_rate", include_str!("rates.rs")),
    ("backbone_learning_rate", include_str!("rates.rs")),
    ("layer_decay", include_str!("rates.rs")),
    ("loss", include_str!("../metrics.rs")),
    ("augmentation", include_str!("views.rs")),
    ("augmented_views", include_str!("views.rs")),
    ("cutmix", include_str!("losses.rs")),
    ("batch_norm", include_str!("freezing.rs")),
    ("precision", include_str!("precision.rs")),
    ("features_precision", include_str!("caches.rs")),
    ("early_stopping", include_str!("../resume.rs")),
    ("evaluate_every", include_str!("../resume.rs")),
    ("checkpoint_every_seconds", include_str!("../resume.rs")),
];

/// The names of a recipe's fields whose values are not equal in both.
fn different_fields(one: &Recipe, other: &Recipe) -> BTreeSet<String> {
    let fields = |recipe: &Recipe| serde_json::to_value(recipe).unwrap();
    let (one, other) = (fields(one), fields(other));
    let names = one.as_object().unwrap().keys();
    names
        .filter(|name| one[*name] != other[*name])
        .cloned()
        .collect()
}

#[test]
fn trap_6_every_option_changes_training() {
    let plain = Recipe {
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let reference = train_head(&plain, 8);
    let tried = RefCell::new(BTreeSet::new());
    let changed = |change: &dyn Fn(&mut Recipe)| {
        let mut other = plain.clone();
        change(&mut other);
        tried.borrow_mut().extend(different_fields(&plain, &other));
        train_head(&other, 8)
    };
    assert_eq!(changed(&|_| {}), reference);
    let mut results = vec![reference];
    let schedules = Schedule::ALL.into_iter();
    let others = schedules.filter(|&schedule| schedule != plain.schedule);
    results.extend(others.map(|schedule| changed(&|recipe| recipe.schedule = schedule)));
    results.extend([
        changed(&|recipe| recipe.warmup_fraction = 0.5),
        changed(&|recipe| recipe.class_weights = Some(vec![1.0, 2.0, 3.0])),
        changed(&|recipe| recipe.ema_decay = Some(0.9)),
        changed(&|recipe| recipe.accumulate = 2),
        changed(&|recipe| recipe.label_smoothing = 0.1),
        changed(&|recipe| recipe.mixup = 0.2),
        changed(&|recipe| recipe.gradient_clip = Some(1e-3)),
        changed(&|recipe| recipe.weight_decay = 0.1),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Dropout(0.5)]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Relu]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Gelu]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::BatchNorm]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::LayerNorm]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Linear(16)]),
        changed(&|recipe| recipe.seed = 8),
    ]);
    for (i, one) in results.iter().enumerate() {
        for (j, other) in results[..i].iter().enumerate() {
            assert_ne!(one, other, "variants {j} and {i} train alike");
        }
    }
    let mut tried = tried.into_inner();
    for (field, tests) in TESTED_ELSEWHERE {
        assert!(tests.contains(field), "no test of `{field}` where one was");
        tried.insert((*field).to_owned());
    }
    let base = serde_json::to_value(Recipe::base(Task::SingleLabelClassification)).unwrap();
    let all: BTreeSet<String> = base.as_object().unwrap().keys().cloned().collect();
    let untried: Vec<_> = all.difference(&tried).collect();
    assert!(
        untried.is_empty(),
        "no test shows that these change training: {untried:?}; add a case to this test"
    );
}
