//! Rankings of base models: work of kind `rank`, whose subject is the ranking.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool, types::Json};
use time::OffsetDateTime;

use super::{
    Page, Slice, convert,
    queue::Pack,
    tenants::TenantId,
    work::{Lease, MAX_CRASHES, end_work, under_lease},
};
use crate::domain::{
    base_model::SourceTask,
    file::Dataset,
    id::{FileId, JobId, RankingId},
    input::Input,
    job::Failure,
    limits,
    ranking::{BaseModel, Candidate, Excluded, RankedModel, Scores},
    words,
};

words! {
    /// State of a ranking.
    pub enum RankingStatus {
        /// It waits for a worker.
        Queued = "queued",
        /// A worker scores its candidates.
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
    }
}

impl RankingStatus {
    /// True for final states.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A ranking to make. Candidates are those of its tenant, scored on the training split of
/// `training`.
#[derive(Debug, Clone)]
pub struct NewRanking {
    pub id: RankingId,
    pub tenant: TenantId,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    pub candidates: Vec<Candidate>,
    pub excluded: Vec<Excluded>,
}

/// A ranking.
#[derive(Debug, Clone)]
pub struct Ranking {
    pub id: RankingId,
    pub status: RankingStatus,
    pub training_file: FileId,
    /// Models to score.
    pub candidates: Vec<Candidate>,
    pub excluded: Vec<Excluded>,
    /// The best one first; `None` until it has succeeded.
    pub ranked: Option<Vec<RankedModel>>,
    pub error: Option<Failure>,
    /// Time that scoring took, without scores that were kept.
    pub seconds: Option<f64>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

/// A ranking that a worker makes.
#[derive(Debug, Clone)]
pub struct ToRank {
    pub tenant: TenantId,
    pub candidates: Vec<Candidate>,
    /// Failures of models that could not be scored, by model.
    pub failures: BTreeMap<String, Failure>,
    pub training: Pack,
    pub validation: Option<Pack>,
    pub dataset: Dataset,
    /// Leases that ended without a new score.
    pub crashes: u32,
}

/// All base models of a tenant by id, at most `limits::CANDIDATES`.
///
/// # Errors
/// Those of the database.
pub async fn base_models(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<BaseModel>> {
    let models = sqlx::query!(
        r#"select id, status = 'ready' as "is_ready!", architecture, license, parameters,
            source_task as "source_task: Json<SourceTask>", input as "input: Json<Input>", weights_sha256, (
                select coalesce(sum((cost ->> 'macs')::bigint), 0)::bigint
                from jsonb_array_elements(layers -> 'costs') cost
            ) as "macs!"
        from models where tenant_id = $1 and kind = 'base' order by id limit $2"#,
        tenant.0,
        limits::CANDIDATES as i64
    )
    .map(|row| {
        let weights = row.input.zip(row.weights_sha256).filter(|_| row.is_ready);
        BaseModel {
            candidate: weights.map(|(input, weights_sha256)| Candidate {
                model: row.id.clone(),
                architecture: row.architecture.clone(),
                source_task: row.source_task.0,
                input: input.0,
                weights_sha256,
                license: row.license,
                parameters: row.parameters.map_or(0, convert::to_count),
                macs: convert::to_count(row.macs),
            }),
            model: row.id,
            architecture: row.architecture,
        }
    });
    models.fetch_all(pool).await
}

/// Adds a ranking, and its work to the queue.
///
/// # Errors
/// Those of the database.
pub async fn create(connection: &mut PgConnection, ranking: &NewRanking) -> sqlx::Result<()> {
    sqlx::query!(
        "with ranking as (
            insert into rankings (id, tenant_id, training_file, validation_file, candidates, excluded)
            values ($1, $2, $3, $4, $5, $6) returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id) select 'rank', id, tenant_id from ranking",
        ranking.id.0,
        ranking.tenant.0,
        ranking.training_file.0,
        ranking.validation_file.map(|file| file.0),
        Json(&ranking.candidates) as Json<&Vec<Candidate>>,
        Json(&ranking.excluded) as Json<&Vec<Excluded>>
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Has a job wait for a ranking that chooses its model, unless it has one already.
///
/// # Errors
/// Those of the database.
pub async fn await_ranking(pool: &PgPool, id: JobId, ranking: &NewRanking) -> sqlx::Result<()> {
    let mut transaction = super::begin(pool).await?;
    let waits = sqlx::query_scalar!(
        "select id from jobs where id = $1 and status = 'validating_files' and model is null and ranking is null
        for update",
        id.0
    );
    if waits.fetch_optional(&mut *transaction).await?.is_some() {
        create(&mut transaction, ranking).await?;
        sqlx::query!(
            "with job as (
                update jobs set ranking = $2, phase = 'choosing', events = events + 1 where id = $1 returning id, events
            )
            insert into job_events (job_id, seq, kind, level, message, data)
            select id, events, 'phase', 'info', $3, jsonb_build_object('phase', 'choosing') from job",
            id.0,
            ranking.id.0,
            format!(
                "choosing a base model of {} by ranking `{}`",
                ranking.candidates.len(),
                ranking.id
            )
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Rankings of a tenant that wait or run.
///
/// # Errors
/// Those of the database.
pub async fn pending(pool: &PgPool, tenant: TenantId) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from rankings where tenant_id = $1 and status = 'queued'"#,
        tenant.0
    );
    count.fetch_one(pool).await.map(convert::to_count)
}

/// A query for rankings: their columns, read here only, and a `where` clause with its bindings.
macro_rules! query_rankings {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            r#"select id, status, training_file, candidates as "candidates: Json<Vec<Candidate>>",
                excluded as "excluded: Json<Vec<Excluded>>", ranked as "ranked: Json<Vec<RankedModel>>",
                error as "error: Json<Failure>", seconds, created_at, finished_at,
                exists (
                    select from work w where w.kind = 'rank' and w.subject = rankings.id and w.worker_id is not null
                ) as "is_running!"
            from rankings "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(Ranking {
                id: RankingId(row.id),
                status: match row.is_running {
                    true => RankingStatus::Running,
                    false => convert::parse("rankings.status", &row.status)?,
                },
                training_file: FileId(row.training_file),
                candidates: row.candidates.0,
                excluded: row.excluded.0,
                ranked: row.ranked.map(|ranked| ranked.0),
                error: row.error.map(|error| error.0),
                seconds: row.seconds,
                created_at: row.created_at,
                finished_at: row.finished_at,
            })
        })
    };
}

