//! The base models that a ranking may choose from, and a choice that needs no worker because all
//! scores are kept.

use std::collections::HashMap;

use sqlx::PgPool;

use super::data_sets::DataSets;
use crate::{
    db::{self, rankings, scores, tenants::TenantId},
    domain::{
        base_model::Layers,
        input::Modality,
        job_plan::JobPlan,
        problem::Problem,
        ranking::{Candidate, CandidateOptions, Excluded, ExclusionReason, Next, Order, next},
        request::JobRequest,
        resolve::{self, Start},
    },
};

/// Exclusions that a message lists.
const LISTED: usize = 10;

/// Candidates by id, and the other base models with the reason.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    pub candidates: Vec<Candidate>,
    pub excluded: Vec<Excluded>,
}

impl Candidates {
    /// Finds the candidates for data of this modality. A name in `models` that no base model has is
    /// excluded too.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find(
        pool: &PgPool,
        tenant: TenantId,
        options: &CandidateOptions,
        modality: Modality,
    ) -> sqlx::Result<Self> {
        let mut found = Self::default();
        let models = rankings::base_models(pool, tenant).await?;
        for name in options.models.iter().flatten() {
            if models.iter().all(|model| model.model != *name) {
                found.excluded.push(Excluded {
                    model: name.clone(),
                    reason: ExclusionReason::NotNamed,
                    detail: "there is no such base model".to_owned(),
                });
            }
        }
        for model in models {
            match options.excludes(&model, modality) {
                Some(excluded) => found.excluded.push(excluded),
                None => found.candidates.extend(model.candidate),
            }
        }
        Ok(found)
    }

    /// Excludes the candidates that the other options of a job, or all workers' memory, do not fit.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn keep_fitting(
        &mut self,
        pool: &PgPool,
        tenant: TenantId,
        request: &JobRequest,
        data_sets: &DataSets,
    ) -> sqlx::Result<()> {
        let room_mb = db::workers::largest_capacity(pool).await?;
        for candidate in std::mem::take(&mut self.candidates) {
            let layers = db::models::layers(pool, tenant, &candidate.model).await?;
            let misfit = match layers {
                Some(layers) => misfit(request, &layers, data_sets, room_mb),
                None => Some((ExclusionReason::Options, "it was deleted".to_owned())),
            };
            match misfit {
                None => self.candidates.push(candidate),
                Some((reason, detail)) => self.excluded.push(Excluded {
                    model: candidate.model,
                    reason,
                    detail,
                }),
            }
        }
        Ok(())
    }

    /// The problem of having no candidate, which says why each model is none.
    pub fn none_left(&self, path: &str) -> Option<Problem> {
        if !self.candidates.is_empty() {
            return None;
        }
        let reasons = self.excluded.iter().take(LISTED).map(|excluded| {
            let Excluded { model, detail, .. } = excluded;
            format!("`{model}`: {detail}")
        });
        let reasons: Vec<String> = reasons.collect();
        let more = self.excluded.len().saturating_sub(LISTED);
        let message = match (reasons.is_empty(), more) {
            (true, _) => "there is no base model; register one with `POST /v1/base_models`, or `rehead models add`".to_owned(),
            (false, 0) => format!("no base model is a candidate: {}", reasons.join("; ")),
            (false, more) => format!(
                "no base model is a candidate: {}; and {more} more",
                reasons.join("; ")
            ),
        };
        Some(Problem::new(path, "no_candidate", message))
    }

    /// The order of the candidates on a data set, where all scores that it needs are kept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn kept_order(
        &self,
        pool: &PgPool,
        tenant: TenantId,
        (pack_sha256, samples): (&str, u64),
    ) -> sqlx::Result<Option<Order>> {
        let mut known = HashMap::new();
        loop {
            let lookup = |place, samples| known.get(&(place, samples)).cloned();
            match next(&self.candidates, samples, lookup) {
                Next::Done(order) => return Ok(Some(order)),
                Next::Score { candidate, samples } => {
                    let key = scores::key(&self.candidates[candidate], pack_sha256, samples);
                    let Some(scores) = scores::get(pool, tenant, &key).await? else {
                        return Ok(None);
                    };
                    known.insert((candidate, samples), Ok(scores));
                }
            }
        }
    }
}

/// Why a job on a network of these layers is not possible; `room_mb` is the largest worker's
/// memory.
fn misfit(
    request: &JobRequest,
    layers: &Layers,
    data_sets: &DataSets,
    room_mb: Option<u32>,
) -> Option<(ExclusionReason, String)> {
    let start = Start {
        layers,
        parent: None,
    };
    if let Err(problems) = resolve::check_layers(&request.transfer, start) {
        let first = problems.first()?;
        let detail = format!("`{}` {}", first.path, first.message);
        return Some((ExclusionReason::Options, detail));
    }
    // Problems of the data are the same for all models: resolving the job names them.
    let resolution = data_sets.resolve(request, start, 0).ok()??;
    let validation = data_sets.validation.as_ref();
    let validation = validation.and_then(|file| file.dataset.as_ref());
    let training = data_sets.training.dataset.as_ref()?;
    let plan = JobPlan::of(&resolution.recipe, layers, training, validation).ok()?;
    let (needed, room) = (plan.device_mb(), room_mb?);
    (needed > room).then(|| {
        let detail = format!(
            "its training needs {needed} MiB of memory, and the largest worker has {room} MiB"
        );
        (ExclusionReason::Memory, detail)
    })
}
