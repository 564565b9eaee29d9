//! Freeze policies: which parameters of a backbone train. Every policy becomes a list of names
//! here, so that the trainer, the job object and a person who reads it see the same.

use regex::{Regex, RegexBuilder};

use super::problems::{cut_away, refuse, unknown_names};
use crate::{
    base_model::{LayerTensor, Layers},
    codes::{INVALID_VALUE, OUT_OF_RANGE, UNKNOWN_LAYER},
    problem::{Problem, one_of},
    recipe::FreezePhase,
    request::Freeze,
};

const PATH: &str = "method.transfer.freeze";
/// Limit on the memory of a compiled expression, in bytes.
const REGEX_BYTES: usize = 1 << 20;

/// The trainable parameters of each phase of a freeze schedule, and of the only phase without one.
/// `left` are the layers that remain after the cut.
///
/// # Errors
/// Names and expressions that match nothing in `layers`, or only what was cut away.
pub fn phases(
    policy: &Freeze,
    layers: &Layers,
    left: &Layers,
) -> Result<Vec<FreezePhase>, Vec<Problem>> {
    let phase = |at_epoch: u64, policy: &Freeze| {
        check_not_cut_away(policy, layers, left)?;
        Ok(FreezePhase {
            at_epoch: at_epoch as u32,
            trainable: trainable(policy, left)?,
        })
    };
    match policy {
        Freeze::Schedule(entries) => {
            let phases = entries.iter().map(|one| phase(one.at_epoch, &one.freeze));
            phases.collect()
        }
        other => phase(0, other).map(|only| vec![only]),
    }
}

/// The names of the parameters that train, in forward order; for a schedule, those of its first
/// entry.
///
/// # Errors
/// Names and expressions that match nothing, with the nearest names.
fn trainable(policy: &Freeze, layers: &Layers) -> Result<Vec<String>, Vec<Problem>> {
    match policy {
        Freeze::All => Ok(Vec::new()),
        Freeze::None => Ok(keep(layers, |_| false)),
        Freeze::AllButLastStages(n) => {
            stages(layers, n, "all_but_last_stages").map(|n| after(layers, layers.stages.len() - n))
        }
        Freeze::FirstN(n) => stages(layers, n, "first_n").map(|n| after(layers, n)),
        Freeze::Fraction(share) => Ok(after(layers, stages_of_share(layers, *share))),
        Freeze::Blocks(names) => blocks(layers, names),
        Freeze::Names(names) => parameters(layers, names),
        Freeze::Regex(pattern) => matching(layers, pattern),
        Freeze::Schedule(entries) => match entries.first() {
            Some(first) => trainable(&first.freeze, layers),
            None => Ok(Vec::new()),
        },
    }
}

/// Refuses policies that name layers which the cut removes.
///
/// # Errors
/// One for each such name, or for an expression that matches only such.
fn check_not_cut_away(policy: &Freeze, layers: &Layers, left: &Layers) -> Result<(), Vec<Problem>> {
    let kept: Vec<&str> = names(left).collect();
    let gone = names(layers).filter(|name| !kept.contains(name));
    let problem = |what: &str| cut_away(what, PATH, left);
    refuse(match policy {
        Freeze::Blocks(named) | Freeze::Names(named) => {
            let is_gone = |name: &&String| gone.clone().any(|gone| gone == name.as_str());
            let named = named.iter().filter(is_gone);
            named.map(|name| problem(&format!("`{name}`"))).collect()
        }
        Freeze::Regex(pattern) => {
            let matches = |layers| matching(layers, pattern).is_ok();
            let only_gone = matches(layers) && !matches(left);
            Vec::from_iter(only_gone.then(|| problem("all that `regex` matches")))
        }
        _ => Vec::new(),
    })
}

/// The names of stages, blocks and parameters.
fn names(layers: &Layers) -> impl Iterator<Item = &str> + Clone {
    let blocks = layers.stages.iter().flat_map(|stage| &stage.blocks);
    let parameters = layers.parameters().map(|tensor| &tensor.name);
    layers
        .stage_names()
        .chain(blocks.chain(parameters).map(String::as_str))
}

/// The parameters for which `frozen` is false.
fn keep(layers: &Layers, frozen: impl Fn(&LayerTensor) -> bool) -> Vec<String> {
    layers
        .parameters()
        .filter(|tensor| !frozen(tensor))
        .map(|tensor| tensor.name.clone())
        .collect()
}

/// The parameters of all stages but the first `n`.
fn after(layers: &Layers, n: usize) -> Vec<String> {
    let frozen: Vec<&str> = layers.stage_names().take(n).collect();
    keep(layers, |tensor| frozen.contains(&tensor.stage.as_str()))
}

/// `n` as a number of this model's stages.
fn stages(layers: &Layers, n: &u64, form: &str) -> Result<usize, Vec<Problem>> {
    let count = layers.stages.len();
    let known = usize::try_from(*n).ok().filter(|n| *n <= count);
    known.ok_or_else(|| {
        let names = Vec::from_iter(layers.stage_names()).join(", ");
        let message = format!("`{form}` is {n}, but this model has {count} stages: {names}");
        vec![Problem::new(PATH, OUT_OF_RANGE, message)]
    })
}

