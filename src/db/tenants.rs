//! Tenants: who owns rows.

use sqlx::PgPool;

use super::convert;

/// A tenant's key. Never shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(pub i64);

/// The tenant of a service that runs open: made by the first migration.
pub async fn default_id(pool: &PgPool) -> sqlx::Result<TenantId> {
    let id = sqlx::query_scalar!("select id from tenants where name = 'default'")
        .fetch_one(pool)
        .await?;
    Ok(TenantId(id))
}

/// The tenant of this name, made when there is none.
pub async fn find_or_create(pool: &PgPool, name: &str) -> sqlx::Result<TenantId> {
    sqlx::query!(
        "insert into tenants (name) values ($1) on conflict (name) do nothing",
        name
    )
    .execute(pool)
    .await?;
    let id = sqlx::query_scalar!("select id from tenants where name = $1", name)
        .fetch_one(pool)
        .await?;
    Ok(TenantId(id))
}

/// A tenant, for whoever runs the service.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    pub name: String,
    /// Share of the workers, against other tenants.
    pub weight: f32,
    pub running: u32,
    pub max_running: u32,
    pub queued: u64,
    pub max_queued: u32,
    pub paused: bool,
}

/// What is to change of a tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    pub weight: Option<f32>,
    pub max_running: Option<u32>,
    pub max_queued: Option<u32>,
    pub paused: Option<bool>,
}

/// All tenants, by name.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Tenant>> {
    let rows = sqlx::query!(
        r#"select t.name, t.weight, t.running, t.max_running, t.max_queued, t.paused,
            (select count(*) from jobs j where j.tenant_id = t.id and j.status = 'queued') as "queued!"
        from tenants t order by t.name"#
    )
    .fetch_all(pool)
    .await?;
    let tenants = rows.into_iter().map(|row| Tenant {
        name: row.name,
        weight: row.weight,
        running: convert::to_small(row.running),
        max_running: convert::to_small(row.max_running),
        queued: convert::to_count(row.queued),
        max_queued: convert::to_small(row.max_queued),
        paused: row.paused,
    });
    Ok(tenants.collect())
}

/// Changes a tenant; `false`: there is none of this name. What runs goes on, also beyond a new cap.
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
