//! Imports uploaded weights: reads `.pth` or safetensors, maps published names to timm's, checks
//! every tensor against the architecture, and writes safetensors. The work of `rehead-trainer
//! validate` on an `ValidatePlan::Weights`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use tch::{Device, Kind, Tensor, nn};

use super::{
    adapt,
    architecture::Architecture,
    cost, names, pth, registry, shards,
    weights::{self, Tensors, WeightsError},
};
use crate::{
    data::file_kind::FileKind,
    domain::{
        base_model::AskedPreprocessing,
        input::{Input, Modality},
        problem::{self, Problem},
        progress::Validated,
        work::Imported,
    },
};

/// The converted weights, in the plan's folder.
pub const MODEL: &str = "model.safetensors";
/// The result (an `Imported`), in the plan's folder.
pub const IMPORTED: &str = "imported.json";

/// An import: the fields of a `ValidatePlan::Weights`.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    pub input: &'a Path,
    pub architecture: &'a str,
    pub max_bytes: u64,
    pub preprocessing: &'a AskedPreprocessing,
}

/// Imports into `folder`: `model.safetensors` and `imported.json` when accepted, nothing when
/// refused.
///
/// # Errors
/// Failures that are not the input's fault, such as a full disk.
pub fn run(plan: &Import, folder: &Path) -> anyhow::Result<Validated> {
    Ok(match network(plan)? {
        Ok((architecture, input, network)) => {
            write(architecture, input, &network, folder)?;
            Validated::Accepted
        }
        Err(problems) => Validated::Refused { problems },
    })
}

/// The network that a plan's weights are of, and its input; or all problems with the plan.
fn network(plan: &Import) -> anyhow::Result<Result<Adopted, Vec<Problem>>> {
    let Some(architecture) = registry::find(plan.architecture) else {
        return Ok(Err(vec![unknown(plan.architecture)]));
    };
    let Input::Image(usual) = &architecture.input else {
        return Ok(Err(vec![unsupported(architecture)]));
    };
    let mut problems = plan.preprocessing.problems();
    let tensors = match read(plan.input, plan.max_bytes) {
        Ok(tensors) if problems.is_empty() => tensors,
        Ok(_) => return Ok(Err(problems)),
        Err(WeightsError::Refused { code, message }) => {
            problems.push(Problem::new("weights", code, message));
            return Ok(Err(problems));
        }
        Err(error) => return Err(error).context("reading the weights"),
    };
    let tensors = names::in_own_words(architecture, tensors);
    let asked = plan.preprocessing;
    let input = match adapt::resolve_preprocessing(architecture, usual, asked, &tensors) {
        Ok(input) => Input::Image(input),
        Err(problem) => return Ok(Err(vec![problem])),
    };
    let network = adopt(architecture, &input, tensors);
    Ok(network.map(|network| (architecture, input, network)))
}

/// Writes the converted weights and the result.
fn write(
    architecture: &Architecture,
    input: Input,
    (named, classes): &Network,
    folder: &Path,
) -> anyhow::Result<()> {
    let metadata = BTreeMap::from([
        ("architecture".to_owned(), architecture.name.to_owned()),
        ("format".to_owned(), "pt".to_owned()),
    ]);
    weights::write_safetensors(&folder.join(MODEL), named, &metadata)?;
    let mut layers = registry::layers(architecture, &input);
    let head = classes.map_or(0, |classes| {
        u64::from(classes) * (u64::from(architecture.feature_dim) + 1)
    });
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), &input);
    layers.costs = cost::of_stages(&backbone, &input);
    let speed = cost::picoseconds_per_mac(&backbone, &input, &layers.costs);
    layers.picoseconds_per_mac = Some(speed);
    let imported = Imported {
        architecture: architecture.name.to_owned(),
        parameters: layers
            .stages
            .iter()
            .map(|stage| stage.parameters)
            .sum::<u64>()
            + head,
        layers,
        input,
        classes: *classes,
    };
    let (path, partial) = (folder.join(IMPORTED), folder.join("imported.partial"));
    fs::write(&partial, serde_json::to_vec_pretty(&imported)?)
        .and_then(|()| fs::rename(&partial, &path))
        .with_context(|| path.display().to_string())
}

