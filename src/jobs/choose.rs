//! Chooses the base model of a job that left it to the service: a ranking by a worker, or the only
//! candidate.

use sqlx::PgPool;

use super::{candidates::Candidates, data_sets::DataSets};
use crate::{
    db::{
        jobs::{self, Chosen, WaitingJob},
        rankings::{self, NewRanking, RankingStatus},
        tenants::TenantId,
    },
    domain::{
        file::Dataset,
        id::RankingId,
        problem::Problem,
        ranking::{Candidate, RankedModel, measure, reason},
        request::JobRequest,
    },
};

/// A chosen base model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub model: String,
    pub reason: String,
}

impl Choice {
    /// The first of a ranking.
    pub fn first(ranked: &[RankedModel], dataset: &Dataset) -> Option<Self> {
        let first = ranked.first()?;
        Some(Self {
            model: first.model.clone(),
            reason: reason(ranked, measure(dataset.task)),
        })
    }

    /// A candidate that has no other beside it.
    pub fn only(candidates: &[Candidate]) -> Option<Self> {
        match candidates {
            [only] => Some(Self {
                model: only.model.clone(),
                reason: "the only candidate".to_owned(),
            }),
            _ => None,
        }
    }
}

/// The candidates of a job; `dataset` is its training file's.
///
/// # Errors
/// Those of the database.
pub async fn candidates_of(
    pool: &PgPool,
    tenant: TenantId,
    request: &JobRequest,
    (data_sets, dataset): (&DataSets, &Dataset),
) -> sqlx::Result<Candidates> {
    let options = &request.candidates;
    let mut found = Candidates::find(pool, tenant, options, dataset.modality).await?;
    found.keep_fitting(pool, tenant, request, data_sets).await?;
    Ok(found)
}

/// Takes the next step towards a model for a waiting job: asks for a ranking, or takes its result.
/// `None`: the ranking has not ended, or another worker was quicker.
///
/// # Errors
/// The database fails; inside, the job's problem.
pub(super) async fn choose(
    pool: &PgPool,
    job: &WaitingJob,
    (data_sets, dataset): (&DataSets, &Dataset),
) -> sqlx::Result<Result<Option<Choice>, Vec<Problem>>> {
    let tenant = job.tenant;
    let ranking = match job.ranking {
        Some(id) => rankings::get(pool, tenant, id).await?,
        None => None,
    };
    let Some(ranking) = ranking else {
        let found = candidates_of(pool, tenant, &job.request, (data_sets, dataset)).await?;
        if let Some(problem) = found.none_left("model") {
            return Ok(Err(vec![problem]));
        }
        if let Some(choice) = Choice::only(&found.candidates) {
            let taken = take(pool, job, &choice).await? == Chosen::Taken;
            return Ok(Ok(taken.then_some(choice)));
        }
        let ranking = NewRanking {
            id: RankingId::new(),
            tenant,
            training_file: job.request.training_file,
            validation_file: job.request.validation_file,
            candidates: found.candidates,
            excluded: found.excluded,
        };
        rankings::await_ranking(pool, job.id, &ranking).await?;
        return Ok(Ok(None));
    };
    if ranking.status == RankingStatus::Failed {
        let problem = ranking.error.map(|failure| Problem {
            path: "model".to_owned(),
            line: None,
            code: failure.code,
            message: format!("no model could be chosen: {}", failure.message),
            samples: Vec::new(),
        });
        return Ok(Err(problem.into_iter().collect()));
    }
    let mut left = ranking.ranked.unwrap_or_default();
    while let Some(choice) = Choice::first(&left, dataset) {
        match take(pool, job, &choice).await? {
            Chosen::Taken => return Ok(Ok(Some(choice))),
            Chosen::Late => return Ok(Ok(None)),
            Chosen::Gone => left.remove(0),
        };
    }
    let message = format!(
        "all models of ranking `{}` were deleted since; create the job again",
        ranking.id
    );
    Ok(Err(vec![Problem::new("model", "no_candidate", message)]))
}

async fn take(pool: &PgPool, job: &WaitingJob, choice: &Choice) -> sqlx::Result<Chosen> {
    jobs::choose_model(pool, job, &choice.model, &choice.reason).await
}
