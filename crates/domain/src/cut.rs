//! Where a backbone ends: what is left of its layers when everything after a stage goes.

use super::{
    base_model::Layers,
    freeze::UNKNOWN_LAYER,
    problem::{Problem, suggestion},
};

/// The cut that removes the classifier only.
pub const PRE_LOGITS: &str = "pre_logits";

/// The layers up to and including stage `cut`, or all of them for `pre_logits`.
///
/// # Errors
/// A stage that the base model does not have, with the nearest names.
pub fn left(cut: &str, layers: &Layers) -> Result<Layers, Vec<Problem>> {
    if cut == PRE_LOGITS {
        return Ok(layers.clone());
    }
    let Some(last) = layers.stage_names().position(|stage| stage == cut) else {
        let names = layers.stage_names().chain([PRE_LOGITS]);
        let message = format!(
            "this model has no stage `{cut}` to cut after; {}",
            suggestion(cut, names)
        );
        return Err(vec![Problem::new(
            "method.transfer.cut",
            UNKNOWN_LAYER,
            message,
        )]);
    };
    let stages = layers.stages[..=last].to_vec();
    let tensors = layers.tensors.iter();
    let tensors = tensors
        .filter(|tensor| stages.iter().any(|stage| stage.name == tensor.stage))
        .cloned()
        .collect();
    Ok(Layers {
        feature_dim: layers.stages[last].channels,
        stages,
        tensors,
        costs: layers.costs.iter().take(last + 1).copied().collect(),
        picoseconds_per_mac: layers.picoseconds_per_mac,
    })
}
