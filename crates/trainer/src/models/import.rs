//! Imports uploaded weights: reads `.pth` or safetensors, maps published names to timm's, checks every tensor against
//! the architecture, and writes safetensors. The work of `rehead-trainer inspect` on an `InspectPlan::Weights`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use tch::{Device, Kind, Tensor, nn};

use super::{
    cost, pth, registry,
    registry::Architecture,
    weights::{self, Tensors, WeightsError},
};
use crate::domain::{
    base_model::Preprocessing,
    problem::{self, Problem},
    progress::Inspected,
    work::Imported,
};

/// The converted weights, in the plan's folder.
pub const MODEL: &str = "model.safetensors";
/// What was found (an `Imported`), in the plan's folder.
pub const IMPORTED: &str = "imported.json";

/// What to import: the fields of an `InspectPlan::Weights`.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    pub input: &'a Path,
    pub architecture: &'a str,
    pub max_bytes: u64,
    pub preprocessing: Option<&'a Preprocessing>,
}

/// Imports into `folder`: `model.safetensors` and `imported.json` when accepted, nothing when refused.
///
/// # Errors
/// What is not the input's fault, such as a full disk.
pub fn run(plan: &Import, folder: &Path) -> anyhow::Result<Inspected> {
    let Some(architecture) = registry::find(plan.architecture) else {
        return Ok(Inspected::Refused {
            problems: vec![unknown(plan.architecture)],
        });
    };
    let mut problems = plan
        .preprocessing
        .map(check_preprocessing)
        .unwrap_or_default();
    let tensors = match read(plan.input, plan.max_bytes) {
        Ok(tensors) => Some(tensors),
        Err(WeightsError::Refused { code, message }) => {
            problems.push(Problem::new("weights", code, message));
            None
        }
        Err(error) => return Err(error).context("reading the weights"),
    };
    let network = tensors.map(|tensors| adopt(architecture, tensors));
    let (named, classes) = match network {
        Some(Ok(network)) if problems.is_empty() => network,
        Some(Err(mut unfit)) => {
            problems.append(&mut unfit);
            return Ok(Inspected::Refused { problems });
        }
        _ => return Ok(Inspected::Refused { problems }),
    };
    let metadata = BTreeMap::from([
        ("architecture".to_owned(), architecture.name.to_owned()),
        ("format".to_owned(), "pt".to_owned()),
    ]);
    weights::write_safetensors(&folder.join(MODEL), &named, &metadata)?;
    let mut layers = registry::layers(architecture);
    let head = classes.map_or(0, |classes| {
        u64::from(classes) * (u64::from(architecture.feature_dim) + 1)
    });
    let preprocessing = plan
        .preprocessing
        .unwrap_or(&architecture.preprocessing)
        .clone();
    let vs = nn::VarStore::new(Device::Cpu);
    layers.costs = cost::of_stages(&architecture.build(&vs.root()), preprocessing.input_size);
    let imported = Imported {
        architecture: architecture.name.to_owned(),
        parameters: layers
            .stages
            .iter()
            .map(|stage| stage.parameters)
            .sum::<u64>()
            + head,
        layers,
        preprocessing,
        classes,
    };
    let (path, partial) = (folder.join(IMPORTED), folder.join("imported.partial"));
    fs::write(&partial, serde_json::to_vec_pretty(&imported)?)
        .and_then(|()| fs::rename(&partial, &path))
        .with_context(|| path.display().to_string())?;
    Ok(Inspected::Accepted)
}

fn unknown(name: &str) -> Problem {
    let names = registry::all().iter().map(|architecture| architecture.name);
    let message = format!(
        "there is no architecture `{name}`; {}",
        problem::suggestion(name, names)
    );
    Problem::new("architecture", "unknown_architecture", message)
}

/// The tensors of a weights file: safetensors or torch's pickle, told apart by content, never by name.
///
/// # Errors
/// A file of neither format, past a limit, or that cannot be read.
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
    if weights::is_safetensors(&bytes) {
        weights::parse_safetensors(&bytes)
    } else if pth::is_pth(&bytes) {
        pth::parse(&bytes)
    } else {
        Err(WeightsError::format(
            "this is neither safetensors nor a file of `torch.save(model.state_dict())`",
        ))
    }
}

/// The tensors that the architecture needs, as f32 under timm's names in forward order, with the original head where
/// there is one, and that head's classes.
type Network = (Vec<(String, Tensor)>, Option<u32>);

/// Fits tensors to an architecture, or says everything that does not fit.
fn adopt(architecture: &Architecture, tensors: Tensors) -> Result<Network, Vec<Problem>> {
    let tensors: Tensors = tensors
        .into_iter()
        .map(|(name, tensor)| (architecture.timm_name(&name), tensor))
        .collect();
    let vs = nn::VarStore::new(Device::Cpu);
    let mut named = architecture.build(&vs.root()).named();
    let (weight, bias) = (
        format!("{}.weight", architecture.classifier),
        format!("{}.bias", architecture.classifier),
    );
    let mut classes = None;
    if tensors.contains_key(&weight) || tensors.contains_key(&bias) {
        // Any number of classes will do, so long as both tensors and the features agree on it.
        let count = [&weight, &bias]
            .into_iter()
            .find_map(|name| tensors.get(name)?.size().first().copied())
            .unwrap_or(1);
        let zeros = |dims: &[i64]| Tensor::zeros(dims, (Kind::Float, Device::Cpu));
        let mut dims = vec![count, i64::from(architecture.feature_dim)];
        if tensors.get(&weight).is_some_and(|given| given.dim() == 4) {
            // A classifier that is a 1x1 convolution, as SqueezeNet's.
            dims.extend([1, 1]);
        }
        named.push((weight, zeros(&dims)));
        named.push((bias, zeros(&[count])));
        classes = u32::try_from(count).ok();
    }
    weights::load_strict(&named, &tensors, &[]).map_err(|report| report.problems())?;
    Ok((named, classes))
}

fn check_preprocessing(preprocessing: &Preprocessing) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |field: &str, message: &str| {
        problems.push(Problem::new(
            format!("preprocessing.{field}"),
            "invalid_value",
            message,
        ));
    };
    if !(32..=1024).contains(&preprocessing.input_size) {
        refuse("input_size", "the side of the input is 32 to 1024 pixels");
    }
    if !(0.1..=1.0).contains(&preprocessing.crop_fraction) {
        refuse(
            "crop_fraction",
            "the share of the short side that is kept is 0.1 to 1",
        );
    }
    if !preprocessing.mean.iter().all(|mean| mean.abs() <= 10.0) {
        refuse(
            "mean",
            "means are on pixels scaled to 0..1, and at most 10 in size",
        );
    }
    if !preprocessing
        .std
        .iter()
        .all(|std| (1e-3..=1e3).contains(std))
    {
        refuse(
            "std",
            "deviations are on pixels scaled to 0..1, from 0.001 to 1000",
        );
    }
    problems
}
