//! How a worker gets a job.

use std::time::Duration;

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use crate::{
    db::{
        checkpoints::{self, Checkpoint},
        convert, retry,
        tenants::TenantId,
    },
    domain::{
        base_model::SourceTask,
        id::{FileId, JobId, WorkerId},
        input::Input,
        parent::Parent,
        recipe::{Recipe, SPEC_VERSION},
    },
};

/// The resource class of every job so far.
pub const DEFAULT_CLASS: &str = "default";

/// What a worker offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    pub worker: WorkerId,
    pub class: &'a str,
    /// What a job may take now of the device's memory, in MiB.
    pub device_mb: u32,
    /// What one job could take if this worker had no other.
    pub capacity_mb: u32,
    /// A job that waited so long for more memory than is free is next, where it could fit: smaller ones wait.
    pub reserve: Duration,
    /// How long the lease holds unless a heartbeat comes.
    pub ttl: Duration,
}

/// A job with its lease, and all that a plan needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub job: JobId,
    pub tenant: TenantId,
    /// Goes with every write; also the number of the attempt.
    pub token: i64,
    pub recipe: Recipe,
    /// Samples that run together in training, where memory ran out in an earlier attempt.
    pub micro_batch: Option<u32>,
    pub timeout_seconds: u64,
    /// Device memory that it needs, in MiB.
    pub device_mb: u32,
    /// Seconds that its attempts so far have taken. What it waited or was paused does not count.
    pub elapsed_seconds: f64,
    pub base_model: ClaimedModel,
    /// What it goes on from, where that is not the base model itself.
    pub parent: Option<Parent>,
    /// The name its model will have.
    pub result_model: String,
    pub training: Pack,
    pub validation: Option<Pack>,
    /// The checkpoint to go on from.
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

/// How long a claim waits for its tenant's row, which others who claim and finish that tenant's jobs hold for a moment each.
const TENANT_WAIT_MS: u32 = 100;

/// Takes the first job in line: of the tenant that has had least for its weight, by priority, then age. Jobs of newer
/// versions than this build's are left alone.
///
/// A tenant whose row is locked is passed by. Where there is no other, a moment is waited for it, since it may be the only one
/// there is: `None` though there is work means that somebody kept it locked.
pub async fn claim(pool: &PgPool, offer: Offer<'_>) -> sqlx::Result<Option<Claimed>> {
    macro_rules! claim {
        ($locked:literal, $executor:expr) => {
            sqlx::query_as!(
                ClaimRow,
                r#"with reserved as materialized (
                    select from jobs j join tenants t on t.id = j.tenant_id
                    where j.status = 'queued' and j.resource_class = $1 and j.device_mb > $2 and j.device_mb <= $5
                        and j.run_at < now() - make_interval(secs => $6) and j.spec_version <= $7
                        and not t.paused and t.running < t.max_running
                    limit 1
                ), candidate as materialized (
                    -- Tenants in their order, and one probe of the index for each until there is a job that nobody else is
                    -- taking; then that tenant's row is locked, so that its cap and its turn are decided in one place. Not its
                    -- key: whoever adds jobs holds that.
                    select t.id as tenant_id, head.id as job_id
                    from (
                        select id, vtime from tenants
                        where not paused and running < max_running and not exists (select from reserved) order by vtime, id
                    ) turn cross join lateral (
                        select j.id from jobs j
                        where j.tenant_id = turn.id and j.status = 'queued' and j.resource_class = $1 and j.device_mb <= $2
                            and j.run_at <= now() and j.spec_version <= $7
                        order by j.priority, j.seq limit 1 for no key update of j skip locked
                    ) head join tenants t on t.id = turn.id and not t.paused and t.running < t.max_running
                    order by turn.vtime, turn.id limit 1 for no key update of t "#
                    + $locked
                    + r#"), job as (
                    update jobs j set status = 'running', phase = 'preparing', fraction = 0, token = j.token + 1,
                        events = j.events + 1, started_at = coalesce(j.started_at, now())
                    from candidate where j.id = candidate.job_id and j.status = 'queued' returning j.*
                ), tenant as (
                    update tenants t set running = t.running + 1, vtime = 1 / t.weight + greatest(t.vtime, (
                        select min(busy.vtime - 1 / busy.weight) from tenants busy where busy.running > 0 and busy.id <> t.id
                    ))
                    from job where t.id = job.tenant_id
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
                    job.result_model,
                    coalesce(model.base_model, model.id) as "model_id!", job.parent as "parent: Json<Parent>",
                    model.architecture, model.source_task as "source_task: Json<SourceTask>",
                    model.preprocessing as "input!: Json<Input>", coalesce(model.base_weights_sha256, model.weights_sha256)
                        as "weights_sha256!",
                    job.training_file, training.pack_sha256 as "training_sha256!", training.pack_bytes as "training_bytes!",
                    job.validation_file, validation.pack_sha256 as "validation_sha256?",
                    validation.pack_bytes as "validation_bytes?"
                from job
                join models model on model.tenant_id = job.tenant_id and model.id = job.model
                join files training on training.id = job.training_file
                left join files validation on validation.id = job.validation_file"#,
                offer.class,
                convert::from_small(offer.device_mb),
                offer.worker.0,
                convert::seconds(offer.ttl),
                convert::from_small(offer.capacity_mb),
                convert::seconds(offer.reserve),
                convert::from_small(SPEC_VERSION)
            )
            .fetch_optional($executor)
        };
    }
    let row = match retry(|| claim!("skip locked", pool)).await? {
        Some(row) => Some(row),
        None => {
            let patient = || async {
                let mut transaction = pool.begin().await?;
                sqlx::query(sqlx::AssertSqlSafe(format!(
                    "set local lock_timeout = {TENANT_WAIT_MS}"
                )))
                .execute(&mut *transaction)
                .await?;
                let row = claim!("", &mut *transaction).await?;
                transaction.commit().await?;
                Ok(row)
            };
            match retry(patient).await {
                // lock_not_available
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
                    None
                }
                other => other?,
            }
        }
    };
    let Some(row) = row else {
        return Ok(None);
    };
    let resume = checkpoints::latest(pool, JobId(row.id)).await?;
    Ok(Some(row.with(resume)))
}

