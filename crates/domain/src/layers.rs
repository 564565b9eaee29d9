//! The layers that a recipe makes of a base model's: without those after the cut, and with
//! adapters.

use crate::{
    base_model::{LayerTensor, Layers},
    codes::UNKNOWN_LAYER,
    problem::{Problem, suggestion},
    recipe::{Adapter, PRE_LOGITS, Recipe},
};

/// The layers up to and including stage `cut`, or all of them for `pre_logits`.
///
/// # Errors
/// A stage that the base model does not have, with the nearest names.
pub fn layers_after_cut(cut: &str, layers: &Layers) -> Result<Layers, Vec<Problem>> {
    if cut == PRE_LOGITS {
        return Ok(layers.clone());
    }
    let Some(last) = layers.stage_names().position(|stage| stage == cut) else {
        let names = layers.stage_names().chain([PRE_LOGITS]);
        let message = format!(
            "this model has no stage `{cut}` to cut after; {}",
            suggestion(cut, names)
        );
        let path = "method.transfer.cut";
        return Err(vec![Problem::new(path, UNKNOWN_LAYER, message)]);
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

/// The layers that train or stay under a recipe: those before its cut, with the adapters' matrices
/// and their costs.
///
/// # Errors
/// The layers have no such cut.
pub fn of_recipe(recipe: &Recipe, layers: &Layers) -> Result<Layers, Vec<Problem>> {
    let mut layers = layers_after_cut(&recipe.cut, layers)?;
    if let Some(adapter) = &recipe.adapter {
        add_adapter(adapter, &mut layers);
    }
    Ok(layers)
}

/// A linear layer of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Linear<'a> {
    pub(crate) name: &'a str,
    pub(crate) outputs: u32,
    pub(crate) inputs: u32,
}

/// The layers that have a matrix and, for each of its rows, a bias.
pub(crate) fn linear_layers(layers: &Layers) -> Vec<Linear<'_>> {
    let is_bias = |name: &str, outputs: u32| {
        let mut all = layers.tensors.iter();
        all.any(|tensor| tensor.name == format!("{name}.bias") && tensor.shape == [outputs])
    };
    let linear = |tensor| linear_layer(tensor).filter(|one| is_bias(one.name, one.outputs));
    layers.tensors.iter().filter_map(linear).collect()
}

fn linear_layer(weight: &LayerTensor) -> Option<Linear<'_>> {
    let name = weight.name.strip_suffix(".weight")?;
    let [outputs, inputs] = weight.shape[..] else {
        return None;
    };
    Some(Linear {
        name,
        outputs,
        inputs,
    })
}

fn add_adapter(adapter: &Adapter, layers: &mut Layers) {
    let runs = runs_per_sample(layers);
    let mut tensors = Vec::with_capacity(layers.tensors.len() + 2 * adapter.layers.len());
    for tensor in std::mem::take(&mut layers.tensors) {
        let linear = linear_layer(&tensor);
        let linear = linear.filter(|one| adapter.layers.iter().any(|name| name == one.name));
        let added = linear.map(|one| {
            let [down, up] = Adapter::tensors_of(one.name);
            let part = |name, shape: [u32; 2]| LayerTensor {
                name,
                shape: shape.into(),
                ..tensor.clone()
            };
            let added = [
                part(down, [adapter.rank, one.inputs]),
                part(up, [one.outputs, adapter.rank]),
            ];
            let numbers = added.iter().map(LayerTensor::count).sum::<u64>();
            let stage = layers.stages.iter().position(|s| s.name == tensor.stage);
            let stage = stage.expect("a tensor is of a stage: this is a bug");
            layers.stages[stage].parameters += numbers;
            if let Some(cost) = layers.costs.get_mut(stage) {
                let dropped = if adapter.dropout > 0.0 { 2 } else { 0 };
                let kept = adapter.rank + dropped * one.inputs;
                cost.macs += runs[stage] * numbers;
                cost.kept += runs[stage] * u64::from(kept);
            }
            added
        });
        tensors.push(tensor);
        tensors.extend(added.into_iter().flatten());
    }
    layers.tensors = tensors;
}

/// How often the linear layers of each stage with known costs run for one sample (once for each
/// token): about the stage's multiplications divided by its weights.
fn runs_per_sample(layers: &Layers) -> Vec<u64> {
    let stages = layers.stages.iter().zip(&layers.costs);
    stages
        .map(|(stage, cost)| {
            let weights: u64 = layers
                .tensors
                .iter()
                .filter(|tensor| tensor.stage == stage.name && tensor.shape.len() > 1)
                .map(LayerTensor::count)
                .sum();
            cost.macs.checked_div(weights).unwrap_or(0)
        })
        .collect()
}
