//! Adapters: which linear layers of a backbone get one.

use std::collections::BTreeSet;

use super::freeze;
use crate::{
    base_model::Layers,
    codes::{CONTRADICTION, OUT_OF_RANGE, UNKNOWN_LAYER},
    layers::{Linear, linear_layers},
    problem::{Problem, one_of, suggestion},
    recipe::{Adapter, BatchNorm},
    request::{AdapterOptions, AdapterTargets, Auto, Freeze, Transfer},
};

const PATH: &str = "method.transfer.adapter";

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
            "rank is {rank}, but `{}` has {} inputs and {} outputs, so no change of it has a rank above {most}; give at most {most}",
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
            "lora adapts linear layers, and `cut` leaves none: it removes everything after `{}`, and the first is `{}`; cut later, or leave `adapter` out",
            last_stage(left),
            first.name
        ),
        None => "lora adapts linear layers, as transformers have them, and this model has none; leave `adapter` out and choose what trains with `freeze`, or take another model"
            .to_owned(),
    };
    Problem::new(PATH, CONTRADICTION, message)
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
        cut_away("everything that `regex` matches", left)
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

/// Options that contradict an adapter.
pub(super) fn contradictions(asked: &Transfer) -> Vec<Problem> {
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
            "an adapter trains instead of the backbone, which is frozen as a whole; leave `freeze` out or give \"all\", or leave `adapter` out",
        ),
    }
    if asked.hyperparameters.batch_norm == Auto::Value(BatchNorm::Update) {
        let message = "an adapter keeps the backbone as it is, BatchNorm's statistics included; leave batch_norm out, or `adapter`";
        contradiction("hyperparameters.batch_norm", message);
    }
    problems
}