/// # Errors
/// Those of the database.
pub async fn get(pool: &PgPool, tenant: TenantId, id: RankingId) -> sqlx::Result<Option<Ranking>> {
    query_rankings!("where id = $1 and tenant_id = $2", id.0, tenant.0)
        .fetch_optional(pool)
        .await
}

/// # Errors
/// Those of the database.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<RankingId>,
) -> sqlx::Result<Slice<Ranking>> {
    let rankings = query_rankings!(
        "where tenant_id = $1 and ($2::uuid is null or case when $3 then id < $2 else id > $2 end)
        order by case when $3 then id end desc, case when not $3 then id end limit $4",
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(rankings.fetch_all(pool).await?, page.limit))
}

/// Deletes a ranking, and ends its work. `false`: there is none. A job that waits for it gets a new
/// one.
///
/// # Errors
/// Those of the database.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: RankingId) -> sqlx::Result<bool> {
    let deleted = sqlx::query!(
        "with work as (delete from work where kind = 'rank' and subject = $1 and tenant_id = $2)
        delete from rankings where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    );
    Ok(deleted.execute(pool).await?.rows_affected() == 1)
}

/// The inputs of a claimed ranking; `None` when it, or its data set, was deleted meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn to_rank(pool: &PgPool, lease: &Lease) -> sqlx::Result<Option<ToRank>> {
    let row = sqlx::query!(
        r#"select r.tenant_id, r.candidates as "candidates: Json<Vec<Candidate>>",
            r.failures as "failures: Json<BTreeMap<String, Failure>>", w.crashes, r.training_file,
            training.pack_sha256 as "training_sha256!", training.pack_bytes as "training_bytes!",
            training.dataset as "dataset!: Json<Dataset>", r.validation_file,
            validation.pack_sha256 as "validation_sha256?", validation.pack_bytes as "validation_bytes?"
        from rankings r
        join work w on w.kind = 'rank' and w.subject = r.id
        join files training on training.id = r.training_file and training.status = 'processed'
        left join files validation on validation.id = r.validation_file
        where r.id = $1 and w.token = $2"#,
        lease.subject,
        lease.token
    );
    Ok(row.fetch_optional(pool).await?.map(|row| {
        let pack = |file, sha256, bytes| Pack {
            file: FileId(file),
            sha256,
            bytes: convert::to_count(bytes),
        };
        let validation = row.validation_file.zip(row.validation_sha256);
        ToRank {
            tenant: TenantId(row.tenant_id),
            candidates: row.candidates.0,
            failures: row.failures.0,
            training: pack(row.training_file, row.training_sha256, row.training_bytes),
            validation: validation
                .zip(row.validation_bytes)
                .map(|((file, sha256), bytes)| pack(file, sha256, bytes)),
            dataset: row.dataset.0,
            crashes: convert::to_small(row.crashes),
        }
    }))
}

