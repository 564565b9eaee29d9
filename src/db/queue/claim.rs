//! Claims: how a worker gets a job.

use std::{path::PathBuf, time::Duration};

use sqlx::{PgPool, types::Json};

use crate::{
    db::{
        self,
        checkpoints::{self, Checkpoint},
        convert, files, retry,
        tenants::TenantId,
    },
    domain::{
        base_model::SourceTask,
        checkpoint::ManifestEntry,
        id::{FileId, JobId, WorkerId},
        input::Input,
        object::{Descriptor, MODEL},
        parent::Parent,
        ranking::Candidate,
        recipe::{Recipe, SPEC_VERSION},
        work::{PlanModel, PlanWeights},
    },
};

/// Resource class of all jobs, as long as there is only one.
pub const DEFAULT_CLASS: &str = "default";

/// A slot that a worker offers to the queue.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    pub worker: WorkerId,
    pub class: &'a str,
    /// Device memory available to a job now, in MiB.
    pub device_mb: u32,
    /// Device memory available to a job if this worker ran no other, in MiB.
    pub capacity_mb: u32,
    /// Queue age after which memory is reserved for a large job, and smaller ones are held back.
    pub reserve: Duration,
    /// Duration of the lease unless a heartbeat extends it.
    pub ttl: Duration,
}

/// A job with its lease, and all that a plan needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub job: JobId,
    pub tenant: TenantId,
    /// Fencing token of every write; also the number of the attempt.
    pub token: i64,
    pub recipe: Recipe,
    /// Samples per forward pass in training, if memory ran out in an earlier attempt.
    pub micro_batch: Option<u32>,
    pub timeout_seconds: u64,
    /// Device memory that it needs, in MiB.
    pub device_mb: u32,
    /// Time since it could be claimed.
    pub waited: Duration,
    /// Seconds spent in attempts so far, without waiting and pauses.
    pub elapsed_seconds: f64,
    pub base_model: ClaimedModel,
    /// Model or checkpoint that it continues from, if it does not start from the base model.
    pub parent: Option<Parent>,
    /// Name that its model will have.
    pub result_model: String,
    pub training: Pack,
    pub validation: Option<Pack>,
    /// Checkpoint to resume from.
    pub resume: Option<Checkpoint>,
}

/// The base model of a claimed job.
#[derive(Debug, Clone)]
pub struct ClaimedModel {
    pub id: String,
    pub architecture: String,
    pub source_task: SourceTask,
    pub input: Input,
    /// Lower-case hex.
    pub weights_sha256: String,
}

/// A validated data set in the object store, at `files/<file in hex>/pack.safetensors`.
#[derive(Debug, Clone)]
pub struct Pack {
    pub file: FileId,
    /// Lower-case hex.
    pub sha256: String,
    pub bytes: u64,
}

impl From<&Candidate> for ClaimedModel {
    fn from(candidate: &Candidate) -> Self {
        Self {
            id: candidate.model.clone(),
            architecture: candidate.architecture.clone(),
            source_task: candidate.source_task.clone(),
            input: candidate.input.clone(),
            weights_sha256: candidate.weights_sha256.clone(),
        }
    }
}

impl ClaimedModel {
    /// The model in a child's plan: with its weights in this file, and others over them.
    pub fn plan(&self, weights: PathBuf, over: Vec<PlanWeights>) -> PlanModel {
        let base = self.clone();
        PlanModel {
            id: base.id,
            architecture: base.architecture,
            source_task: base.source_task,
            input: base.input,
            weights,
            weights_sha256: base.weights_sha256,
            over,
        }
    }

    /// Its weights in the object store.
    pub fn weights(&self) -> Descriptor {
        let prefix = format!("models/{}/", self.weights_sha256);
        let owner = format!("model `{}`", self.id);
        Descriptor::of_hash(owner, &prefix, MODEL, &self.weights_sha256)
    }
}

impl Pack {
    /// Its object.
    pub fn object(&self) -> Descriptor {
        let entry = ManifestEntry {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        };
        let owner = format!("file `{}`", self.file);
        Descriptor::new(owner, &files::prefix(self.file), files::PACK, &entry)
    }
}

/// How long a claim waits for a tenant's row, which every claim and finish of its jobs locks
/// briefly.
const TENANT_WAIT_MS: u32 = 100;

