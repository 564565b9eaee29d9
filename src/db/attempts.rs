//! Attempts: executions of a job by a worker. The number of an attempt is the fencing token of its
//! claim.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{PgExecutor, PgPool, types::Json};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{convert, tenants::TenantId};
use crate::domain::{
    base_model::Layers,
    estimate::Measured,
    id::{JobId, WorkerId},
    progress::Usage,
    recipe::Recipe,
    role::Role,
};

/// Number of succeeded attempts that a time estimate is based on.
const MEASURED: i64 = 8;
/// Lines of the trainer's log that an attempt shows.
const LOG_LINES: usize = 20;

/// One execution of a job by one worker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Attempt {
    /// Counted from 1.
    pub number: i64,
    pub worker: WorkerId,
    /// Host of the worker; for admins.
    pub host: Option<String>,
    /// Known once the trainer is ready.
    pub device: Option<String>,
    pub threads: Option<u32>,
    /// Step of the checkpoint that it resumed from.
    pub resumed_step: Option<u64>,
    /// Last step that the trainer reported, once the attempt has ended.
    pub reached_step: Option<u64>,
    /// Peak memory of the trainer process. Measured on a CPU, when training ends in order.
    pub peak_bytes: Option<u64>,
    /// Samples that its optimizer steps read. Measured when training ends in order.
    pub trained_samples: Option<u64>,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub started_at: OffsetDateTime,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub ended_at: Option<OffsetDateTime>,
    /// `yielded`, `succeeded`, `failed`, `crashed`, `cancelled`, or `lost` when its lease expired.
    pub outcome: Option<String>,
    pub message: Option<String>,
    /// Exit code of the trainer, if it exited by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended the trainer, such as `SIGKILL`.
    pub exit_signal: Option<String>,
    /// The last 20 lines of the trainer's standard error; for admins.
    pub log: Vec<String>,
}

impl Attempt {
    /// The part that a key of this role sees.
    pub fn seen_by(&self, role: Role) -> Self {
        match role {
            Role::Admin => self.clone(),
            Role::User => Self {
                host: None,
                log: Vec::new(),
                ..self.clone()
            },
        }
    }
}

/// Attempts of these jobs, oldest first. Jobs without any are left out.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    jobs: &[Uuid],
) -> sqlx::Result<HashMap<JobId, Vec<Attempt>>> {
    let attempts = sqlx::query!(
        "select a.job_id, a.token, a.worker_id, a.host, a.device, a.threads, a.resumed_step, a.reached_step, a.peak_bytes, a.trained_samples,
            a.started_at, a.ended_at, a.outcome, a.message, a.exit_code, a.exit_signal, a.log_tail
        from attempts a join jobs j on j.id = a.job_id
        where a.job_id = any($1) and j.tenant_id = $2 order by a.token",
        jobs,
        tenant.0
    )
    .map(|row| (JobId(row.job_id), Attempt {
        number: row.token,
        worker: WorkerId(row.worker_id),
        host: row.host,
        device: row.device,
        threads: row.threads.map(convert::to_small),
        resumed_step: row.resumed_step.map(convert::to_count),
        reached_step: row.reached_step.map(convert::to_count),
        peak_bytes: row.peak_bytes.map(convert::to_count),
        trained_samples: row.trained_samples.map(convert::to_count),
        started_at: row.started_at,
        ended_at: row.ended_at,
        outcome: row.outcome,
        message: row.message,
        exit_code: row.exit_code,
        exit_signal: row.exit_signal,
        log: last_lines(row.log_tail.as_deref().unwrap_or_default()),
    }));
    let mut by_job: HashMap<JobId, Vec<Attempt>> = HashMap::new();
    for (job, attempt) in attempts.fetch_all(executor).await? {
        by_job.entry(job).or_default().push(attempt);
    }
    Ok(by_job)
}

fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].iter().map(|&line| line.to_owned()).collect()
}

/// Time and memory of the last succeeded attempts, with the recipes and layers that they depend on.
pub async fn measured(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<Measured>> {
    let measured = sqlx::query!(
        r#"select j.recipe as "recipe!: Json<Recipe>", m.layers as "layers!: Json<Layers>", a.peak_bytes,
            a.prepared_samples as "prepared_samples!", a.preparing_seconds as "preparing_seconds!",
            a.trained_samples as "trained_samples!", a.training_seconds as "training_seconds!"
        from jobs j
        join attempts a on a.job_id = j.id and a.token = j.token and a.training_seconds is not null
        join models m on m.tenant_id = j.tenant_id and m.id = j.model and m.layers is not null
        where j.tenant_id = $1 and j.status = 'succeeded' order by j.finished_at desc limit $2"#,
        tenant.0,
        MEASURED
    )
    .map(|row| Measured {
        recipe: row.recipe.0,
        layers: row.layers.0,
        usage: Usage {
            peak_bytes: row.peak_bytes.map(convert::to_count),
            prepared_samples: convert::to_count(row.prepared_samples),
            preparing_seconds: row.preparing_seconds,
            trained_samples: convert::to_count(row.trained_samples),
            training_seconds: row.training_seconds,
        },
    });
    measured.fetch_all(pool).await
}
