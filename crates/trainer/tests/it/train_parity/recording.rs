//! The options of a recorded training. What has no meaning here is an error that names it: a field,
//! or a value.

use std::collections::BTreeMap;

use rehead_domain::{
    base_model::Layers,
    input::Input,
    recipe::{BatchNorm, Optimizer as Kind, Recipe},
};
use rehead_trainer::models::{architecture::Architecture, registry};
use serde::Deserialize;
use serde_json::Value;

use crate::support::training;

/// Rules of all recordings, in their words.
const RULES: &str = "weight decay: adamw only on tensors of 2+ dims, sgd on all; dropout 0; features times feature_scale before the head";
/// Constants of SGD and AdamW that a recipe does not set.
const MOMENTUM: f64 = 0.9;
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recording {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "versions", default)]
    _versions: Value,
    pub arch: String,
    #[serde(default = "defaults::img_size")]
    pub img_size: u32,
    #[serde(default = "defaults::in_chans")]
    pub in_chans: u32,
    #[serde(default = "defaults::batch", alias = "batch_size")]
    pub batch: i64,
    #[serde(default = "defaults::classes", alias = "num_classes")]
    pub classes: usize,
    trainable: Parts,
    bn_unfrozen: Option<BnMode>,
    optimizer: OptimizerOptions,
    clip: Option<f64>,
    label_smoothing: Option<f64>,
    steps: usize,
    #[serde(default = "defaults::feature_scale")]
    pub feature_scale: f64,
    pub losses: Vec<f64>,
    pub final_l2: BTreeMap<String, f64>,
    pub unchanged: Vec<String>,
    rules: String,
}

mod defaults {
    pub(super) fn img_size() -> u32 {
        64
    }
    pub(super) fn in_chans() -> u32 {
        3
    }
    pub(super) fn batch() -> i64 {
        8
    }
    pub(super) fn classes() -> usize {
        3
    }
    pub(super) fn feature_scale() -> f64 {
        1.0
    }
}

/// Parts of a network by the beginnings of their names: `a,b`, or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Parts {
    Joined(String),
    List(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BnMode {
    Train,
    Eval,
}

/// A value for all steps, or for each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rate {
    Constant(f64),
    OfSteps(Vec<f64>),
}

impl Rate {
    /// The peak in the recipe, of which each step has a share.
    fn peak(&self) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::OfSteps(rates) => rates.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Options that are left out are PyTorch's defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizerOptions {
    name: String,
    lr: Rate,
    momentum: Option<f64>,
    dampening: Option<f64>,
    nesterov: Option<bool>,
    weight_decay: Option<f64>,
    betas: Option<[f64; 2]>,
    eps: Option<f64>,
}

impl OptimizerOptions {
    fn kind(&self) -> Result<Kind, String> {
        let only = |what: &str, said: bool| {
            let message = format!("{what} has no meaning for `{}`", self.name);
            if said { Err(message) } else { Ok(()) }
        };
        match self.name.as_str() {
            "sgd" => {
                only("betas", self.betas.is_some())?;
                only("eps", self.eps.is_some())?;
                let momentum = self.momentum.unwrap_or(0.0);
                if self.dampening.unwrap_or(0.0) != 0.0 {
                    return Err("dampening: SGD has none here".to_owned());
                }
                if momentum != MOMENTUM {
                    return Err(format!("momentum {momentum}: SGD has {MOMENTUM} here"));
                }
                Ok(match self.nesterov {
                    Some(true) => Kind::Nesterov,
                    _ => Kind::Sgd,
                })
            }
            "adamw" => {
                only("momentum", self.momentum.is_some())?;
                only("dampening", self.dampening.is_some())?;
                only("nesterov", self.nesterov == Some(true))?;
                let (betas, eps) = (self.betas.unwrap_or(BETAS), self.eps.unwrap_or(EPS));
                if betas != BETAS {
                    return Err(format!("betas {betas:?}: AdamW has {BETAS:?} here"));
                }
                if eps != EPS {
                    return Err(format!("eps {eps}: AdamW has {EPS} here"));
                }
                Ok(Kind::Adamw)
            }
            other => Err(format!("there is no optimizer `{other}` here")),
        }
    }