/// The statement of a claim. `$locked` says what to do about a tenant's row that is locked. It is a
/// macro because sqlx checks literals only.
macro_rules! claim {
    ($locked:literal, $offer:expr, $executor:expr) => {
        sqlx::query!(
            r#"with reserved as materialized (
                select from claimable_jobs j join tenant_turns turns on turns.tenant_id = j.tenant_id and turns.open
                where j.resource_class = $1 and j.device_mb > $2 and j.device_mb <= $5
                    and j.run_at < now() - make_interval(secs => $6) and j.spec_version <= $7
                limit 1
            ), candidate as materialized (
                -- Tenants in order, with one index probe for each until a job is found that nobody else is claiming.
                -- Then the tenant's row is locked, so that its cap and its turn are decided in one place; but not its
                -- key, which whoever adds jobs holds.
                select t.id as tenant_id, head.id as job_id, turns.turn
                from (
                    select tenant_id, turn from tenant_turns
                    where open and not exists (select from reserved) order by turn, tenant_id
                ) turns cross join lateral (
                    select j.id from claimable_jobs j
                    where j.tenant_id = turns.tenant_id and j.resource_class = $1 and j.device_mb <= $2
                        and j.spec_version <= $7
                    order by j.priority, j.seq limit 1 for no key update of j skip locked
                ) head join tenants t on t.id = turns.tenant_id and not t.paused and t.running < t.max_running
                order by turns.turn, turns.tenant_id limit 1 for no key update of t "#
                + $locked
                + r#"), job as (
                update jobs j set status = 'running', phase = 'preparing', fraction = 0, token = j.token + 1,
                    events = j.events + 1, started_at = coalesce(j.started_at, now())
                from candidate where j.id = candidate.job_id and j.status = 'queued' returning j.*
            ), tenant as (
                update tenants t set running = t.running + 1,
                    vtime = 1 / t.weight + greatest(t.vtime, candidate.turn)
                from job, candidate where t.id = job.tenant_id
            ), lease as (
                insert into work (kind, subject, tenant_id, token, worker_id, lease_expires_at)
                select 'train', id, tenant_id, token, $3, now() + make_interval(secs => $4) from job
            ), resume as (
                select c.* from job join checkpoints c on c.job_id = job.id and c.state = 'committed'
                order by c.step desc, c.token desc limit 1
            ), attempt as (
                insert into attempts (job_id, token, worker_id, host, resumed_step)
                select id, token, $3, (select host from workers where id = $3), (select step from resume) from job
            ), event as (
                insert into job_events (job_id, seq, token, kind, level, message, data)
                select id, events, token, 'started', 'info',
                    format('attempt %s started', token)
                        || coalesce(' from the checkpoint of step ' || (select step from resume), ''),
                    jsonb_build_object('attempt', token, 'step', (select step from resume))
                from job
            )
            select job.id, job.tenant_id, job.token, job.recipe as "recipe!: Json<Recipe>", job.micro_batch,
                job.timeout_seconds, job.device_mb,
                (select coalesce(sum(extract(epoch from ended_at - started_at)), 0)::double precision from attempts
                    where job_id = job.id) as "elapsed_seconds!",
                greatest(0, extract(epoch from now() - job.run_at))::double precision as "waited_seconds!",
                job.result_model,
                coalesce(model.base_model, model.id) as "model_id!", job.parent as "parent: Json<Parent>",
                model.architecture, model.source_task as "source_task: Json<SourceTask>",
                model.input as "input!: Json<Input>", coalesce(model.base_weights_sha256, model.weights_sha256)
                    as "weights_sha256!",
                job.training_file, training.pack_sha256 as "training_sha256!", training.pack_bytes as "training_bytes!",
                job.validation_file, validation.pack_sha256 as "validation_sha256?",
                validation.pack_bytes as "validation_bytes?"
            from job
            join models model on model.tenant_id = job.tenant_id and model.id = job.model
            join files training on training.id = job.training_file
            left join files validation on validation.id = job.validation_file"#,
            $offer.class,
            convert::from_small($offer.device_mb),
            $offer.worker.0,
            $offer.ttl.as_secs_f64(),
            convert::from_small($offer.capacity_mb),
            $offer.reserve.as_secs_f64(),
            convert::from_small(SPEC_VERSION)
        )
        .map(|row| {
            let pack = |file, sha256, bytes| Pack {
                file: FileId(file),
                sha256,
                bytes: convert::to_count(bytes),
            };
            let validation = row.validation_file.zip(row.validation_sha256);
            let validation = validation.zip(row.validation_bytes);
            Claimed {
                job: JobId(row.id),
                tenant: TenantId(row.tenant_id),
                token: row.token,
                recipe: row.recipe.0,
                micro_batch: row.micro_batch.map(convert::to_small),
                timeout_seconds: convert::to_count(row.timeout_seconds),
                device_mb: convert::to_small(row.device_mb),
                waited: Duration::try_from_secs_f64(row.waited_seconds).unwrap_or_default(),
                elapsed_seconds: row.elapsed_seconds,
                base_model: ClaimedModel {
                    id: row.model_id,
                    architecture: row.architecture,
                    source_task: row.source_task.0,
                    input: row.input.0,
                    weights_sha256: row.weights_sha256,
                },
                parent: row.parent.map(|parent| parent.0),
                result_model: row.result_model,
                training: pack(row.training_file, row.training_sha256, row.training_bytes),
                validation: validation.map(|((file, sha256), bytes)| pack(file, sha256, bytes)),
                resume: None,
            }
        })
        .fetch_optional($executor)
    };
}

/// Claims the next job that fits, in the order of the views `tenant_turns` and `claimable_jobs`.
/// Jobs of newer versions than this build's are skipped.
///
/// Tenants whose row is locked are skipped. If no job is found, the claim runs once more and waits
/// a little for locked rows: the tenant may be the only one. `None` while there is work means that
/// the row stayed locked.
pub async fn claim(pool: &PgPool, offer: Offer<'_>) -> sqlx::Result<Option<Claimed>> {
    let mut claimed = retry(|| claim!("skip locked", offer, pool)).await?;
    if claimed.is_none() {
        let patient = || async {
            let mut transaction = db::begin(pool).await?;
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "set local lock_timeout = {TENANT_WAIT_MS}"
            )))
            .execute(&mut *transaction)
            .await?;
            let claimed = claim!("", offer, &mut *transaction).await;
            // Postgres reports an error before it lets go of the rows, so that a claim right after
            // this one could find the job still locked; the answer to a rollback comes later.
            match claimed {
                Ok(_) => transaction.commit().await?,
                Err(_) => transaction.rollback().await?,
            }
            claimed
        };
        claimed = match retry(patient).await {
            // lock_not_available
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => None,
            other => other?,
        };
    }
    if let Some(claimed) = &mut claimed {
        claimed.resume = checkpoints::latest(pool, claimed.job).await?;
    }
    Ok(claimed)
}
