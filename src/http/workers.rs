//! `/v1/workers`: who trains, and whether anybody does.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{self, workers::Worker},
    domain::id::{JobId, WorkerId},
    http::api::{auth::Tenant, error::ApiError, page::List, state::AppState},
};

/// A worker process. One that is started again is another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub(crate) struct WorkerObject {
    pub id: WorkerId,
    /// `worker`.
    pub object: &'static str,
    pub host: String,
    /// Of its process, on that host.
    pub pid: u32,
    pub version: String,
    /// `cpu` or `cuda:0`; as it was asked for, such as `auto`, until its first self-test.
    pub device: String,
    /// `active`; `unfit`: its device fails the self-test; `quarantined`: jobs failed on it one after the other; `draining`: it
    /// takes nothing more; `stopped`; `lost`: it was not heard of for a minute.
    pub state: String,
    /// Why it is unfit or quarantined.
    pub reason: Option<String>,
    /// MiB of the device that a further job may take, as last measured.
    pub free_mb: Option<u32>,
    /// MiB that one job could take if this worker had no other.
    pub capacity_mb: Option<u32>,
    /// Unix seconds, as all times here.
    pub started_at: i64,
    pub last_seen_at: i64,
    /// Jobs that it runs at once.
    pub slots: u32,
    /// Jobs that it has now.
    pub busy: u32,
    /// Those of them that are yours.
    pub jobs: Vec<JobId>,
}

impl From<Worker> for WorkerObject {
    fn from(worker: Worker) -> Self {
        Self {
            id: worker.id,
            object: "worker",
            host: worker.host,
            pid: worker.pid,
            version: worker.version,
            device: worker.device,
            state: worker.state,
            reason: worker.reason,
            free_mb: worker.free_mb,
            capacity_mb: worker.capacity_mb,
            started_at: worker.started_at.unix_timestamp(),
            last_seen_at: worker.last_seen_at.unix_timestamp(),
            slots: worker.slots,
            busy: worker.busy,
            jobs: worker.jobs,
        }
    }
}

/// List workers
///
/// Those of the last day, the newest first, 500 at most.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", responses((status = 200, body = List<WorkerObject>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<axum::Json<List<WorkerObject>>, ApiError> {
    let workers = db::workers::list(state.pool(), tenant).await?;
    let data = workers.into_iter().map(WorkerObject::from).collect();
    Ok(axum::Json(List::new(
        data,
        false,
        |worker: &WorkerObject| worker.id.to_string(),
    )))
}
