//! API keys: found by their public prefix, compared by hash. The secret is never stored.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sqlx::PgPool;
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use super::{
    Page, Slice, convert,
    tenants::{Overrides, TenantId},
};
use crate::domain::role::Role;

/// The beginning of every key.
const MARK: &str = "rh_";
/// Random bytes of the public prefix behind the mark, in hex.
pub const PREFIX_BYTES: usize = 6;

/// The id of a key: its public part, which is its beginning. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(String);

/// The text does not begin like a key.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("not the id of an API key, which is `rh_` and 12 digits from 0 to f")]
pub struct ParseKeyIdError;

impl KeyId {
    /// The prefix without the mark, as the database has it.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// The id with this prefix, as the database has it.
    pub(super) fn from_prefix(prefix: String) -> Self {
        Self(prefix)
    }
}

impl From<[u8; PREFIX_BYTES]> for KeyId {
    fn from(prefix: [u8; PREFIX_BYTES]) -> Self {
        Self(hex::encode(prefix))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, ParseKeyIdError> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let prefix = text.strip_prefix(MARK).ok_or(ParseKeyIdError)?;
        if prefix.len() != 2 * PREFIX_BYTES || !prefix.bytes().all(hex) {
            return Err(ParseKeyIdError);
        }
        Ok(Self(prefix.to_owned()))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for KeyId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(format!("^{MARK}[0-9a-f]{{{}}}$", 2 * PREFIX_BYTES)))
            .into()
    }
}

impl ToSchema for KeyId {}

/// A key to store.
#[derive(Debug, Clone, Copy)]
pub struct NewRow<'a> {
    pub id: &'a KeyId,
    pub tenant: TenantId,
    /// SHA-256 of the whole key.
    pub sha256: &'a [u8; 32],
    pub name: &'a str,
    pub role: Role,
    pub expires_at: Option<OffsetDateTime>,
    pub requests_per_minute: Option<u32>,
}

/// An API key, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct Key {
    /// The beginning of the key.
    pub id: KeyId,
    /// `api_key`.
    pub object: &'static str,
    /// Name of its tenant.
    pub tenant: String,
    pub name: String,
    pub role: Role,
    /// Unix seconds.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created_at: OffsetDateTime,
    /// Time from which it is refused; `null`: never.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<OffsetDateTime>,
    /// Last use, to the minute or so.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub last_used_at: Option<OffsetDateTime>,
    /// Time of its revocation.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub revoked_at: Option<OffsetDateTime>,
    /// Maximum number of requests in a minute, within that of its tenant.
    pub requests_per_minute: Option<u32>,
}

/// A key that a request came with.
#[derive(Debug, Clone)]
pub struct Found {
    pub tenant: TenantId,
    pub tenant_name: String,
    /// SHA-256 of the whole key. Compare it in constant time.
    pub sha256: Vec<u8>,
    pub role: Role,
    /// False once it has expired or was revoked.
    pub is_valid: bool,
    pub requests_per_minute: Option<u32>,
    /// Limits of its tenant.
    pub overrides: Overrides,
}

/// Stores a key's hash under its public prefix.
pub async fn create(pool: &PgPool, row: NewRow<'_>) -> sqlx::Result<Key> {
    sqlx::query!(
        "insert into api_keys (prefix, tenant_id, name, sha256, role, expires_at, requests_per_minute)
        values ($1, $2, $3, $4, $5, $6, $7)",
        row.id.prefix(),
        row.tenant.0,
        row.name,
        row.sha256.as_slice(),
        row.role.as_str(),
        row.expires_at,
        row.requests_per_minute.map(convert::from_small)
    )
    .execute(pool)
    .await?;
    get(pool, row.id).await?.ok_or(sqlx::Error::RowNotFound)
}

