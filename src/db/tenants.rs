//! Tenants: owners of rows, and their share of the workers.

use sqlx::PgPool;

use super::convert;

/// Primary key of a tenant. Never shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct TenantId(pub i64);

/// The tenant that every request belongs to while the service has no API keys. The schema creates
/// it.
pub async fn default_id(pool: &PgPool) -> sqlx::Result<TenantId> {
    sqlx::query_scalar!(r#"select id as "id: TenantId" from tenants where name = 'default'"#)
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
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    pub name: String,
    /// Share of the workers, relative to other tenants.
    pub weight: f32,
    pub running: i32,
    pub max_running: i32,
    pub queued: i64,
    pub max_queued: i32,
    pub paused: bool,
}

/// Changes to a tenant; `None` keeps a value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    pub weight: Option<f32>,
    pub max_running: Option<u32>,
    pub max_queued: Option<u32>,
    pub paused: Option<bool>,
}

/// All tenants, by name.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Tenant>> {
    sqlx::query_as!(
        Tenant,
        r#"select t.name, t.weight, t.running, t.max_running, t.max_queued, t.paused,
            (select count(*) from jobs j where j.tenant_id = t.id and j.status = 'queued') as "queued!"
        from tenants t order by t.name"#
    )
    .fetch_all(pool)
    .await
}

/// Changes a tenant. Returns `false` if there is none of this name. Running jobs continue, even
/// above a new limit.
pub async fn change(pool: &PgPool, name: &str, change: &Change) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update tenants set weight = coalesce($2, weight), max_running = coalesce($3, max_running),
            max_queued = coalesce($4, max_queued), paused = coalesce($5, paused)
        where name = $1",
        name,
        change.weight,
        change.max_running.map(convert::from_small),
        change.max_queued.map(convert::from_small),
        change.paused
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}
