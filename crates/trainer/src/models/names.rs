//! Names of tensors as people have them, turned into those of a network: prefixes that wrappers
//! add, tensors that nothing here needs, names of other projects.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};

use super::{architecture::Architecture, library_names, weights::Tensors};
use crate::domain::problem::{Problem, quoted};

/// Prefixes that wrappers add to every name: `DataParallel`, `torch.compile`, Lightning modules,
/// self-supervised training, transformers.
const PREFIXES: [&str; 10] = [
    "timm_model.",
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
    "network.",
    "teacher.",
    "student.",
];
/// How many of them a name may have.
const PREFIX_DEPTH: usize = 4;
/// Last parts of names that profilers leave in a state dict.
const COUNTERS: [&str; 2] = ["total_ops", "total_params"];
/// Last parts of the names of buffers that follow from a network's shape, in files that have them:
/// of windows and of rotary positions.
const BUFFERS: [&str; 5] = [
    "relative_position_index",
    "attn_mask",
    "freqs_cos",
    "freqs_sin",
    "periods",
];
/// First parts of names that only pre-training uses: the token for masked patches and its head, the
/// layer before ViT's old head, Inception's second head.
const OF_PRE_TRAINING: [&str; 4] = ["mask_token", "lm_head", "pre_logits", "AuxLogits"];
/// First parts of the names that heads have.
const HEADS: [&str; 4] = ["classifier", "fc", "head", "heads"];

/// The tensors under the names of the architecture, as far as these are known, and in its type:
/// float64 becomes float32.
pub(super) fn in_own_words(architecture: &Architecture, tensors: Tensors) -> Tensors {
    let tensors = library_names::to_timm(architecture, tensors);
    let names = without_prefixes(architecture, tensors.keys().cloned().collect());
    let named = names.iter().map(|name| architecture.timm_name(name));
    let tensors = tensors.into_values().map(|tensor| match tensor.kind() {
        Kind::Double => tensor.to_kind(Kind::Float),
        _ => tensor,
    });
    named.zip(tensors).collect()
}

/// Takes off the prefixes of wrappers: those that make more names known, or that all names have
/// while none is.
fn without_prefixes(architecture: &Architecture, mut names: Vec<String>) -> Vec<String> {
    let has_prefix = |name: &String| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    // To know the network's names is to build it.
    if !names.iter().any(has_prefix) {
        return names;
    }
    let own = own_names(architecture);
    let count_known = |names: &[String]| {
        let known = |name: &&String| own.contains(&architecture.timm_name(name));
        names.iter().filter(known).count()
    };
    for _ in 0..PREFIX_DEPTH {
        let known = count_known(&names);
        let better = PREFIXES.iter().find_map(|prefix| {
            let short = |name: &String| name.strip_prefix(prefix).unwrap_or(name).to_owned();
            let shorter: Vec<String> = names.iter().map(short).collect();
            let is_distinct = shorter.iter().collect::<BTreeSet<_>>().len() == names.len();
            let all_have_it = names.iter().all(|name| name.starts_with(prefix));
            let is_better = count_known(&shorter) > known || (known == 0 && all_have_it);
            (is_distinct && is_better).then_some(shorter)
        });
        let Some(shorter) = better else { break };
        names = shorter;
    }
    names
}

/// Takes out what the network does not have and nobody misses: leftovers of profilers and of
/// pre-training, buffers that are computed here, and a head of other names, which is replaced
/// anyway.
pub(super) fn leave_out(
    architecture: &Architecture,
    named: &[(String, Tensor)],
    tensors: &mut Tensors,
) {
    let own: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let head = architecture.classifier_tensors();
    let has_head = head.iter().any(|name| tensors.contains_key(name));
    tensors.retain(|name, _| {
        let first = name.split('.').next().unwrap_or_default();
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_leftover = COUNTERS.contains(&last)
            || BUFFERS.contains(&last)
            || OF_PRE_TRAINING.contains(&first)
            || (HEADS.contains(&first) && !has_head);
        own.contains(name.as_str()) || !is_leftover
    });
}

