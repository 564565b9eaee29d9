//! Every option reaches training.

use rehead_domain::recipe::{Head, HeadInit, HeadLayer, Recipe, Schedule};

use super::train_head;
use crate::support::training::recipe;

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
    let changed = |change: &dyn Fn(&mut Recipe)| {
        let mut other = plain.clone();
        change(&mut other);
        train_head(&other, 8)
    };
    assert_eq!(changed(&|_| {}), reference);
    let schedules = [
        Schedule::Cosine,
        Schedule::Linear,
        Schedule::Step,
        Schedule::OneCycle,
    ];
    let mut results = vec![reference];
    results.extend(schedules.map(|schedule| changed(&|recipe| recipe.schedule = schedule)));
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
}
