//! Adapters: which linear layers of a backbone get one.

use std::collections::BTreeSet;

use super::{
    freeze,
    problems::{contradiction, cut_away, last_stage, refuse},
};
use crate::{
    base_model::Layers,
    codes::{OUT_OF_RANGE, UNKNOWN_LAYER},
    layers::{Linear, linear_layers},
    problem::{Problem, one_of, suggestion},
    recipe::{Adapter, BatchNorm},
    request::{AdapterOptions, AdapterTargets, Auto, Freeze, Transfer},
};

const TARGETS: &str = "method.transfer.adapter.targets";

/// The adapters that a request asks for. `left` are the layers that remain after the cut.
///
/// # Errors
/// Targets that match no layer, or only such that were cut away; a rank above a layer's smaller
/// side.
pub fn resolve(
    asked: &AdapterOptions,
    layers: &Layers,
    left: &Layers,
) -> Result<Adapter, Vec<Problem>> {
    let (all, kept) = (linear_layers(layers), linear_layers(left));
    if kept.is_empty() {
        return Err(vec![nothing_to_adapt(&all, left)]);
    }
    let chosen: Vec<Linear<'_>> = match &asked.targets {
        AdapterTargets::All => kept,
        AdapterTargets::Names(names) => named(names, &all, &kept, left)?,
        AdapterTargets::Matching { regex } => matching(regex, &all, &kept, left)?,
    };
    let smaller_side = |one: &&Linear<'_>| one.outputs.min(one.inputs);
    if let Some(one) = chosen.iter().min_by_key(smaller_side)
        && asked.rank > u64::from(smaller_side(&one))
    {
        let (rank, most) = (asked.rank, smaller_side(&one));
        let message = format!(
            "rank is {rank}, but `{}` has {} inputs and {} outputs, so no change of it has a rank above {most}; give at most {most}",
            one.name, one.inputs, one.outputs
        );
        let path = "method.transfer.adapter.rank";
        return Err(vec![Problem::new(path, OUT_OF_RANGE, message)]);
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
            "lora adapts linear layers, and `cut` leaves none: it removes everything after `{}`, and the first is `{}`; cut later, or leave `adapter` out",
            last_stage(left),
            first.name
        ),
        None => "lora adapts linear layers, as transformers have them, and this model has none; leave `adapter` out and choose what trains with `freeze`, or take another model"
            .to_owned(),
    };
    contradiction("adapter", message)
}

/// True when `target` is `layer`'s name or its last parts.
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
        if among(all, target) {
            return cut_away(&format!("`{target}`"), TARGETS, left);
        }
        let names: BTreeSet<&str> = kept.iter().flat_map(|one| endings(one.name)).collect();
        let near = suggestion(target, names.iter().copied());
        let message = format!("this model has no linear layer `{target}`; {near}");
        Problem::new(TARGETS, UNKNOWN_LAYER, message)
    };
    let wrong = targets.iter().filter(|target| !among(kept, target));
    refuse(wrong.map(problem).collect())?;
    let wanted = |one: &&Linear<'_>| targets.iter().any(|target| is_named(one.name, target));
    Ok(kept.iter().filter(wanted).copied().collect())
}

/// A layer's name, and its last parts; none begins with a block's number.
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
    let regex = freeze::compiled(pattern, TARGETS)?;
    let matches = |one: &&Linear<'_>| regex.is_match(one.name);
    let found: Vec<Linear<'a>> = kept.iter().filter(matches).copied().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let problem = if all.iter().any(|one| matches(&one)) {
        cut_away("everything that `regex` matches", TARGETS, left)
    } else {
        let first: Vec<&str> = kept.iter().take(3).map(|one| one.name).collect();
        let names = one_of(&first);
        let message = format!("`regex` matches no linear layer; their names are like {names}");
        Problem::new(TARGETS, UNKNOWN_LAYER, message)
    };
    Err(vec![problem])
}

/// Options that contradict an adapter.
pub(super) fn contradictions(asked: &Transfer) -> Vec<Problem> {
    if asked.adapter.is_none() {
        return Vec::new();
    }
    let freeze = match asked.freeze {
        Auto::Auto | Auto::Value(Freeze::All) => None,
        Auto::Value(Freeze::Schedule(_)) => Some(
            "an adapter trains from the first epoch to the last, under a backbone that is frozen all the time; leave the schedule out, or `adapter`",
        ),
        Auto::Value(_) => Some(
            "an adapter trains instead of the backbone, which is frozen as a whole; leave `freeze` out or give \"all\", or leave `adapter` out",
        ),
    };
    let freeze = freeze.map(|message| contradiction("freeze", message));
    let mut problems = Vec::from_iter(freeze);
    if asked.hyperparameters.batch_norm == Auto::Value(BatchNorm::Update) {
        let message = "an adapter keeps the backbone as it is, BatchNorm's statistics included; leave batch_norm out, or `adapter`";
        problems.push(contradiction("hyperparameters.batch_norm", message));
    }
    problems
}