    fn weight_decay(&self) -> f64 {
        let usual = if self.name == "adamw" { 0.01 } else { 0.0 };
        self.weight_decay.unwrap_or(usual)
    }
}

impl Recording {
    pub(super) fn read(recording: &Value) -> Result<Self, String> {
        let read: Self =
            serde_json::from_value(recording.clone()).map_err(|error| error.to_string())?;
        if read.losses.len() != read.steps {
            let (losses, steps) = (read.losses.len(), read.steps);
            return Err(format!("{losses} losses for {steps} steps"));
        }
        if let Rate::OfSteps(rates) = &read.optimizer.lr
            && rates.len() != read.steps
        {
            let (rates, steps) = (rates.len(), read.steps);
            return Err(format!("lr: {rates} rates for {steps} steps"));
        }
        if read.rules != RULES {
            return Err(format!("other rules than are kept here: {}", read.rules));
        }
        Ok(read)
    }

    /// The factor of the peak rate at `step` (from 1).
    pub(super) fn rate_factor(&self, step: u64) -> f64 {
        match &self.optimizer.lr {
            Rate::Constant(_) => 1.0,
            Rate::OfSteps(rates) => rates[step as usize - 1] / self.optimizer.lr.peak(),
        }
    }

    pub(super) fn recipe(
        &self,
        architecture: &Architecture,
        input: &Input,
    ) -> Result<Recipe, String> {
        let rate = self.optimizer.lr.peak();
        let layers = registry::layers(architecture, input);
        let trainable = self.trainable(&layers)?;
        let with_statistics = |name: &String| {
            let layer = name.strip_suffix(".weight").unwrap_or_default();
            let statistics = format!("{layer}.running_mean");
            layers.tensors.iter().any(|one| one.name == statistics)
        };
        let batch_norm = match self.bn_unfrozen {
            Some(BnMode::Train) => BatchNorm::Update,
            Some(BnMode::Eval) => BatchNorm::Frozen,
            None if trainable.iter().any(with_statistics) => {
                return Err("`bn_unfrozen` must say how BatchNorm runs that trains".to_owned());
            }
            None => BatchNorm::Frozen,
        };
        Ok(Recipe {
            trainable,
            optimizer: self.optimizer.kind()?,
            learning_rate: rate,
            backbone_learning_rate: rate,
            weight_decay: self.optimizer.weight_decay(),
            label_smoothing: self.label_smoothing.unwrap_or(0.0),
            gradient_clip: self.clip,
            batch_norm,
            ..training::recipe()
        })
    }

    /// Parameters of the backbone that train: all, or those of the parts, each a module, a tensor
    /// or a stage. The head always does.
    fn trainable(&self, layers: &Layers) -> Result<Vec<String>, String> {
        let parts: Vec<&str> = match &self.trainable {
            Parts::Joined(names) => names.split(',').map(str::trim).collect(),
            Parts::List(names) => names.iter().map(String::as_str).collect(),
        };
        let is_all = parts.contains(&"all");
        if !is_all && !parts.contains(&"head") {
            return Err("`trainable` leaves out the head, which always trains here".to_owned());
        }
        let mut chosen: Vec<&str> = Vec::new();
        for part in parts {
            let found = self.of_part(part, layers);
            if found.is_empty() && part != "head" {
                return Err(format!("`trainable`: the backbone has no part `{part}`"));
            }
            chosen.extend(found);
        }
        let names = layers.parameters().map(|one| one.name.as_str());
        let names = names.filter(|name| chosen.contains(name));
        Ok(names.map(str::to_owned).collect())
    }

    fn of_part<'a>(&self, part: &str, layers: &'a Layers) -> Vec<&'a str> {
        let under = format!("{part}.");
        let named = |name: &str| part == "all" || name == part || name.starts_with(&under);
        let parameters = layers.parameters();
        let mut found: Vec<&str> = parameters
            .clone()
            .map(|one| one.name.as_str())
            .filter(|name| named(name))
            .collect();
        if part == "head" {
            // A backbone whose last norm is named after the head: what it did is what was meant.
            found.retain(|name| !self.unchanged.iter().any(|unchanged| unchanged == name));
        } else if found.is_empty() {
            let of_stage = parameters.filter(|one| one.stage == part);
            found.extend(of_stage.map(|one| one.name.as_str()));
        }
        found
    }
}
