//! Scores of one base model on one data set, for a ranking: features of training samples, and how
//! well they fit the labels. Nothing is trained.

use std::path::Path;

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

/// Runs the plan in `folder`. The features of all samples go to the cache, where a training finds
/// them; only those of a few from a large data set do not.
///
/// # Errors
/// See `TrainError`.
pub fn run(folder: &Path) -> Result<Scores, TrainError> {
    let plan: ScorePlan = json::read(&folder.join(PLAN))?;
    let device = device::open(&plan.device)?;
    parallel::use_threads(plan.threads as usize);
    memory::keep_freed();
    let most = plan.samples as usize;
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
        if is_most {
            let all = feature_cache::of_samples(&run, &network, &mut reporter)?;
            return Ok(select(&all, members));
        }
        feature_cache::of_some(&run, &network, members)
    })
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
