//! Random changes of training images, under a backbone that trains or is frozen for some epochs.

use super::{auto_log::AutoLog, problems::contradiction, trained::Trained};
use crate::{
    augmentation::Augmentation,
    base_model::Layers,
    limits,
    problem::Problem,
    request::{AugmentationOptions, Auto, OrNone, Transfer},
};

/// The changes, and the number of views that are computed in advance.
pub(super) fn resolve(
    asked: &Auto<OrNone<AugmentationOptions>>,
    default: (Option<Augmentation>, &str),
    default_views: (u64, &str),
    log: &mut AutoLog,
) -> (Option<Augmentation>, u64) {
    match asked {
        Auto::Auto => (log.resolve("augmentation", Auto::Auto, default), 0),
        Auto::Value(OrNone::None) => (None, 0),
        Auto::Value(OrNone::Value(options)) => {
            let views = log.resolve("augmentation.views", options.views, default_views);
            (Some(options.augmentation.clone()), views)
        }
    }
}

/// Options that would change nothing.
pub(super) fn contradictions(asked: &Transfer, layers: &Layers, trained: &Trained) -> Vec<Problem> {
    let Auto::Value(OrNone::Value(options)) = &asked.augmentation else {
        return Vec::new();
    };
    let jitter = options.augmentation.color_jitter;
    let mut problems = Vec::new();
    if !options.augmentation.acts() {
        let message = "nothing in augmentation alters an image; choose random_resized_crop, horizontal_flip, color_jitter, rand_augment or random_erasing, or give \"none\"";
        problems.push(contradiction("augmentation", message));
    } else if jitter.is_some_and(|jitter| !jitter.acts()) {
        let message = "color_jitter changes no color; give brightness, contrast, saturation or hue, or leave it out";
        problems.push(contradiction("augmentation.color_jitter", message));
    }
    if let Some(jitter) = jitter
        && layers.input_channels() == Some(1)
    {
        for (option, bound) in [("saturation", jitter.saturation), ("hue", jitter.hue)] {
            if bound > 0.0 {
                let message = format!(
                    "this model reads gray images, which have no {option}; leave {option} out, or choose a base model of 3 channels"
                );
                let option = format!("augmentation.color_jitter.{option}");
                problems.push(contradiction(&option, message));
            }
        }
    }
    let n_epochs = asked.hyperparameters.n_epochs.value();
    let n_epochs = n_epochs.unwrap_or(*limits::VIEWS.end());
    if let Some(message) = wrong_views(options.views, trained.frozen_epochs(n_epochs)) {
        problems.push(contradiction("augmentation.views", message));
    }
    problems
}

fn wrong_views(views: Auto<u64>, frozen_epochs: u64) -> Option<String> {
    match (frozen_epochs, views.value()?) {
        (0, _) => Some(
            "views are for a frozen backbone, which reads images in advance; a backbone that trains sees new ones in every epoch: leave views out"
                .to_owned(),
        ),
        (2.., 1) => Some(
            "with 1 view a frozen backbone sees the same altered image in every epoch; give at least 2 views, or freeze less"
                .to_owned(),
        ),
        (epochs, views) if views > epochs => Some(format!(
            "views is {views}, but the backbone is frozen for only {epochs} epochs, which see one each; give at most {epochs}"
        )),
        _ => None,
    }
}
