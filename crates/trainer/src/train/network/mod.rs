//! The network of a run: a backbone of which some part trains, under a new head. What is frozen
//! stays bit for bit, its BatchNorm included; what trains, and nothing else, is in `parameters`.

/// A tensor that trains, and its learning-rate group.
pub mod parameter;

/// The network of a checkpoint, to predict with.
pub mod checkpoint;

/// Weights of a parent model or checkpoint.
mod parent;

/// Gradients in less memory.
mod recompute;

use std::collections::{BTreeMap, HashSet};

use tch::{Device, Kind, Tensor, nn};

use self::parameter::{Group, Parameter};
use super::rng::{Stream, key};
use crate::{
    domain::{
        recipe::{Adapter, BatchNorm, PRE_LOGITS, Precision, Recipe},
        work::PlanModel,
    },
    models::{
        architecture::Architecture,
        backbone::{Backbone, BackboneTensor},
        head::Head,
        inference::{Extractor, has_bfloat16},
        lora,
        pass::{Masks, Norm, Pass, Statistics},
        registry, weights,
    },
    process::error::TrainError,
};

/// Samples of a step that pass through the network together in training.
#[derive(Debug, Default)]
pub struct Shard {
    /// From 1.
    pub step: u64,
    /// Samples of the step before the shard's first.
    pub first: usize,
    /// Running statistics as the pass leaves them; `Statistics::keep` takes them over.
    pub statistics: Statistics,
}

