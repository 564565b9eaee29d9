//! Sessions of browsers: found by the hash of the token in their cookie, with the rights of the key
//! that they were begun with.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;

use super::keys::KeyId;

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Time without a request.
    pub idle: Duration,
    /// Time since their beginning.
    pub longest: Duration,
}

/// A session that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub created_at: OffsetDateTime,
    /// Time from which it is refused, unless it is used before.
    pub expires_at: OffsetDateTime,
}

/// Begins a session of a valid key under the SHA-256 of its token. Of `limit` others of the key,
/// the one that was not used for longest ends.
pub async fn create(
    pool: &PgPool,
    (sha256, key): (&[u8; 32], &KeyId),
    lifetimes: Lifetimes,
    limit: u32,
) -> sqlx::Result<Session> {
    sqlx::query_as!(
        Session,
        "with old as (
            select sha256 from sessions where key_prefix = $2 order by last_used_at desc, sha256 offset $5
        ), ended as (
            delete from sessions s using old where s.sha256 = old.sha256
        )
        insert into sessions (sha256, tenant_id, key_prefix, expires_at)
        select $1, tenant_id, prefix, now() + make_interval(secs => least($3::double precision, $4))
        from api_keys where prefix = $2 and revoked_at is null
        returning created_at, expires_at",
        sha256.as_slice(),
        key.prefix(),
        lifetimes.idle.as_secs_f64(),
        lifetimes.longest.as_secs_f64(),
        i64::from(limit) - 1
    )
    .fetch_one(pool)
    .await
}

/// The session of a token, and its key.
pub async fn find(pool: &PgPool, sha256: &[u8; 32]) -> sqlx::Result<Option<(Session, KeyId)>> {
    let found = sqlx::query!(
        "select created_at, expires_at, key_prefix from sessions where sha256 = $1 and expires_at > now()",
        sha256.as_slice()
    );
    let found = found.fetch_optional(pool).await?;
    Ok(found.map(|row| {
        let session = Session {
            created_at: row.created_at,
            expires_at: row.expires_at,
        };
        (session, KeyId::from_prefix(row.key_prefix))
    }))
}

/// Records that a session was used now, which lets it last.
pub async fn record_use(
    pool: &PgPool,
    sha256: &[u8; 32],
    lifetimes: Lifetimes,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update sessions set last_used_at = now(), expires_at = least(
            now() + make_interval(secs => $2), created_at + make_interval(secs => $3))
        where sha256 = $1 and expires_at > now()",
        sha256.as_slice(),
        lifetimes.idle.as_secs_f64(),
        lifetimes.longest.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Ends a session, at once and for good. `false`: there is none.
pub async fn end(pool: &PgPool, sha256: &[u8; 32]) -> sqlx::Result<bool> {
    let ended = sqlx::query!("delete from sessions where sha256 = $1", sha256.as_slice());
    Ok(ended.execute(pool).await?.rows_affected() == 1)
}

/// Deletes sessions whose time is over; returns how many.
pub async fn delete_expired(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select delete_expired_sessions() as "deleted!""#)
        .fetch_one(pool)
        .await
}