/// Keeps a candidate's scores, and forgets earlier crashes: there is progress. `false`: the lease
/// is lost.
///
/// # Errors
/// Those of the database.
pub async fn keep(
    pool: &PgPool,
    lease: &Lease,
    (key, pack_sha256): (&str, &str),
    scores: &Scores,
) -> sqlx::Result<bool> {
    let kept = under_lease!(
        query,
        "rank",
        ", kept as (
            insert into scores (tenant_id, key, pack_sha256, scores) select tenant_id, $3, $4, $5 from lease
            on conflict (tenant_id, key) do nothing
        ), ranking as (
            update rankings r set seconds = coalesce(seconds, 0) + $6 from lease where r.id = lease.subject
        )
        update work w set crashes = 0 from lease where w.kind = 'rank' and w.subject = lease.subject",
        lease.subject,
        lease.token,
        key,
        pack_sha256,
        Json(scores) as Json<&Scores>,
        scores.seconds
    );
    Ok(kept.execute(pool).await?.rows_affected() == 1)
}

/// Notes that a candidate cannot be scored, and forgets earlier crashes. `false`: the lease is
/// lost.
///
/// # Errors
/// Those of the database.
pub async fn note_failure(
    pool: &PgPool,
    lease: &Lease,
    model: &str,
    failure: &Failure,
) -> sqlx::Result<bool> {
    let noted = under_lease!(
        query,
        "rank",
        ", ranking as (
            update rankings r set failures = failures || jsonb_build_object($3::text, $4::jsonb)
            from lease where r.id = lease.subject
        )
        update work w set crashes = 0 from lease where w.kind = 'rank' and w.subject = lease.subject",
        lease.subject,
        lease.token,
        model,
        Json(failure) as Json<&Failure>
    );
    Ok(noted.execute(pool).await?.rows_affected() == 1)
}

/// Ends a ranking with its order, and the candidates that could not be scored. `false`: the lease
/// is lost.
///
/// # Errors
/// Those of the database.
pub async fn succeed(
    pool: &PgPool,
    lease: &Lease,
    ranked: &[RankedModel],
    failed: &[Excluded],
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "rank",
        " update rankings r set status = 'succeeded', finished_at = now(), ranked = $4, excluded = excluded || $5,
            seconds = coalesce(seconds, 0)
        from lease where r.id = lease.subject",
        Json(ranked) as Json<&[RankedModel]>,
        Json(failed) as Json<&[Excluded]>
    )
    .await
}

/// Ends a ranking that cannot be made. `false`: the lease is lost.
///
/// # Errors
/// Those of the database.
pub async fn fail(pool: &PgPool, lease: &Lease, failure: &Failure) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "rank",
        " update rankings r set status = 'failed', finished_at = now(), error = $4 from lease where r.id = lease.subject",
        Json(failure) as Json<&Failure>
    )
    .await
}

/// Ends a ranking that crashed too often.
///
/// # Errors
/// Those of the database.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!(
        "the ranking crashed or timed out {MAX_CRASHES} times without a new score; rank fewer models, or see the worker's log"
    );
    fail(pool, lease, &Failure::permanent("ranking_crashed", message)).await
}