fn unknown(name: &str) -> Problem {
    let names = registry::of(Modality::Image).map(|architecture| architecture.name);
    let message = format!(
        "there is no architecture `{name}`; {}",
        problem::suggestion(name, names)
    );
    Problem::new("architecture", "unknown_architecture", message)
}

fn unsupported(architecture: &Architecture) -> Problem {
    let message = format!(
        "`{}` reads {}; only networks that read images can be imported so far",
        architecture.name,
        architecture.modality()
    );
    Problem::new("architecture", "unsupported_modality", message)
}

const NOT_WEIGHTS: &str =
    "this is neither safetensors nor a file of `torch.save(model.state_dict())`; save it as one";

/// The tensors of a weights file: safetensors, torch's pickle, or a tar of several such files. They
/// are told apart by content, never by name.
///
/// # Errors
/// A file of none of these formats, past a limit, or that cannot be read.
pub fn read(path: &Path, max_bytes: u64) -> Result<Tensors, WeightsError> {
    let length = fs::metadata(path).map_err(WeightsError::io(path))?.len();
    if length > max_bytes {
        return Err(WeightsError::too_large(format!(
            "the file has {length} bytes; at most {max_bytes} are read"
        )));
    }
    if length == 0 {
        return Err(WeightsError::format("the file is empty"));
    }
    let bytes = weights::map(path)?;
    if shards::is_tar(&bytes) {
        shards::parse(&bytes, parse)
    } else {
        parse(&bytes)
    }
}

/// The tensors of one file's bytes.
fn parse(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    if weights::is_safetensors(bytes) {
        weights::parse_safetensors(bytes)
    } else if pth::is_pth(bytes) {
        pth::parse(bytes)
    } else {
        Err(WeightsError::format(match FileKind::of(bytes) {
            Some(kind) => kind.to_string(),
            None => NOT_WEIGHTS.to_owned(),
        }))
    }
}

/// The tensors that the architecture needs, as f32 under timm's names in forward order, with the
/// original head where there is one, and that head's classes.
type Network = (Vec<(String, Tensor)>, Option<u32>);

/// A network whose weights were read, and its input.
type Adopted = (&'static Architecture, Input, Network);

/// Adapts tensors to an architecture with this input, or lists every mismatch.
fn adopt(
    architecture: &Architecture,
    input: &Input,
    mut tensors: Tensors,
) -> Result<Network, Vec<Problem>> {
    let vs = nn::VarStore::new(Device::Cpu);
    let mut named = architecture.build(&vs.root(), input).named();
    adapt::adapt(architecture, &named, &mut tensors);
    names::leave_out(architecture, &named, &mut tensors);
    if let Some(problem) = names::of_another_project(architecture, &named, &tensors) {
        return Err(vec![problem]);
    }
    let backbone = named.len();
    let classes = claimed_head(architecture, &tensors).map(|(classes, head)| {
        named.extend(head);
        classes
    });
    let report = weights::check(&named, &tensors, &[]);
    if !report.is_empty() {
        return Err(report.problems());
    }
    // What the file claimed of its head is there: now it may have memory.
    for (_, tensor) in &mut named[backbone..] {
        *tensor = tensor.contiguous();
    }
    weights::load_strict(&named, &tensors, &[]).map_err(|report| report.problems())?;
    Ok((named, classes))
}

/// The shapes that a head in these tensors must have, and its classes. Any number of classes will
/// do, so long as both tensors and the features agree on it.
///
/// The tensors are one number each, seen as many: a shape of a file is a claim, which costs no
/// bytes where another side of it is zero.
fn claimed_head(
    architecture: &Architecture,
    tensors: &Tensors,
) -> Option<(u32, [(String, Tensor); 2])> {
    let [weight, bias] = architecture.classifier_tensors();
    let given = [&weight, &bias].map(|name| tensors.get(name));
    given.iter().flatten().next()?;
    let count = given
        .iter()
        .flatten()
        .find_map(|tensor| u32::try_from(*tensor.size().first()?).ok())
        .unwrap_or(1);
    let classes = i64::from(count);
    let mut dims = vec![classes, i64::from(architecture.feature_dim)];
    if given[0].is_some_and(|weight| weight.dim() == 4) {
        // A classifier that is a 1x1 convolution, as SqueezeNet's.
        dims.extend([1, 1]);
    }
    let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let head = [
        (weight, zero.expand(&dims, false)),
        (bias, zero.expand([classes], false)),
    ];
    Some((count, head))
}
