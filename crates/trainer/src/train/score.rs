//! Scores of one base model on one data set, for a ranking: features of training samples, and how
//! well they fit the labels. Nothing is trained.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use tch::Tensor;

use super::{
    input::{
        feature_cache,
        preparation::Preparation,
        samples::{Samples, select},
    },
    network::Network,
    transferability,
};
use crate::{
    domain::{
        id::JobId,
        ranking::Scores,
        recipe::Recipe,
        work::{PLAN, ScorePlan, TrainPlan},
    },
    process::{
        device,
        error::TrainError,
        json, memory, parallel,
        protocol::{Interrupt, Reporter},
    },
};

/// Runs the plan in `folder`. Features go to the cache: of all samples, where a training finds
/// them; in a race and of a few from a large data set, of those that are scored.
///
/// # Errors
/// See `TrainError`.
pub fn run(folder: &Path) -> Result<Scores, TrainError> {
    let plan: ScorePlan = json::read(&folder.join(PLAN))?;
    let device = device::open(&plan.device)?;
    parallel::use_threads(plan.threads as usize);
    memory::keep_freed();
    let most = plan.samples as usize;
    let earlier: Vec<usize> = plan.earlier.iter().map(|&few| few as usize).collect();
    let plan = as_training(plan);
    let samples = Samples::open(&plan)?;
    let network = Network::build(&plan.base_model, &plan.recipe, samples.outputs(), device)?;
    let interrupt = Interrupt::default();
    let run = Preparation {
        plan: &plan,
        samples: &samples,
        device,
        interrupt: &interrupt,
    };
    // Its parent hears of work by `report_work`, and of nothing else before the answer.
    let mut reporter = Reporter::new(std::io::sink(), interrupt.clone());
    let is_most = samples.count() <= 2 * most.min(samples.train.len());
    transferability::rank(&samples, most, |members| {
        if is_most && earlier.is_empty() {
            let all = feature_cache::of_samples(&run, &network, &mut reporter)?;
            return Ok(select(&all, members));
        }
        let rounds = earlier
            .iter()
            .map(|&few| transferability::members(&samples, few));
        let added = added(rounds.chain([members.to_vec()]));
        let parts = added
            .iter()
            .map(|part| feature_cache::of_some(&run, &network, part));
        let features = Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0);
        Ok(select(&features, &places_of(members, &added.concat())))
    })
}

/// The samples of each round that those before it do not have, where there are any.
fn added(rounds: impl Iterator<Item = Vec<usize>>) -> Vec<Vec<usize>> {
    let mut before = HashSet::new();
    let new = rounds.map(|mut samples| {
        samples.retain(|&sample| before.insert(sample));
        samples
    });
    new.filter(|samples| !samples.is_empty()).collect()
}

/// Where each of `members` is among `samples`, which has all of them.
fn places_of(members: &[usize], samples: &[usize]) -> Vec<usize> {
    let places: HashMap<usize, usize> = (0..)
        .zip(samples)
        .map(|(place, &one)| (one, place))
        .collect();
    members.iter().map(|sample| places[sample]).collect()
}

/// The training of a head on the frozen network, as far as features depend on it.
fn as_training(plan: ScorePlan) -> TrainPlan {
    TrainPlan {
        job: JobId(uuid::Uuid::nil()),
        recipe: Recipe::base(plan.task),
        base_model: plan.base_model,
        fine_tuned_model: String::new(),
        pack: plan.pack,
        pack_sha256: plan.pack_sha256,
        validation_pack: None,
        validation_pack_sha256: None,
        resume: None,
        micro_batch: None,
        cache: plan.cache,
        device: plan.device,
        threads: plan.threads,
    }
}