impl Shard {
    /// A step in one shard.
    pub fn whole(step: u64) -> Self {
        Self {
            step,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
pub struct Network {
    pub architecture: &'static Architecture,
    /// Width of the features.
    pub feature_dim: i64,
    /// Hashes of the files that decide the weights of the backbone as it was loaded; part of every
    /// cache key.
    pub backbone_sha256: String,
    /// Trained parameters: the backbone's in forward order, then the head's, under timm's names.
    pub parameters: Vec<Parameter>,
    backbone: Backbone,
    head: Head,
    /// The longest run of stages from the input side in which nothing trains.
    frozen: Extractor,
    frozen_stages: usize,
    /// True while no parameter of the backbone has trained in any phase.
    has_loaded_backbone: bool,
    /// Number of later phases of the freeze schedule that were entered.
    phase: usize,
    /// The order in memory of weights and activations of the trained part: that of the images,
    /// which takes fewer copies. Rounding differs. With one shard it is PyTorch's own, so that
    /// recordings of PyTorch's trainings hold; several shards add up otherwise anyway.
    is_channels_last: bool,
    /// How BatchNorm layers train.
    batch_norm: BatchNorm,
    /// The type that the trained part computes in.
    kind: Kind,
    /// Number format of a wholly frozen backbone's features.
    features_precision: Precision,
    /// Every tensor that training changes in some phase.
    changing: Vec<(String, Tensor)>,
    /// The factor of the adapters' products, where the backbone has adapters.
    adapter_scale: Option<f64>,
    seed: u64,
}

impl Network {
    /// Loads the base model, strictly, without its head; cuts it; gives it a new head. A job that
    /// goes on then loads its parent's weights, strictly, into the backbone and, where the head is
    /// kept, into the head. Adapters come last.
    ///
    /// # Errors
    /// `Plan` for an architecture, cut, layer or parameter that does not exist, `Weights` for a
    /// file that does not fit.
    pub fn build(
        base: &PlanModel,
        recipe: &Recipe,
        outputs: usize,
        device: Device,
    ) -> Result<Self, TrainError> {
        let architecture = registry::find(&base.architecture).ok_or_else(|| {
            TrainError::Plan(format!(
                "base model `{}` has the architecture `{}`, which this trainer does not know; install `rehead` and \
                 `rehead-trainer` of one version",
                base.id, base.architecture
            ))
        })?;
        let vs = nn::VarStore::new(device);
        let (mut backbone, feature_dim) = load_backbone(architecture, base, &recipe.cut, &vs)?;
        let is_channels_last = recipe.shards > 1 || device != Device::Cpu;
        if is_channels_last {
            backbone.lay_out_channels_last();
        }
        let seed = key(recipe.seed, Stream::Init, 0);
        let head = Head::new(
            &vs.root(),
            &recipe.head,
            feature_dim as u32,
            outputs as u32,
            seed,
        );

        let inherited = recipe.inherited.as_ref();
        let backbone_sha256 =
            parent::load(base, inherited, &backbone, &head, architecture.classifier)?;
        if let Some(adapter) = &recipe.adapter {
            let seed = key(recipe.seed, Stream::Adapter, 0);
            backbone
                .add_adapters(&vs.root(), adapter, seed)
                .map_err(|layer| no_layer(&layer))?;
        }

        let mut network = Self {
            architecture,
            feature_dim,
            backbone_sha256,
            parameters: Vec::new(),
            changing: changing(&backbone, &head, architecture.classifier, recipe)?,
            adapter_scale: recipe.adapter.as_ref().map(Adapter::scale),
            frozen: Extractor::prefix(&backbone, 0),
            frozen_stages: 0,
            has_loaded_backbone: true,
            phase: 0,
            backbone,
            head,
            is_channels_last,
            batch_norm: recipe.batch_norm,
            kind: kind_of(recipe.precision),
            features_precision: match has_bfloat16(device) {
                true => recipe.features_precision,
                false => Precision::Float32,
            },
            seed: recipe.seed,
        };
        network.train_only(&recipe.trainable)?;
        Ok(network)
    }

    /// Lets exactly these parameters of the backbone train, and the head.
    fn train_only(&mut self, trainable: &[String]) -> Result<(), TrainError> {
        let tensors = self.backbone.tensors();
        let trained = freeze(&tensors, trainable)?;
        let stages = self.backbone.stages.iter();
        let depths: BTreeMap<&str, i32> = stages
            .rev()
            .map(|stage| stage.name.as_str())
            .zip(0..)
            .collect();
        let backbone = trained_ones(&tensors, &trained).map(|entry| Parameter {
            name: entry.name.clone(),
            tensor: entry.tensor.shallow_clone(),
            group: Group::Backbone {
                depth: depths[entry.stage.as_str()],
            },
        });
        let first = trained_ones(&tensors, &trained).next();
        let unfrozen = first.map_or(0, |first| depths[first.stage.as_str()] as usize + 1);
        self.frozen_stages = self.backbone.stages.len() - unfrozen;
        self.has_loaded_backbone &= trained.is_empty();
        let head = self.head.parameters(self.architecture.classifier);
        let head = head.into_iter().map(|(name, tensor)| Parameter {
            name,
            tensor,
            group: Group::Head,
        });
        self.parameters = backbone.chain(head).collect();
        self.frozen = Extractor::prefix(&self.backbone, self.frozen_stages);
        Ok(())
    }

    /// Enters the next phase of the freeze schedule, if it has begun by epoch `epoch` (from 1).
    /// Returns the epoch that it begins after.
    ///
    /// # Errors
    /// `Plan` for a parameter that does not exist.
    pub fn enter_next_phase(
        &mut self,
        recipe: &Recipe,
        epoch: u32,
    ) -> Result<Option<u32>, TrainError> {
        if self.phase >= recipe.phase_of(epoch) {
            return Ok(None);
        }
        let phase = &recipe.later_phases[self.phase];
        self.train_only(&phase.trainable)?;
        self.phase += 1;
        Ok(Some(phase.at_epoch))
    }

    /// True when features are those of the backbone as it was loaded, and stay so for the rest of
    /// this phase.
    pub fn has_fixed_features(&self) -> bool {
        self.has_loaded_backbone && self.is_backbone_frozen()
    }

    pub fn is_on_cpu(&self) -> bool {
        self.head.weight.device() == Device::Cpu
    }

    /// True when only the head trains: features are then the same in every epoch.
    pub fn is_backbone_frozen(&self) -> bool {
        self.frozen_stages == self.backbone.stages.len()
    }

    /// A copy of the whole backbone as it is now, in its fast form and the number format of
    /// features.
    pub fn whole_backbone(&self) -> Extractor {
        Extractor::with_kind(&self.backbone, kind_of(self.features_precision))
    }

    /// That number format, which is float32 where the device has no bfloat16.
    pub fn features_precision(&self) -> Precision {
        self.features_precision
    }

    /// Features [N, `feature_dim`] of images [N, C, S, S] as the whole backbone's own operations
    /// compute them. Slower than `whole_backbone`, but what is not finite stays so.
    pub fn plain_features(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.backbone.forward(images, 0, Norm::Running))
    }

    /// Features [N, `feature_dim`] of a shard's images [N, C, S, S], with gradients for what
    /// trains, and with the adapters' dropout. Updated running statistics are noted in the shard,
    /// where the recipe updates them.
    pub fn features_train(&self, images: &Tensor, shard: &Shard) -> Tensor {
        let input = self.input_of_trained(images);
        self.backbone
            .forward(&input, self.frozen_stages, self.pass(shard))
    }

    /// The input of the first stage that trains, in the kind that it computes in.
    fn input_of_trained(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.enter(images)).to_kind(self.kind)
    }

    /// How a shard passes in training.
    fn pass<'a>(&self, shard: &'a Shard) -> Pass<'a> {
        let norm = match self.batch_norm {
            BatchNorm::Frozen => Norm::Running,
            BatchNorm::Update => Norm::Batch(&shard.statistics),
        };
        Pass {
            dropout: Some(self.masks(Stream::AdapterDropout, shard)),
            ..Pass::from(norm)
        }
    }

    fn masks(&self, stream: Stream, shard: &Shard) -> Masks {
        Masks {
            key: key(self.seed, stream, shard.step),
            first: shard.first,
        }
    }

    /// The input of the first stage that trains.
    fn enter(&self, images: &Tensor) -> Tensor {
        if self.frozen_stages == 0 {
            images.shallow_clone()
        } else {
            let map = self.frozen.map(images);
            if self.is_channels_last {
                map
            } else {
                map.contiguous()
            }
        }
    }

    /// Features [N, `feature_dim`] of images [N, C, S, S], in evaluation.
    pub fn features(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| {
            if self.is_backbone_frozen() {
                self.frozen.features(images)
            } else {
                self.backbone
                    .forward(&self.enter(images), self.frozen_stages, Norm::Running)
            }
        })
    }

    /// Logits [N, classes] of a shard's features in training, with dropout.
    pub fn logits_train(&self, features: &Tensor, shard: &Shard) -> Tensor {
        let masks = self.masks(Stream::Dropout, shard);
        self.head.forward_train(features, masks, &shard.statistics)
    }

    /// Logits [N, classes] in evaluation.
    pub fn logits(&self, features: &Tensor) -> Tensor {
        tch::no_grad(|| self.head.forward(features))
    }

    /// Makes the outputs `output * factor + shift`, by the last layer's weights: for good, at the
    /// end of a run.
    pub fn rescale_outputs(&mut self, factor: f64, shift: f64) {
        self.head.rescale_outputs(factor, shift);
    }

    /// Puts a linear classifier in the head's place: weight [classes, `feature_dim`] and bias
    /// `[classes]`.
    pub fn start_head(&mut self, weight: &Tensor, bias: &Tensor) {
        tch::no_grad(|| {
            self.head.weight.copy_(weight);
            self.head.bias.copy_(bias);
        });
    }

    /// Everything that training changes, under timm's names; the network's own tensors, not copies.
    pub fn changing(&self) -> Vec<(String, Tensor)> {
        self.changing
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.detach()))
            .collect()
    }

    /// A copy of the running statistics that a step in training changes, end to end; `None` where
    /// there are none.
    pub fn statistics(&self) -> Option<Tensor> {
        let parts: Vec<Tensor> = self.running().map(|part| part.view(-1)).collect();
        (!parts.is_empty()).then(|| tch::no_grad(|| Tensor::cat(&parts, 0)))
    }

    /// Restores a copy that `statistics` made.
    pub fn put_back(&mut self, statistics: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let mut start = 0;
        for mut part in self.running() {
            let length = part.numel() as i64;
            part.copy_(&statistics.narrow(0, start, length).view(&part.size()[..]));
            start += length;
        }
    }

    fn running(&self) -> impl Iterator<Item = Tensor> {
        let running =
            |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
        let all = self.changing.iter();
        all.filter(move |(name, _)| running(name))
            .map(|(_, tensor)| tensor.shallow_clone())
    }

    /// Restores tensors that `changing` gave, strictly.
    ///
    /// # Errors
    /// Every tensor that is missing, left over or misshapen.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<(), String> {
        weights::load_strict(&self.changing(), saved, &[]).map_err(|report| report.to_string())?;
        // A part that is frozen now may have trained before.
        self.frozen = Extractor::prefix(&self.backbone, self.frozen_stages);
        Ok(())
    }

    /// True when `changing` is the whole network.
    pub fn changes_wholly(&self) -> bool {
        self.adapter_scale.is_none() && self.changing().len() == self.tensors().len()
    }

    /// The whole network under timm's names, the new head in the classifier's place; its own
    /// tensors, not copies, but for weights with an adapter, which are merged here.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut all = self.backbone.named();
        if let Some(scale) = self.adapter_scale {
            all = lora::merge_all(all, scale);
        }
        all.extend(self.head.named_as(self.architecture.classifier));
        all.into_iter()
            .map(|(name, tensor)| (name, tensor.detach()))
            .collect()
    }
}

