//! API keys: found by their public prefix, compared by hash. The secret is never stored.

use sqlx::PgPool;

use super::tenants::TenantId;

/// A stored key.
#[derive(Debug, Clone)]
pub struct Key {
    pub tenant: TenantId,
    /// SHA-256 of the whole key. Compare it in constant time.
    pub sha256: Vec<u8>,
}

/// Stores a key's hash under its public prefix.
pub async fn create(
    pool: &PgPool,
    tenant: TenantId,
    name: &str,
    prefix: &str,
    sha256: &[u8; 32],
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into api_keys (prefix, tenant_id, name, sha256) values ($1, $2, $3, $4)",
        prefix,
        tenant.0,
        name,
        sha256.as_slice()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Finds the key with this public prefix.
pub async fn find(pool: &PgPool, prefix: &str) -> sqlx::Result<Option<Key>> {
    let key = sqlx::query_as!(
        Key,
        r#"select tenant_id as "tenant: TenantId", sha256 from api_keys where prefix = $1"#,
        prefix
    );
    key.fetch_optional(pool).await
}

/// True when there is any key. A service without one may only listen on loopback.
pub async fn any(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select from api_keys) as "any!""#)
        .fetch_one(pool)
        .await
}
