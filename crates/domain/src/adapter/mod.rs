//! Adapters: which linear layers of a backbone get one, and what that adds to the backbone. The names of an adapter's matrices are
//! those that train, so that everything which follows from names follows.

use std::collections::BTreeSet;

use super::{
    base_model::{LayerTensor, Layers},
    cut,
    fields::OUT_OF_RANGE,
    freeze::{self, UNKNOWN_LAYER},
    problem::{Problem, one_of, suggestion},
    recipe::{Adapter, BatchNorm, Recipe},
    request::{AdapterTargets, Auto, CONTRADICTION, Freeze, RequestedAdapter, Transfer},
};

const PATH: &str = "method.transfer.adapter";

/// A linear layer of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Linear<'a> {
    name: &'a str,
    outputs: u32,
    inputs: u32,
}

/// The layers that have a matrix and, for each of its rows, a bias.
fn linear_layers(layers: &Layers) -> Vec<Linear<'_>> {
    let is_bias = |name: &str, outputs: u32| {
        let mut all = layers.tensors.iter();
        all.any(|tensor| tensor.name == format!("{name}.bias") && tensor.shape == [outputs])
    };
    let linear = |tensor| linear_layer(tensor).filter(|one| is_bias(one.name, one.outputs));
    layers.tensors.iter().filter_map(linear).collect()
}

fn linear_layer(weight: &LayerTensor) -> Option<Linear<'_>> {
    let name = weight.name.strip_suffix(".weight")?;
    match weight.shape[..] {
        [outputs, inputs] => Some(Linear {
            name,
            outputs,
            inputs,
        }),
        _ => None,
    }
}

/// What a request asks for, for a backbone of which `left` is left of `layers`.
///
/// # Errors
/// What matches no layer, or one that was cut away; a rank that a layer has no room for.
pub fn resolve(
    asked: &RequestedAdapter,
    layers: &Layers,
    left: &Layers,
) -> Result<Adapter, Vec<Problem>> {
    let (all, kept) = (linear_layers(layers), linear_layers(left));
    if kept.is_empty() {
        return Err(vec![nothing_to_adapt(&all, left)]);
    }
    let chosen: Vec<Linear<'_>> = match &asked.targets {
        AdapterTargets::All(_) => kept,
        AdapterTargets::Names(names) => named(names, &all, &kept, left)?,
        AdapterTargets::Matching { regex } => matching(regex, &all, &kept, left)?,
    };
    let smallest = chosen.iter().min_by_key(|one| one.outputs.min(one.inputs));
    if let Some(one) = smallest
        && asked.rank > u64::from(one.outputs.min(one.inputs))
    {
        let (rank, most) = (asked.rank, one.outputs.min(one.inputs));
        let message = format!(
            "rank is {rank}, but `{}` has {} inputs and {} outputs, so that no change of it has a rank above {most}; give at most {most}",
            one.name, one.inputs, one.outputs
        );
        return Err(vec![Problem::new(
            format!("{PATH}.rank"),
            OUT_OF_RANGE,
            message,
        )]);
    }
    Ok(Adapter {
        rank: asked.rank as u32,
        alpha: asked.alpha,
        dropout: asked.dropout,
        layers: chosen.iter().map(|one| one.name.to_owned()).collect(),
    })
}

