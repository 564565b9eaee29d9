//! Tenants: owners of rows, and their share of the workers.

use serde::Serialize;
use sqlx::PgPool;

use super::convert;

/// Primary key of a tenant. Never shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct TenantId(pub i64);

/// Name of the tenant of an open service.
pub const DEFAULT: &str = "default";

/// Limits of a tenant that differ from those of the service; `None`: that of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Overrides {
    pub requests_per_minute: Option<u32>,
    pub max_stored_bytes: Option<u64>,
    pub max_streams: Option<u32>,
    pub max_waits: Option<u32>,
    pub max_predicts: Option<u32>,
    pub max_uploads: Option<u32>,
}

/// The tenant that every request belongs to while the service has no API keys. The schema creates
/// it.
pub async fn default_tenant(pool: &PgPool) -> sqlx::Result<(TenantId, Overrides)> {
    sqlx::query!(
        r#"select id as "id: TenantId", requests_per_minute, max_stored_bytes, max_streams, max_waits, max_predicts,
            max_uploads
        from tenants where name = 'default'"#
    )
    .map(|row| {
        let overrides = Overrides {
            requests_per_minute: row.requests_per_minute.map(convert::to_small),
            max_stored_bytes: row.max_stored_bytes.map(convert::to_count),
            max_streams: row.max_streams.map(convert::to_small),
            max_waits: row.max_waits.map(convert::to_small),
            max_predicts: row.max_predicts.map(convert::to_small),
            max_uploads: row.max_uploads.map(convert::to_small),
        };
        (row.id, overrides)
    })
    .fetch_one(pool)
    .await
}

/// Finds the tenant of this name, or creates it.
pub async fn find_or_create(pool: &PgPool, name: &str) -> sqlx::Result<TenantId> {
    sqlx::query!(
        "insert into tenants (name) values ($1) on conflict (name) do nothing",
        name
    )
    .execute(pool)
    .await?;
    sqlx::query_scalar!(
        r#"select id as "id: TenantId" from tenants where name = $1"#,
        name
    )
    .fetch_one(pool)
    .await
}

/// A tenant, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tenant {
    pub name: String,
    /// Share of the workers, relative to other tenants.
    pub weight: f32,
    pub running: i32,
    pub max_running: i32,
    pub queued: i64,
    pub max_queued: i32,
    pub paused: bool,
    /// Limits of its own; `null`: that of the service.
    #[serde(flatten)]
    pub overrides: Overrides,
}

/// Changes to a tenant; `None` keeps a value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    pub weight: Option<f32>,
    pub max_running: Option<u32>,
    pub max_queued: Option<u32>,
    pub paused: Option<bool>,
    /// The inner `None`, as below, is the limit of the service.
    pub requests_per_minute: Option<Option<u64>>,
    pub max_stored_bytes: Option<Option<u64>>,
    pub max_streams: Option<Option<u64>>,
    pub max_waits: Option<Option<u64>>,
    pub max_predicts: Option<Option<u64>>,
    pub max_uploads: Option<Option<u64>>,
}

/// All tenants, by name.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Tenant>> {
    sqlx::query!(
        r#"select t.name, t.weight, t.running, t.max_running, t.max_queued, t.paused, t.requests_per_minute,
            t.max_stored_bytes, t.max_streams, t.max_waits, t.max_predicts, t.max_uploads,
            (select count(*) from jobs j where j.tenant_id = t.id and j.status = 'queued') as "queued!"
        from tenants t order by t.name"#
    )
    .map(|row| Tenant {
        name: row.name,
        weight: row.weight,
        running: row.running,
        max_running: row.max_running,
        queued: row.queued,
        max_queued: row.max_queued,
        paused: row.paused,
        overrides: Overrides {
            requests_per_minute: row.requests_per_minute.map(convert::to_small),
            max_stored_bytes: row.max_stored_bytes.map(convert::to_count),
            max_streams: row.max_streams.map(convert::to_small),
            max_waits: row.max_waits.map(convert::to_small),
            max_predicts: row.max_predicts.map(convert::to_small),
            max_uploads: row.max_uploads.map(convert::to_small),
        },
    })
    .fetch_all(pool)
    .await
}

/// Changes a tenant. Returns `false` if there is none of this name. Running jobs continue, even
/// above a new limit.
pub async fn change(pool: &PgPool, name: &str, change: &Change) -> sqlx::Result<bool> {
    let of = |limit: Option<Option<u64>>| limit.flatten().map(convert::from_count);
    let small = |limit: Option<Option<u64>>| {
        let number = limit.flatten();
        number.map(|number| i32::try_from(number).unwrap_or(i32::MAX))
    };
    let changed = sqlx::query!(
        "update tenants set weight = coalesce($2, weight), max_running = coalesce($3, max_running),
            max_queued = coalesce($4, max_queued), paused = coalesce($5, paused),
            requests_per_minute = case when $6 then $7 else requests_per_minute end,
            max_stored_bytes = case when $8 then $9 else max_stored_bytes end,
            max_streams = case when $10 then $11 else max_streams end,
            max_waits = case when $12 then $13 else max_waits end,
            max_predicts = case when $14 then $15 else max_predicts end,
            max_uploads = case when $16 then $17 else max_uploads end
        where name = $1",
        name,
        change.weight,
        change.max_running.map(convert::from_small),
        change.max_queued.map(convert::from_small),
        change.paused,
        change.requests_per_minute.is_some(),
        small(change.requests_per_minute),
        change.max_stored_bytes.is_some(),
        of(change.max_stored_bytes),
        change.max_streams.is_some(),
        small(change.max_streams),
        change.max_waits.is_some(),
        small(change.max_waits),
        change.max_predicts.is_some(),
        small(change.max_predicts),
        change.max_uploads.is_some(),
        small(change.max_uploads)
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}
