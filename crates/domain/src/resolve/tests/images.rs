//! How images are altered.

use super::*;

#[test]
fn images_are_altered_where_the_backbone_trains() {
    let asked = |transfer: serde_json::Value, samples: u64| {
        let data = dataset(&["a", "b"], samples / 2, 10);
        resolved(&request(transfer), base(&layers()), &data)
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
fn a_frozen_backbone_sees_several_views_or_none() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |freeze: serde_json::Value, augmentation: serde_json::Value| {
        let transfer = json!({"freeze": freeze, "augmentation": augmentation, "hyperparameters": {"n_epochs": 6}});
        resolved(&request(transfer), base(&layers()), &data)
    };
    let views = |freeze, views| {
        let augmentation = json!({"horizontal_flip": 0.5, "views": views});
        asked(freeze, augmentation).map(|outcome| outcome.recipe.augmented_views)
    };
    let unfreezing = json!([{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": "none"}]);
    let unfreezing = json!({"schedule": unfreezing});
    assert_eq!(views(json!("all"), json!("auto")).unwrap(), 4);
    assert_eq!(views(json!("all"), json!(6)).unwrap(), 6);
    assert_eq!(views(unfreezing.clone(), json!("auto")).unwrap(), 3);
    assert_eq!(views(json!("none"), json!("auto")).unwrap(), 0);
    for (freeze, number, words) in [
        (json!("all"), 1, "at least 2 views"),
        (json!("all"), 7, "only 6 epochs"),
        (unfreezing, 4, "only 3 epochs"),
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

#[test]
fn gray_images_have_no_color_to_move() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |channels: u32, jitter: serde_json::Value| {
        let mut layers = layers();
        layers.tensors[0].shape = vec![8, channels, 3, 3];
        let transfer = json!({"freeze": "none", "augmentation": {"color_jitter": jitter}});
        let outcome = resolved(&request(transfer), base(&layers), &data);
        let problems = outcome.err().unwrap_or_default();
        let paths = problems.into_iter().map(|one| (one.path, one.code));
        paths.collect::<Vec<_>>()
    };
    let colors = json!({"brightness": 0.2, "saturation": 0.2, "hue": 0.1});
    let path = |option| format!("method.transfer.augmentation.color_jitter.{option}");
    let refused = |option| (path(option), CONTRADICTION.to_owned());
    assert_eq!(asked(1, colors.clone()), ["saturation", "hue"].map(refused));
    assert_eq!(asked(1, json!({"brightness": 0.2, "hue": 0.0})), []);
    for channels in [3, 4] {
        assert_eq!(asked(channels, colors.clone()), []);
    }
}