fn nothing_to_adapt(all: &[Linear<'_>], left: &Layers) -> Problem {
    let message = match all.first() {
        Some(first) => format!(
            "lora adapts linear layers, and `cut` leaves none: nothing after `{}` is left, and the first is `{}`; cut later, or leave `adapter` out",
            last_stage(left),
            first.name
        ),
        None => "lora adapts linear layers, as transformers have them, and this model has none; leave `adapter` out and choose what trains with `freeze`, or take another model"
            .to_owned(),
    };
    Problem::new(PATH, CONTRADICTION, message)
}

/// Whether `layer` is `target`, or ends with it.
fn is_named(layer: &str, target: &str) -> bool {
    let before = layer.strip_suffix(target);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn named<'a>(
    targets: &[String],
    all: &[Linear<'_>],
    kept: &[Linear<'a>],
    left: &Layers,
) -> Result<Vec<Linear<'a>>, Vec<Problem>> {
    let among = |layers: &[Linear<'_>], target: &str| {
        let mut layers = layers.iter();
        layers.any(|one| is_named(one.name, target))
    };
    let problem = |target: &String| {
        let message = if among(all, target) {
            cut_away(&format!("`{target}`"), left)
        } else {
            let names: BTreeSet<&str> = kept.iter().flat_map(|one| endings(one.name)).collect();
            format!(
                "this model has no linear layer `{target}`; {}",
                suggestion(target, names.iter().copied())
            )
        };
        Problem::new(format!("{PATH}.targets"), UNKNOWN_LAYER, message)
    };
    let wrong = targets.iter().filter(|target| !among(kept, target));
    let problems: Vec<Problem> = wrong.map(problem).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let wanted = |one: &&Linear<'_>| targets.iter().any(|target| is_named(one.name, target));
    Ok(kept.iter().filter(wanted).copied().collect())
}

/// A layer's name, and what is left of it without its first parts; none begins with a block's number.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    let all = std::iter::successors(Some(name), |rest| {
        rest.split_once('.').map(|(_, rest)| rest)
    });
    all.filter(|rest| !rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn matching<'a>(
    pattern: &str,
    all: &[Linear<'_>],
    kept: &[Linear<'a>],
    left: &Layers,
) -> Result<Vec<Linear<'a>>, Vec<Problem>> {
    let path = format!("{PATH}.targets");
    let regex = freeze::compiled(pattern, &path)?;
    let found: Vec<Linear<'a>> = kept
        .iter()
        .filter(|one| regex.is_match(one.name))
        .copied()
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let message = if all.iter().any(|one| regex.is_match(one.name)) {
        cut_away("all that `regex` matches", left)
    } else {
        let first: Vec<&str> = kept.iter().take(3).map(|one| one.name).collect();
        format!(
            "`regex` matches no linear layer; their names are like {}",
            one_of(&first)
        )
    };
    Err(vec![Problem::new(path, UNKNOWN_LAYER, message)])
}

fn cut_away(what: &str, left: &Layers) -> String {
    format!(
        "{what} is cut away: `cut` leaves nothing after `{}`; take it out of `targets` or cut later",
        last_stage(left)
    )
}

fn last_stage(left: &Layers) -> &str {
    left.stages.last().map_or("", |stage| stage.name.as_str())
}

/// Options that an adapter leaves no room for.
pub fn contradictions(asked: &Transfer) -> Vec<Problem> {
    if asked.adapter.is_none() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut contradiction = |option: &str, message: &str| {
        let path = format!("method.transfer.{option}");
        problems.push(Problem::new(path, CONTRADICTION, message));
    };
    match asked.freeze {
        Auto::Auto | Auto::Value(Freeze::All) => {}
        Auto::Value(Freeze::Schedule(_)) => contradiction(
            "freeze",
            "an adapter trains from the first epoch to the last, under a backbone that is frozen all the time; leave the schedule out, or `adapter`",
        ),
        Auto::Value(_) => contradiction(
            "freeze",
            "an adapter trains in the place of the backbone, which is frozen as a whole; leave `freeze` out or give \"all\", or leave `adapter` out",
        ),
    }
    if asked.hyperparameters.batch_norm == Auto::Value(BatchNorm::Update) {
        let message = "an adapter leaves the backbone as it is, BatchNorm's statistics with it; leave batch_norm out, or `adapter`";
        contradiction("hyperparameters.batch_norm", message);
    }
    problems
}

/// What a recipe makes of a base model's layers: those that its cut leaves, with the adapters' matrices, and what they cost,
/// among them.
///
/// # Errors
/// The layers have no such cut.
pub fn adapted(recipe: &Recipe, layers: &Layers) -> Result<Layers, Vec<Problem>> {
    let mut left = cut::left(&recipe.cut, layers)?;
    if let Some(adapter) = &recipe.adapter {
        add(adapter, &mut left);
    }
    Ok(left)
}

fn add(adapter: &Adapter, layers: &mut Layers) {
    let places = places(layers);
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
                cost.macs += places[stage] * numbers;
                cost.kept += places[stage] * u64::from(kept);
            }
            added
        });
        tensors.push(tensor);
        tensors.extend(added.into_iter().flatten());
    }
    layers.tensors = tensors;
}

/// Of each stage whose costs are known, how often its linear layers run for a sample, once for each token: about its
/// multiplications by its weights.
fn places(layers: &Layers) -> Vec<u64> {
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

#[cfg(test)]
pub(crate) mod tests;
