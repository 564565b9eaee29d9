//! Ranks base models: scores each on the data set in a process of its own, and keeps every score,
//! so that whoever takes over goes on with the next one.

use std::{collections::HashMap, ffi::OsStr, path::Path};

use super::task::Task;
use crate::{
    child,
    db::{
        persist::persist,
        queue::ClaimedModel,
        rankings::{self, ToRank},
        scores,
    },
    domain::{
        job::Failure,
        problem::without_paths,
        progress::ScoreAnswer,
        ranking::{self, Candidate, Next, Scored, Scores},
        work::{PLAN, ScorePlan},
    },
    objects::ObjectError,
    sandbox::{Grants, WORK},
    worker::{
        cache::{DataSets, FEATURES, Kind},
        fault::{Fault, OBJECT_DAMAGED},
        files::give,
        layout::write_plan,
    },
};

/// Makes a ranking and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let (pool, lease) = (&task.worker.pool, task.claimed);
    let Some(asked) = rankings::to_rank(pool, lease).await? else {
        let message = "the data set was deleted while the ranking waited; rank another";
        let failure = Failure::permanent("input_gone", message);
        let write = || rankings::fail(pool, lease, &failure);
        return task.end("fail a ranking", write).await;
    };
    let candidates = &asked.candidates;
    let mut known: HashMap<(usize, u64), Scored> = HashMap::new();
    let order = loop {
        let lookup = |place: usize, samples| match asked.failures.get(&candidates[place].model) {
            Some(failure) => Some(Err(failure.clone())),
            None => known.get(&(place, samples)).cloned(),
        };
        match ranking::next(candidates, asked.dataset.splits.train, lookup) {
            Next::Done(order) => break order,
            Next::Score { candidate, samples } => {
                let scored = scores_of(task, &asked, &candidates[candidate], samples).await?;
                known.insert((candidate, samples), scored);
            }
        }
    };
    if order.ranked.is_empty() {
        let details = order
            .failed
            .iter()
            .map(|one| format!("`{}`: {}", one.model, one.detail));
        let details: Vec<String> = details.collect();
        let message = format!("no base model could be scored: {}", details.join("; "));
        let failure = Failure::permanent("no_candidate", message);
        let write = || rankings::fail(pool, lease, &failure);
        return task.end("fail a ranking", write).await;
    }
    let ranked = order.models(candidates);
    let write = || rankings::succeed(pool, lease, &ranked, &order.failed);
    task.end("end a ranking", write).await
}

/// A candidate's scores: those that are kept, or new ones, which are then kept.
async fn scores_of(
    task: Task<'_>,
    asked: &ToRank,
    candidate: &Candidate,
    samples: u64,
) -> Result<Scored, Fault> {
    let (pool, lease) = (&task.worker.pool, task.claimed);
    let pack = &asked.training.sha256;
    let key = scores::key(candidate, pack, samples);
    if let Some(scores) = scores::get(pool, asked.tenant, &key).await? {
        return Ok(Ok(scores));
    }
    let scored = match score(task, asked, candidate, samples).await {
        Err(fault) => Err(excluding(fault, asked)?),
        Ok(scores) => Ok(scores),
    };
    let kept = match &scored {
        Ok(scores) => {
            let keep = || rankings::keep(pool, lease, (&key, pack), scores);
            persist("keep scores", keep).await?
        }
        Err(failure) => {
            let note = || rankings::note_failure(pool, lease, &candidate.model, failure);
            persist("note a failure", note).await?
        }
    };
    if kept { Ok(scored) } else { Err(Fault::Lost) }
}

/// The failure that excludes a candidate from the ranking: one that another try would have too, or
/// a process that died twice.
///
/// # Errors
/// The fault, where the ranking is to be tried again.
fn excluding(fault: Fault, asked: &ToRank) -> Result<Failure, Fault> {
    let failure = match fault {
        Fault::Failed(failure) if !failure.retryable || failure.code == "out_of_memory" => failure,
        Fault::Object(error @ ObjectError::Damaged { .. }) => {
            Failure::permanent(OBJECT_DAMAGED, error.to_string())
        }
        Fault::Unanswered(..) if asked.crashes > 0 => {
            Failure::permanent("score_crashed", fault.to_string())
        }
        fault => return Err(fault),
    };
    Ok(Failure {
        message: without_paths(&failure.message),
        ..failure
    })
}

/// Scores a candidate in a process of its own.
async fn score(
    task: Task<'_>,
    asked: &ToRank,
    candidate: &Candidate,
    samples: u64,
) -> Result<Scores, Fault> {
    let worker = task.worker;
    let folder = task.create_folder()?;
    let inputs = folder.inputs();
    let (pack, weights) = (
        inputs.join("pack.safetensors"),
        inputs.join("weights.safetensors"),
    );
    worker
        .cache
        .link(Kind::Packs, &asked.training.object(), &pack)
        .await?;
    let base = ClaimedModel::from(candidate);
    worker
        .cache
        .link(Kind::Weights, &base.weights(), &weights)
        .await?;
    let device = &worker.devices[0];
    let plan = ScorePlan {
        base_model: base.plan(folder.seen(&weights), Vec::new()),
        task: asked.dataset.task,
        pack: folder.seen(&pack),
        pack_sha256: asked.training.sha256.clone(),
        samples,
        earlier: ranking::earlier_rounds(asked.candidates.len(), samples),
        cache: Path::new(WORK).join(FEATURES),
        device: device.clone(),
        threads: worker.threads,
    };
    write_plan(&folder.work(), &plan).await?;
    give(&worker.sandbox, &inputs).await?;
    give(&worker.sandbox, &folder.work().join(PLAN)).await?;
    let sets = DataSets {
        tenant: asked.tenant,
        training: &asked.training,
        validation: asked.validation.as_ref(),
    };
    worker.cache.open_features(sets, &folder)?;
    let arguments = ["score", WORK].map(OsStr::new);
    let launch = worker.sandbox.launch(&folder, Grants::WRITE.on(device));
    let answer = child::answer_of(launch, &arguments, worker.args.timing.stall).await;
    // Whoever trains on the model finds them.
    worker.cache.keep_features(sets, &folder.work());
    match answer.map_err(|error| Fault::Unanswered("scoring a model", error))? {
        ScoreAnswer::Scores(scores) => Ok(scores),
        ScoreAnswer::Failed(failure) => Err(Fault::Failed(failure)),
    }
}
