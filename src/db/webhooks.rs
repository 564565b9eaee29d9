//! Webhooks as the API sees them: registered, read, changed, deleted.

use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use super::{
    Page, Slice, convert,
    idempotency::{self, Idempotency, Keyed},
    tenants::TenantId,
};
use crate::domain::{id::WebhookId, webhook::EventType};

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// Key of a signature.
pub type Secret = [u8; SECRET_BYTES];

/// Hours in which deliveries are signed by the old secret too, after a rotation.
const OLD_SECRET_HOURS: f64 = 24.0;

/// A webhook to register.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub tenant: TenantId,
    pub url: String,
    pub events: Vec<EventType>,
    pub secret: Secret,
    pub idempotency: Option<Idempotency>,
}

/// The result of `create`.
#[derive(Debug, Clone)]
pub enum Created {
    /// With its secret: of one that was registered before, the present one.
    Webhook(Keyed<(Webhook, Secret)>),
    /// The tenant has as many as allowed.
    TooMany,
}

/// A registered webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookObject)]
pub struct Webhook {
    pub id: WebhookId,
    /// `webhook`.
    pub object: &'static str,
    /// Unix seconds.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created_at: OffsetDateTime,
    pub url: String,
    /// Kinds of events that it is sent.
    pub events: Vec<EventType>,
    /// False when it is sent nothing.
    pub enabled: bool,
    /// Why the service disabled it; `null` when its user did.
    pub disabled_reason: Option<String>,
}

/// A change of a webhook; what is left out stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub url: Option<String>,
    pub events: Option<Vec<EventType>>,
    pub enabled: Option<bool>,
}

/// A query for webhooks: their columns, read here only, between the two parts of a statement, with
/// its bindings.
macro_rules! query_webhooks {
    ($head:literal, $tail:literal, $($bindings:tt)+) => {
        sqlx::query!($head + " id, url, events, enabled, disabled_reason, created_at " + $tail, $($bindings)+).try_map(|row| {
            let events = row.events.iter().map(|word| convert::parse("webhooks.events", word));
            Ok(Webhook {
                id: WebhookId(row.id),
                object: "webhook",
                created_at: row.created_at,
                events: events.collect::<sqlx::Result<_>>()?,
                url: row.url,
                enabled: row.enabled,
                disabled_reason: row.disabled_reason,
            })
        })
    };
}

fn words(events: &[EventType]) -> Vec<String> {
    let words = events.iter().map(|event| event.as_str().to_owned());
    words.collect()
}

/// Registers a webhook, unless the tenant has `limit` of them; or finds the one that its
/// idempotency key made.
pub async fn create(pool: &PgPool, webhook: &NewWebhook, limit: u32) -> sqlx::Result<Created> {
    let mut transaction = super::begin(pool).await?;
    // Others of the tenant wait until this one is counted.
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('webhooks', $1))",
        webhook.tenant.0
    )
    .execute(&mut *transaction)
    .await?;
    if let Some(idempotency) = &webhook.idempotency
        && let Some(earlier) = earlier(&mut transaction, webhook.tenant, idempotency).await?
    {
        return Ok(Created::Webhook(earlier));
    }
    let (key, body_sha256) = idempotency::columns(webhook.idempotency.as_ref());
    let created = query_webhooks!(
        "insert into webhooks (id, tenant_id, url, events, secret, idempotency_key, body_sha256)
        select $1, $2, $3, $4, $5, $6, $7 where (select count(*) from webhooks where tenant_id = $2) < $8
        returning",
        "",
        WebhookId::new().0,
        webhook.tenant.0,
        webhook.url,
        &words(&webhook.events),
        webhook.secret.as_slice(),
        key,
        body_sha256,
        i64::from(limit)
    )
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(created.map_or(Created::TooMany, |created| {
        Created::Webhook(Keyed::New((created, webhook.secret)))
    }))
}

/// The result of an earlier request with this idempotency key; `None` without one.
async fn earlier(
    transaction: &mut Transaction<'_, Postgres>,
    tenant: TenantId,
    idempotency: &Idempotency,
) -> sqlx::Result<Option<Keyed<(Webhook, Secret)>>> {
    let found = sqlx::query!(
        "select id, secret, body_sha256 from webhooks where tenant_id = $1 and idempotency_key = $2",
        tenant.0,
        idempotency.key
    );
    let Some(row) = found.fetch_optional(&mut **transaction).await? else {
        return Ok(None);
    };
    if !idempotency.is_same(row.body_sha256.as_deref()) {
        return Ok(Some(Keyed::KeyConflict));
    }
    let secret = Secret::try_from(row.secret);
    let secret =
        secret.map_err(|_| sqlx::Error::Decode("webhooks.secret has another length".into()))?;
    let webhook = query_webhooks!("select", "from webhooks where id = $1", row.id)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(Some(Keyed::Replayed((webhook, secret))))
}

pub async fn get(pool: &PgPool, tenant: TenantId, id: WebhookId) -> sqlx::Result<Option<Webhook>> {
    query_webhooks!(
        "select",
        "from webhooks where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await
}

pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<WebhookId>,
) -> sqlx::Result<Slice<Webhook>> {
    let webhooks = query_webhooks!(
        "select",
        "from webhooks
        where tenant_id = $1 and ($2::uuid is null or case when $3 then id < $2 else id > $2 end)
        order by case when $3 then id end desc, case when not $3 then id end limit $4",
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(webhooks.fetch_all(pool).await?, page.limit))
}

/// Changes a webhook. Events of the time in which it was disabled are not made up for.
pub async fn change(
    pool: &PgPool,
    tenant: TenantId,
    id: WebhookId,
    change: &Change,
) -> sqlx::Result<Option<Webhook>> {
    let events = change.events.as_deref().map(words);
    query_webhooks!(
        "update webhooks set url = coalesce($3, url), events = coalesce($4, events), enabled = coalesce($5, enabled),
            disabled_reason = case when $5 is null then disabled_reason end
        where id = $1 and tenant_id = $2 returning",
        "",
        id.0,
        tenant.0,
        change.url,
        events as Option<Vec<String>>,
        change.enabled
    )
    .fetch_optional(pool)
    .await
}

/// Replaces the secret; the old one signs too for a while.
pub async fn rotate_secret(
    pool: &PgPool,
    tenant: TenantId,
    id: WebhookId,
    secret: &Secret,
) -> sqlx::Result<Option<Webhook>> {
    query_webhooks!(
        "update webhooks set secret = $3, previous_secret = secret,
            previous_secret_until = now() + make_interval(secs => 3600 * $4::double precision)
        where id = $1 and tenant_id = $2 returning",
        "",
        id.0,
        tenant.0,
        secret.as_slice(),
        OLD_SECRET_HOURS
    )
    .fetch_optional(pool)
    .await
}

/// Deletes a webhook with its deliveries. `false`: there is none.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: WebhookId) -> sqlx::Result<bool> {
    let deleted = sqlx::query!(
        "delete from webhooks where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    );
    Ok(deleted.execute(pool).await?.rows_affected() == 1)
}
