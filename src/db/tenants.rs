//! Tenants: who owns rows.

use sqlx::PgPool;

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