/// The one problem with a file that has none of the network's names.
pub(super) fn of_another_project(
    architecture: &Architecture,
    named: &[(String, Tensor)],
    tensors: &Tensors,
) -> Option<Problem> {
    if named.iter().any(|(name, _)| tensors.contains_key(name)) {
        return None;
    }
    let (own, given) = (&named.first()?.0, tensors.keys().next()?);
    let given = quoted(given);
    let begins = |with: &[&str]| {
        let mut names = tensors.keys();
        names.any(|name| with.iter().any(|with| name.starts_with(with)))
    };
    let whose = if begins(&[
        "features.0.",
        "conv_proj.",
        "class_token",
        "encoder.layers.",
    ]) {
        "torchvision's names; save the model of timm instead"
    } else if begins(&[
        "vit.",
        "resnet.",
        "convnext.",
        "mobilenet_v2.",
        "embeddings.",
        "efficientnet.",
        "dinov2.",
    ]) {
        "the names of transformers; save the model of timm instead"
    } else {
        "not the names of timm's model; check `architecture`, and save `model.state_dict()` of timm's model"
    };
    let message = format!(
        "the file's {} tensors have names such as `{given}`, where `{}` has `{own}`: {whose}",
        tensors.len(),
        architecture.name
    );
    Some(Problem::new("weights", "missing_tensor", message))
}

/// The names of the tensors of the architecture as it is published, and of its head.
fn own_names(architecture: &Architecture) -> BTreeSet<String> {
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let named = architecture.build(&vs.root(), &architecture.input).named();
    let names = named.into_iter().map(|(name, _)| name);
    names.chain(architecture.classifier_tensors()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::registry;

    /// SqueezeNet, and its tensors under changed names.
    fn renamed(rename: impl Fn(&str) -> String) -> (&'static Architecture, Tensors, Tensors) {
        let architecture = registry::find("squeezenet1_1").unwrap();
        let vs = tch::nn::VarStore::new(tch::Device::Cpu);
        let named = architecture.build(&vs.root(), &architecture.input).named();
        let copy = |tensor: &Tensor| tensor.shallow_clone();
        let other = named
            .iter()
            .map(|(name, tensor)| (rename(name), copy(tensor)));
        let other = other.collect();
        (architecture, named.into_iter().collect(), other)
    }

    #[test]
    fn prefixes_of_wrappers_are_taken_off() {
        for prefix in [
            "",
            "module.",
            "_orig_mod.module.",
            "model.backbone.",
            "student.encoder.",
        ] {
            let (architecture, own, given) = renamed(|name| format!("{prefix}{name}"));
            let found = in_own_words(architecture, given);
            assert!(found.keys().eq(own.keys()), "{prefix}");
        }
        // Of a whole Lightning module, with its metric's state.
        let (architecture, own, mut given) = renamed(|name| format!("model.{name}"));
        given.insert(
            "criterion.weight".to_owned(),
            Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)),
        );
        let found = in_own_words(architecture, given);
        assert!(own.keys().all(|name| found.contains_key(name)));
        assert!(found.contains_key("criterion.weight"));
    }

    #[test]
    fn doubles_become_floats() {
        let (architecture, _, given) = renamed(str::to_owned);
        let doubles = given
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_kind(Kind::Double)));
        let found = in_own_words(architecture, doubles.collect());
        assert!(found.values().all(|tensor| tensor.kind() == Kind::Float));
    }

    #[test]
    fn leftovers_and_heads_of_other_names_are_left_out() {
        let (architecture, own, mut given) = renamed(str::to_owned);
        let named: Vec<_> = own.into_iter().collect();
        let one = || Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        for name in [
            "features.0.total_ops",
            "total_params",
            "features.0.relative_position_index",
            "mask_token",
            "classifier.0.weight",
            "head.bias",
        ] {
            given.insert(name.to_owned(), one());
        }
        leave_out(architecture, &named, &mut given);
        assert_eq!(given.len(), named.len());
        // Beside a head of the right name, another one is a mistake.
        given.insert("classifier.1.weight".to_owned(), one());
        given.insert("head.bias".to_owned(), one());
        leave_out(architecture, &named, &mut given);
        assert_eq!(given.len(), named.len() + 2);
    }

    #[test]
    fn names_of_another_project_are_one_problem_that_says_so() {
        let (architecture, own, given) = renamed(|name| format!("embeddings.x.{name}"));
        let named: Vec<_> = own.into_iter().collect();
        let problem = of_another_project(architecture, &named, &given).unwrap();
        assert_eq!(problem.code, "missing_tensor");
        assert!(problem.message.contains("transformers"), "{problem:?}");
        let (_, _, given) = renamed(str::to_owned);
        assert_eq!(of_another_project(architecture, &named, &given), None);
    }
}
