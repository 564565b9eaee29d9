//! The network of a checkpoint, to predict with: the weights that its job started from, with those
//! that it had trained by then over them.

use tch::nn;

use super::{load_backbone, parent};
use crate::{
    domain::{
        recipe::{self, HeadInit, Inherited, Task},
        work::{CheckpointModel, PlanModel},
    },
    models::{architecture::Architecture, backbone::Backbone, head::Head, registry, weights},
    process::error::TrainError,
};

/// Metadata keys of a regression's checkpoint: mean and standard deviation of the target, which its
/// outputs are standardized by; numbers as text.
pub const TARGET: [&str; 2] = ["target_mean", "target_std"];

/// Builds the network and loads its weights, strictly.
///
/// # Errors
/// `Plan` for an architecture or cut that does not exist, `Weights` for a file that does not fit.
pub fn load(
    checkpoint: &CheckpointModel,
    vs: &nn::VarStore,
) -> Result<(Backbone, Head), TrainError> {
    let base = &checkpoint.base_model;
    let architecture = find(&base.architecture)?;
    let (backbone, feature_dim) = load_backbone(architecture, base, &checkpoint.cut, vs)?;
    let outputs = match checkpoint.task {
        Task::Regression => 1,
        _ => checkpoint.labels.len(),
    };
    // Its first weights do not matter: all are loaded.
    let head = recipe::Head {
        layers: checkpoint.head.clone(),
        init: HeadInit::Zero,
    };
    let head = Head::new(&vs.root(), &head, feature_dim as u32, outputs as u32, 0);
    let whole_head = Inherited {
        labels: vec![String::new(); outputs],
        known: outputs as u32,
    };
    let classifier = architecture.classifier;
    parent::load(base, Some(&whole_head), &backbone, &head, classifier)?;
    if checkpoint.task == Task::Regression {
        rescale(base, &head)?;
    }
    Ok((backbone, head))
}

fn find(name: &str) -> Result<&'static Architecture, TrainError> {
    registry::find(name).ok_or_else(|| {
        TrainError::Plan(format!(
            "the checkpoint has the architecture `{name}`, which this trainer does not know; use the version that saved it"
        ))
    })
}

/// Makes the outputs of a regression numbers in the target's unit.
fn rescale(base: &PlanModel, head: &Head) -> Result<(), TrainError> {
    let unscaled = || {
        TrainError::Weights(
            "the checkpoint does not say how its target was scaled; predict with the job's model"
                .to_owned(),
        )
    };
    let own = base.over.last().ok_or_else(unscaled)?;
    let metadata = weights::read_metadata(&own.weights)
        .map_err(|error| TrainError::of_weights(error, TrainError::Weights))?;
    let number = |key: &str| metadata.get(key)?.parse::<f64>().ok();
    let [Some(mean), Some(std)] = TARGET.map(number) else {
        return Err(unscaled());
    };
    head.rescale_outputs(std, mean);
    Ok(())
}