/// The number of stages, from the input side, that hold at least this share of the parameters.
fn stages_of_share(layers: &Layers, share: f64) -> usize {
    let total: u64 = layers.stages.iter().map(|stage| stage.parameters).sum();
    let wanted = share * total as f64;
    let mut held = 0;
    for (n, stage) in layers.stages.iter().enumerate() {
        if held as f64 >= wanted {
            return n;
        }
        held += stage.parameters;
    }
    layers.stages.len()
}

fn blocks(layers: &Layers, names: &[String]) -> Result<Vec<String>, Vec<Problem>> {
    let known = layers
        .stages
        .iter()
        .flat_map(|s| std::iter::once(s.name.as_str()).chain(s.blocks.iter().map(String::as_str)));
    each_known(names, known, "this model has no stage or block")?;
    Ok(keep(layers, |tensor| {
        names.contains(&tensor.stage) || names.contains(&tensor.block)
    }))
}

fn parameters(layers: &Layers, names: &[String]) -> Result<Vec<String>, Vec<Problem>> {
    let known = layers.parameters().map(|tensor| tensor.name.as_str());
    each_known(names, known, "this model has no parameter")?;
    Ok(keep(layers, |tensor| names.contains(&tensor.name)))
}

fn matching(layers: &Layers, pattern: &str) -> Result<Vec<String>, Vec<Problem>> {
    let regex = compiled(pattern, PATH)?;
    let trainable = keep(layers, |tensor| regex.is_match(&tensor.name));
    if trainable.len() == layers.parameters().count() {
        let first = layers.parameters().take(3);
        let first: Vec<&str> = first.map(|tensor| tensor.name.as_str()).collect();
        let names = one_of(&first);
        let message = format!("`regex` matches no parameter; their names are like {names}");
        return Err(vec![Problem::new(PATH, UNKNOWN_LAYER, message)]);
    }
    Ok(trainable)
}

/// Compiles the regular expression of the option at `path`.
///
/// # Errors
/// It is not a regular expression, or too large.
pub(super) fn compiled(pattern: &str, path: &str) -> Result<Regex, Vec<Problem>> {
    let regex = RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    regex.map_err(|error| {
        // The message of `regex` shows the pattern on several lines; only the last one has the
        // reason.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        let message = format!("`regex` is not a regular expression: {reason}");
        vec![Problem::new(path, INVALID_VALUE, message)]
    })
}

/// One problem for each unknown name.
fn each_known<'a>(
    names: &'a [String],
    known: impl Iterator<Item = &'a str> + Clone,
    lacks: &str,
) -> Result<(), Vec<Problem>> {
    refuse(unknown_names(names, known, (PATH, UNKNOWN_LAYER, lacks)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::layers;

    fn trains(freeze: Freeze) -> String {
        let names = trainable(&freeze, &layers()).unwrap();
        names
            .iter()
            .map(|name| name.trim_end_matches(".conv.weight"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn each_policy_trains_its_parameters() {
        assert_eq!(trains(Freeze::All), "");
        assert_eq!(
            trains(Freeze::None),
            "stem.0 stem.1 layer1.0 layer1.1 layer2.0 layer2.1"
        );
        assert_eq!(trains(Freeze::AllButLastStages(1)), "layer2.0 layer2.1");
        assert_eq!(trains(Freeze::AllButLastStages(3)), trains(Freeze::None));
        assert_eq!(
            trains(Freeze::FirstN(1)),
            "layer1.0 layer1.1 layer2.0 layer2.1"
        );
        assert_eq!(trains(Freeze::Fraction(0.0)), trains(Freeze::None));
        assert_eq!(trains(Freeze::Fraction(0.3)), "layer2.0 layer2.1");
        assert_eq!(trains(Freeze::Fraction(0.31)), "");
        assert_eq!(
            trains(Freeze::Blocks(vec!["stem".into(), "layer1.0".into()])),
            "layer1.1 layer2.0 layer2.1"
        );
        assert_eq!(
            trains(Freeze::Regex(r"^(stem|layer\d)\.0\.".into())),
            "stem.1 layer1.1 layer2.1"
        );
        assert_eq!(
            trains(Freeze::Names(vec!["stem.0.conv.weight".into()])),
            "stem.1 layer1.0 layer1.1 layer2.0 layer2.1"
        );
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_ones() {
        let problems = trainable(
            &Freeze::Blocks(vec!["layer9".into(), "stem".into(), "lyer2.1".into()]),
            &layers(),
        );
        let messages: Vec<String> = problems
            .unwrap_err()
            .into_iter()
            .map(|problem| problem.message)
            .collect();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].contains("`layer1`"), "{messages:?}");
        assert!(
            messages[1].contains("did you mean `layer2.1`"),
            "{messages:?}"
        );
        for wrong in [
            Freeze::AllButLastStages(4),
            Freeze::FirstN(u64::MAX),
            Freeze::Regex("nothing".into()),
            Freeze::Regex("(".into()),
            Freeze::Names(vec!["stem.0.bn.running_mean".into()]),
        ] {
            assert_eq!(
                trainable(&wrong, &layers()).unwrap_err().len(),
                1,
                "{wrong:?}"
            );
        }
    }
}