/// A query for keys: their columns, read here only, before the end of a statement, with its
/// bindings.
macro_rules! query_keys {
    ($tail:literal, $($bindings:tt)*) => {
        sqlx::query!(
            "select k.prefix, t.name as tenant, k.name, k.role, k.created_at, k.expires_at, k.last_used_at, k.revoked_at,
                k.requests_per_minute
            from api_keys k join tenants t on t.id = k.tenant_id " + $tail,
            $($bindings)*
        )
        .try_map(|row| {
            Ok(Key {
                id: KeyId(row.prefix),
                object: "api_key",
                tenant: row.tenant,
                name: row.name,
                role: convert::parse("api_keys.role", &row.role)?,
                created_at: row.created_at,
                expires_at: row.expires_at,
                last_used_at: row.last_used_at,
                revoked_at: row.revoked_at,
                requests_per_minute: row.requests_per_minute.map(convert::to_small),
            })
        })
    };
}

async fn get(pool: &PgPool, id: &KeyId) -> sqlx::Result<Option<Key>> {
    query_keys!("where k.prefix = $1", id.prefix())
        .fetch_optional(pool)
        .await
}

/// Keys of all tenants, revoked ones as well.
pub async fn list(pool: &PgPool, page: Page<KeyId>) -> sqlx::Result<Slice<Key>> {
    let after = page.after.as_ref().map(KeyId::prefix);
    let keys = query_keys!(
        "left join api_keys a on a.prefix = $1
        where $1::text is null or case when $2 then (k.created_at, k.prefix) < (a.created_at, a.prefix)
            else (k.created_at, k.prefix) > (a.created_at, a.prefix) end
        order by case when $2 then k.created_at end desc, case when $2 then k.prefix end desc, k.created_at, k.prefix
        limit $3",
        after,
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(keys.fetch_all(pool).await?, page.limit))
}

/// Revokes a key, at once and for good. `None`: there is none of this id. Repeating it changes
/// nothing.
pub async fn revoke(pool: &PgPool, id: &KeyId) -> sqlx::Result<Option<Key>> {
    sqlx::query!(
        "update api_keys set revoked_at = now() where prefix = $1 and revoked_at is null",
        id.prefix()
    )
    .execute(pool)
    .await?;
    get(pool, id).await
}

/// Finds the key of this id.
pub async fn find(pool: &PgPool, id: &KeyId) -> sqlx::Result<Option<Found>> {
    let key = sqlx::query!(
        r#"select k.tenant_id as "tenant: TenantId", t.name, k.sha256, k.role,
            k.revoked_at is null and (k.expires_at is null or k.expires_at > now()) as "is_valid!",
            k.requests_per_minute, t.requests_per_minute as tenant_requests, t.max_stored_bytes, t.max_streams,
            t.max_waits, t.max_predicts, t.max_uploads
        from api_keys k join tenants t on t.id = k.tenant_id where k.prefix = $1"#,
        id.prefix()
    )
    .try_map(|row| {
        Ok(Found {
            tenant: row.tenant,
            tenant_name: row.name,
            sha256: row.sha256,
            role: convert::parse("api_keys.role", &row.role)?,
            is_valid: row.is_valid,
            requests_per_minute: row.requests_per_minute.map(convert::to_small),
            overrides: Overrides {
                requests_per_minute: row.tenant_requests.map(convert::to_small),
                max_stored_bytes: row.max_stored_bytes.map(convert::to_count),
                max_streams: row.max_streams.map(convert::to_small),
                max_waits: row.max_waits.map(convert::to_small),
                max_predicts: row.max_predicts.map(convert::to_small),
                max_uploads: row.max_uploads.map(convert::to_small),
            },
        })
    });
    key.fetch_optional(pool).await
}

/// Records that a key was used now.
pub async fn record_use(pool: &PgPool, id: &KeyId) -> sqlx::Result<()> {
    sqlx::query!(
        "update api_keys set last_used_at = now() where prefix = $1",
        id.prefix()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// True when there is any key, be it revoked. A service without one may only listen on loopback.
pub async fn any(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select from api_keys) as "any!""#)
        .fetch_one(pool)
        .await
}
