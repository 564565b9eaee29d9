//! How images are altered under a backbone that trains, and under one that is frozen for some epochs.

use super::{defaults, settle::Autos};
use crate::{
    augmentation::Augmentation,
    base_model::Layers,
    limits,
    problem::Problem,
    request::{Auto, CONTRADICTION, ChosenAugmentation, JobRequest, RequestedAugmentation},
};

const PATH: &str = "method.transfer.augmentation";

/// Epochs, of `n_epochs`, in which the backbone is as it came.
pub(super) fn frozen_epochs(phases: &[(u64, Vec<String>)], n_epochs: u64) -> u64 {
    let mut phases = phases.iter();
    phases
        .find(|(_, trainable)| !trainable.is_empty())
        .map_or(n_epochs, |(at_epoch, _)| *at_epoch)
}

/// What is altered, and in how many views ahead.
pub(super) fn settle(
    request: &JobRequest,
    head_only: bool,
    (frozen_epochs, samples): (u64, u64),
    autos: &mut Autos,
) -> (Option<Augmentation>, u64) {
    match &request.transfer.augmentation {
        Auto::Auto => {
            let (default, why) = defaults::augmentation(head_only, samples);
            let settled = autos.settle("augmentation", Auto::Auto, default, why);
            (settled, 0)
        }
        Auto::Value(RequestedAugmentation::Off(_)) => (None, 0),
        Auto::Value(RequestedAugmentation::Chosen(chosen)) => {
            let (default, why) = defaults::views(frozen_epochs);
            let views = autos.settle("augmentation.views", chosen.views, default, why);
            (Some(chosen.augmentation.clone()), views)
        }
    }
}

/// What would change nothing.
pub(super) fn contradictions(
    request: &JobRequest,
    layers: &Layers,
    phases: &[(u64, Vec<String>)],
) -> Vec<Problem> {
    let Auto::Value(RequestedAugmentation::Chosen(chosen)) = &request.transfer.augmentation else {
        return Vec::new();
    };
    let n_epochs = match request.transfer.hyperparameters.n_epochs {
        Auto::Value(n_epochs) => n_epochs,
        Auto::Auto => *limits::VIEWS.end(),
    };
    let mut problems = Vec::new();
    let mut contradiction = |option: &str, message: String| {
        let path = format!("{PATH}{option}");
        problems.push(Problem::new(path, CONTRADICTION, message));
    };
    if !chosen.augmentation.acts() {
        let message = "nothing in augmentation alters an image; choose random_resized_crop, horizontal_flip, color_jitter, rand_augment or random_erasing, or give \"none\"";
        contradiction("", message.to_owned());
    } else if chosen
        .augmentation
        .color_jitter
        .is_some_and(|jitter| !jitter.acts())
    {
        let message = "color_jitter moves no color; give brightness, contrast, saturation or hue, or leave it out";
        contradiction(".color_jitter", message.to_owned());
    }
    if let Some(jitter) = &chosen.augmentation.color_jitter
        && layers.input_channels() == Some(1)
    {
        for (option, bound) in [("saturation", jitter.saturation), ("hue", jitter.hue)] {
            if bound > 0.0 {
                let message = format!(
                    "this model reads gray images, which have no {option}; leave {option} out, or choose a base model of 3 channels"
                );
                contradiction(&format!(".color_jitter.{option}"), message);
            }
        }
    }
    if let Some(message) = wrong_views(chosen, frozen_epochs(phases, n_epochs)) {
        contradiction(".views", message);
    }
    problems
}

fn wrong_views(chosen: &ChosenAugmentation, frozen_epochs: u64) -> Option<String> {
    let Auto::Value(views) = chosen.views else {
        return None;
    };
    match (frozen_epochs, views) {
        (0, _) => Some(
            "views are for a frozen backbone, which reads images ahead; a backbone that trains sees new ones in every epoch: leave views out"
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