fn no_layer(layer: &str) -> TrainError {
    TrainError::Plan(format!(
        "`recipe.adapter.layers`: the backbone has no linear layer `{layer}`; `GET /v1/models/{{id}}/layers` lists them"
    ))
}

/// The backbone with the base model's weights, and its width after the cut.
fn load_backbone(
    architecture: &Architecture,
    base: &PlanModel,
    cut: &str,
    vs: &nn::VarStore,
) -> Result<(Backbone, i64), TrainError> {
    let mut backbone = architecture.build(&vs.root(), &base.input);
    let unfit = |reason: String| {
        TrainError::Weights(format!("the weights of base model `{}`: {reason}", base.id))
    };
    let tensors = weights::read_safetensors(&base.weights)
        .map_err(|error| TrainError::of_weights(error, unfit))?;
    let classifier = format!("{}.", architecture.classifier);
    weights::load_strict(&backbone.named(), &tensors, &[&classifier])
        .map_err(|report| unfit(report.to_string()))?;
    let feature_dim = cut_at(&mut backbone, architecture, cut)?;
    Ok((backbone, feature_dim))
}

/// Removes what comes after `cut`. Returns the width of the features that are left.
///
/// # Errors
/// `Plan` when there is no such stage.
pub fn cut_at(
    backbone: &mut Backbone,
    architecture: &Architecture,
    cut: &str,
) -> Result<i64, TrainError> {
    if cut == PRE_LOGITS {
        return Ok(i64::from(architecture.feature_dim));
    }
    let missing = || {
        TrainError::Plan(format!(
            "`recipe.cut`: `{}` has no stage `{cut}`; `GET /v1/models/{{id}}/layers` lists them",
            architecture.name
        ))
    };
    backbone.cut_after(cut).ok_or_else(missing)
}

