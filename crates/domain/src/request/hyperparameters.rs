//! `method.transfer.hyperparameters`, and OpenAI's three of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    auto::{Auto, OrNone},
    codes::OUT_OF_RANGE,
    limits,
    options::{auto, options},
    recipe::{BatchNorm, Loss, Optimizer, Precision, Schedule},
    rules::{Components, Integer, Invalid, OrNoneRule, Parsed, Rule, Word, number, share},
    words,
};

options! {
    /// Numbers and rules of the training itself.
    #[derive(Default)]
    pub struct Hyperparameters {
        /// Passes over the training split. `auto`: 30 if the whole backbone is frozen, otherwise
        /// 10; with a freeze schedule at least 5 after its last entry.
        n_epochs: Auto<u64> = auto(Integer(limits::EPOCHS)),
        /// Samples that run through the network together. `auto`: 32, or all if there are fewer.
        batch_size: Auto<u64> = auto(Integer(limits::BATCH_SIZE)),
        /// Peak learning rate of the head. `auto`: 0.001 with `adamw`, otherwise 0.01.
        learning_rate: Auto<f64> = auto(number(limits::LEARNING_RATE)),
        /// Peak learning rate of the backbone's last stage. `auto`: a share of the head's, which
        /// depends on the optimizer, BatchNorm and adapters.
        backbone_learning_rate: Auto<f64> = auto(number(limits::LEARNING_RATE)),
        /// Factor on both learning rates. `auto`: 1.
        learning_rate_multiplier: Auto<f64> = auto(number(limits::LEARNING_RATE_MULTIPLIER)),
        /// `auto`: `adamw`.
        optimizer: Auto<Optimizer> = auto(Word),
        /// With `adamw`, each step shrinks tensors of two or more dimensions by the rate times this
        /// value (decoupled); biases and normalizations stay. `sgd` and `nesterov` add this value
        /// times the weight to the gradient of every tensor that trains (L2). `auto`: 0.01 with
        /// `adamw` if some of the backbone trains, otherwise 0.
        weight_decay: Auto<f64> = auto(number(limits::WEIGHT_DECAY)),
        /// How the learning rates change from step to step. `auto`: `cosine`.
        schedule: Auto<Schedule> = auto(Word),
        /// Share of all steps in which the rates rise linearly from 0. `auto`: 0.1 if some of the
        /// backbone trains and the schedule has no warm-up of its own, otherwise 0.
        warmup_fraction: Auto<f64> = auto(share()),
        /// Ratio of each stage's learning rate to the next stage's. `auto`: 1.
        layer_decay: Auto<f64> = auto(number(limits::LAYER_DECAY)),
        /// Batches of one optimizer step. `auto`: 1.
        accumulate: Auto<u64> = auto(Integer(limits::ACCUMULATE)),
        /// Parts of a batch that run side by side on a CPU while some of the backbone trains, each
        /// on one thread at most; the result depends on their number, and not on the number of
        /// threads. BatchNorm takes the statistics of a shard. `auto`: a power of two, larger where
        /// a sample takes long beside the sums of gradients.
        shards: Auto<u64> = auto(Integer(limits::SHARDS)),
        /// `cross_entropy` for single labels, `binary_cross_entropy` for several, `mse` (`auto`) or
        /// `huber` for numbers.
        loss: Auto<Loss> = auto(Word),
        /// Share of the true class that is spread over all classes. `auto`: 0.
        label_smoothing: Auto<f64> = auto(number(0.0..1.0)),
        /// Beta's parameter for adding up samples of one class each in pairs; 0 turns it off.
        /// `auto`: 0.1 from 20,000 training samples on if some of the backbone trains, otherwise 0.
        mixup: Auto<f64> = auto(number(limits::MIX_ALPHA)),
        /// Beta's parameter for pasting a part of one image into another while some of the backbone
        /// trains; 0 (`auto`) turns it off.
        cutmix: Auto<f64> = auto(number(limits::MIX_ALPHA)),
        /// Factor on a sample's loss: a rule, or a number for each class by name. `auto`: `none`.
        class_weights: Auto<ClassWeights> = auto(ClassWeightsRule),
        /// Largest global norm of the gradient; `none` sets no bound. `auto`: 1 if some of the
        /// backbone trains, otherwise `none`.
        gradient_clip: Auto<OrNone<f64>> = auto(OrNoneRule(number(limits::GRADIENT_CLIP))),
        /// Share of the running average of the weights that a step keeps; the averages are
        /// evaluated and exported. `none` (`auto`) keeps no average.
        ema_decay: Auto<OrNone<f64>> = auto(OrNoneRule(number(limits::EMA_DECAY))),
        /// How BatchNorm runs in the part that trains. `auto`: `update` in batches of 16 or more,
        /// unless the head starts from a probe.
        batch_norm: Auto<BatchNorm> = auto(Word),
        /// The number format of the backbone's trained part. `auto`: `float32`.
        precision: Auto<Precision> = auto(Word),
        /// The number format in which a wholly frozen backbone computes features. `bfloat16` is
        /// quicker and coarser; a processor without it takes `float32`, and an event says so.
        /// `auto`: `float32`.
        features_precision: Auto<Precision> = auto(Word),
    }
}

options! {
    /// OpenAI's hyperparameters; each means the one of `method.transfer` with the same name.
    #[derive(Default)]
    pub struct OpenAiHyperparameters {
        /// Passes over the training split.
        n_epochs: Auto<u64> = auto(Integer(limits::EPOCHS)),
        /// Samples that run through the network together.
        batch_size: Auto<u64> = auto(Integer(limits::BATCH_SIZE)),
        /// Factor on the learning rates of head and backbone.
        learning_rate_multiplier: Auto<f64> = auto(number(limits::LEARNING_RATE_MULTIPLIER)),
    }
}

/// The weight of each class in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassWeights {
    Rule(ClassWeightRule),
    /// Weights by class name; a class that is not named weighs 1.
    Given(BTreeMap<String, f64>),
}

words! {
    /// `none` weighs all classes alike, `balanced` in inverse proportion to their training samples.
    pub enum ClassWeightRule {
        None = "none",
        Balanced = "balanced",
    }
}

struct ClassWeightsRule;

impl Rule<ClassWeights> for ClassWeightsRule {
    fn read(&self, value: &Value) -> Parsed<ClassWeights> {
        let Value::Object(weights) = value else {
            let rule = Word.read(value).map(ClassWeights::Rule);
            return rule.map_err(|invalid| invalid.or("an object of weights by class"));
        };
        if weights.is_empty() || weights.len() > limits::CLASSES {
            let (most, found) = (limits::CLASSES, weights.len());
            let message = format!("must name from 1 to {most} classes, not {found}");
            return Err(Invalid::new(OUT_OF_RANGE, message));
        }
        let weight = |(class, weight): (&String, &Value)| {
            let weight = number(limits::CLASS_WEIGHT).read(weight);
            let weight = weight.map_err(|invalid| invalid.at(format!("of class `{class}`")))?;
            Ok((class.clone(), weight))
        };
        let given = weights.iter().map(weight).collect::<Parsed<_>>();
        given.map(ClassWeights::Given)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let rule = Rule::<ClassWeightRule>::schema(&Word, components);
        let weight = number(limits::CLASS_WEIGHT).schema(components);
        let given = json!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": limits::CLASSES,
            "additionalProperties": weight,
        });
        json!({"anyOf": [rule, given]})
    }
}