/// A claim as Postgres has it.
struct ClaimRow {
    id: Uuid,
    tenant_id: i64,
    token: i64,
    recipe: Json<Recipe>,
    micro_batch: Option<i32>,
    timeout_seconds: i64,
    device_mb: i32,
    elapsed_seconds: f64,
    result_model: String,
    model_id: String,
    parent: Option<Json<Parent>>,
    architecture: String,
    source_task: Json<SourceTask>,
    input: Json<Input>,
    weights_sha256: String,
    training_file: Uuid,
    training_sha256: String,
    training_bytes: i64,
    validation_file: Option<Uuid>,
    validation_sha256: Option<String>,
    validation_bytes: Option<i64>,
}

impl ClaimRow {
    fn with(self, resume: Option<Checkpoint>) -> Claimed {
        let pack = |file: Uuid, sha256: String, bytes: i64| Pack {
            file: FileId(file),
            sha256,
            bytes: convert::to_count(bytes),
        };
        let validation = match (
            self.validation_file,
            self.validation_sha256,
            self.validation_bytes,
        ) {
            (Some(file), Some(sha256), Some(bytes)) => Some(pack(file, sha256, bytes)),
            _ => None,
        };
        Claimed {
            job: JobId(self.id),
            tenant: TenantId(self.tenant_id),
            token: self.token,
            recipe: self.recipe.0,
            micro_batch: self.micro_batch.map(convert::to_small),
            timeout_seconds: convert::to_count(self.timeout_seconds),
            device_mb: convert::to_small(self.device_mb),
            elapsed_seconds: self.elapsed_seconds,
            base_model: ClaimedModel {
                id: self.model_id,
                architecture: self.architecture,
                source_task: self.source_task.0,
                input: self.input.0,
                weights_sha256: self.weights_sha256,
            },
            parent: self.parent.map(|parent| parent.0),
            result_model: self.result_model,
            training: pack(
                self.training_file,
                self.training_sha256,
                self.training_bytes,
            ),
            validation,
            resume,
        }
    }
}