/// Every tensor that training changes in some phase: parameters of the backbone and running
/// statistics beside them, the head's.
fn changing(
    backbone: &Backbone,
    head: &Head,
    classifier: &str,
    recipe: &Recipe,
) -> Result<Vec<(String, Tensor)>, TrainError> {
    let tensors = backbone.tensors();
    let ever: Vec<String> = recipe.phases().flatten().cloned().collect();
    let trained = freeze(&tensors, &ever)?;
    let named = |entry: &BackboneTensor| (entry.name.clone(), entry.tensor.shallow_clone());
    let mut changing: Vec<(String, Tensor)> = trained_ones(&tensors, &trained).map(named).collect();
    changing.extend(head.named_as(classifier));
    if recipe.batch_norm == BatchNorm::Update {
        // `x.running_mean` and `x.running_var` of an `x.weight` that trains.
        let is_updated = |tensor: &&BackboneTensor| {
            let layer = tensor.name.rsplit_once('.').map_or("", |(layer, _)| layer);
            !tensor.trainable && trained.contains(format!("{layer}.weight").as_str())
        };
        changing.extend(tensors.iter().filter(is_updated).map(named));
    }
    Ok(changing)
}

fn trained_ones<'a>(
    tensors: &'a [BackboneTensor],
    trained: &HashSet<&str>,
) -> impl Iterator<Item = &'a BackboneTensor> {
    let tensors = tensors.iter();
    tensors.filter(|tensor| trained.contains(tensor.name.as_str()))
}

/// Lets exactly `trainable` require gradients.
fn freeze<'a>(
    tensors: &[BackboneTensor],
    trainable: &'a [String],
) -> Result<HashSet<&'a str>, TrainError> {
    let trained: HashSet<&str> = trainable.iter().map(String::as_str).collect();
    let parameters = tensors.iter().filter(|tensor| tensor.trainable);
    let parameters: HashSet<&str> = parameters.map(|one| one.name.as_str()).collect();
    let mut asked = trainable.iter();
    if let Some(unknown) = asked.find(|name| !parameters.contains(name.as_str())) {
        return Err(TrainError::Plan(format!(
            "`recipe.trainable`: the backbone has no parameter `{unknown}`; `GET /v1/models/{{id}}/layers` lists them"
        )));
    }
    for BackboneTensor { name, tensor, .. } in tensors {
        let _ = tensor.set_requires_grad(trained.contains(name.as_str()));
    }
    Ok(trained)
}

fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::Float32 => Kind::Float,
        Precision::Bfloat16 => Kind::BFloat16,
    }
}
