//! Deliveries: events on their way to webhooks. The trigger `announce_job_end` writes them in the
//! transaction that ends a job. A try is leased: `claim` counts it, and its number is the fencing
//! token of its result. If its process dies, the lease expires and the delivery is claimed again.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use super::{Page, Slice, convert, retry, tenants::TenantId, webhooks::Secret};
use crate::domain::{
    id::{DeliveryId, JobId, WebhookEventId, WebhookId},
    webhook::DeliveryStatus,
};

/// Rows that one call of `forget` deletes.
const FORGET_AT_ONCE: i64 = 1_000;

/// A delivery of an event to a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct Delivery {
    pub id: DeliveryId,
    /// `webhook.delivery`.
    pub object: &'static str,
    pub webhook: WebhookId,
    /// Id of the event, which is also the header `webhook-id`.
    pub event: WebhookEventId,
    /// Kind of the event, such as `fine_tuning.job.succeeded`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Job that the event is about.
    pub job: Option<JobId>,
    pub status: DeliveryStatus,
    /// Number of tries so far.
    pub attempts: u32,
    /// Status of the receiver's last answer.
    pub response_status: Option<u16>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// Unix seconds, as all times.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created_at: OffsetDateTime,
    /// Time of the next try, while it is pending.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub next_attempt_at: Option<OffsetDateTime>,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub ended_at: Option<OffsetDateTime>,
}

/// A query for deliveries of a tenant: their columns, read here only, and the rest of the statement
/// with its bindings.
macro_rules! query_deliveries {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            "select d.id, d.webhook_id, d.event_id, e.type as kind, e.job_id, d.status, d.attempts, d.response_status,
                d.error, e.created_at, d.next_attempt_at, d.ended_at
            from webhook_deliveries d
            join webhooks w on w.id = d.webhook_id
            join webhook_events e on e.id = d.event_id " + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            let status = convert::parse("webhook_deliveries.status", &row.status)?;
            Ok(Delivery {
                id: DeliveryId(row.id),
                object: "webhook.delivery",
                webhook: WebhookId(row.webhook_id),
                event: WebhookEventId(row.event_id),
                kind: row.kind,
                job: row.job_id.map(JobId),
                status,
                attempts: convert::to_small(row.attempts),
                response_status: row.response_status.and_then(|status| u16::try_from(status).ok()),
                error: row.error,
                created_at: row.created_at,
                next_attempt_at: (status == DeliveryStatus::Pending).then_some(row.next_attempt_at),
                ended_at: row.ended_at,
            })
        })
    };
}

pub async fn get(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    id: DeliveryId,
) -> sqlx::Result<Option<Delivery>> {
    query_deliveries!(
        "where d.id = $1 and d.webhook_id = $2 and w.tenant_id = $3",
        id.0,
        webhook.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await
}

/// Deliveries to a webhook.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    page: Page<DeliveryId>,
) -> sqlx::Result<Slice<Delivery>> {
    let deliveries = query_deliveries!(
        "where d.webhook_id = $1 and w.tenant_id = $2
            and ($3::uuid is null or case when $4 then d.id < $3 else d.id > $3 end)
        order by case when $4 then d.id end desc, case when not $4 then d.id end limit $5",
        webhook.0,
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(deliveries.fetch_all(pool).await?, page.limit))
}

/// Sends an event again, with the whole time that a new one has; or now, if it is pending.
pub async fn redeliver(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    id: DeliveryId,
) -> sqlx::Result<Option<Delivery>> {
    sqlx::query!(
        "update webhook_deliveries d set status = 'pending', queued_at = now(), next_attempt_at = now(), ended_at = null
        from webhooks w where d.id = $1 and d.webhook_id = $2 and w.id = $2 and w.tenant_id = $3",
        id.0,
        webhook.0,
        tenant.0
    )
    .execute(pool)
    .await?;
    get(pool, tenant, webhook, id).await
}

/// Queues an event that is for one webhook only.
pub async fn test(
    pool: &PgPool,
    webhook: WebhookId,
    event: &Event,
) -> sqlx::Result<Option<Delivery>> {
    let id = DeliveryId::new();
    sqlx::query!(
        "with webhook as (select id from webhooks where id = $1 and tenant_id = $2 for key share),
        event as (
            insert into webhook_events (id, tenant_id, type, body, created_at) select $3, $2, $4, $5, $6 from webhook
            returning id
        )
        insert into webhook_deliveries (id, webhook_id, event_id) select $7, webhook.id, event.id from webhook, event",
        webhook.0,
        event.tenant.0,
        event.id.0,
        event.kind,
        event.body,
        event.created_at,
        id.0
    )
    .execute(pool)
    .await?;
    get(pool, event.tenant, webhook, id).await
}

/// An event that webhooks are sent.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: WebhookEventId,
    pub tenant: TenantId,
    pub kind: String,
    pub job: Option<JobId>,
    /// JSON; `None` before the first try.
    pub body: Option<String>,
    pub created_at: OffsetDateTime,
}

/// A claimed delivery.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub id: DeliveryId,
    pub webhook: WebhookId,
    /// Number of this try, from 1.
    pub attempt: i32,
    pub url: String,
    /// Keys to sign with: the current one, then the one before, for a while after a rotation.
    pub secrets: Vec<Secret>,
    pub event: Event,
}

/// Claims the delivery that is due longest, of a webhook with fewer than `parallel` tries under
/// way. The lease ends after `ttl`.
pub async fn claim(pool: &PgPool, parallel: u32, ttl: Duration) -> sqlx::Result<Option<Claimed>> {
    let claim = || {
        sqlx::query!(
            r#"with busy as materialized (
                select webhook_id from webhook_deliveries where lease_expires_at > now()
                group by webhook_id having count(*) >= $1
            ), next as (
                select d.id from webhook_deliveries d join webhooks w on w.id = d.webhook_id
                where d.status = 'pending' and d.next_attempt_at <= now() and w.enabled
                    and (d.lease_expires_at is null or d.lease_expires_at < now())
                    and not exists (select from busy where busy.webhook_id = d.webhook_id)
                order by d.next_attempt_at limit 1 for update of d skip locked
            ), claimed as (
                update webhook_deliveries d set attempts = d.attempts + 1,
                    lease_expires_at = now() + make_interval(secs => $2)
                from next where d.id = next.id
                returning d.id, d.webhook_id, d.event_id, d.attempts
            )
            select c.id, c.webhook_id, c.attempts, w.url, w.secret,
                case when w.previous_secret_until > now() then w.previous_secret end as previous_secret,
                e.id as event_id, e.tenant_id as "tenant: TenantId", e.type as kind, e.job_id, e.body, e.created_at
            from claimed c join webhooks w on w.id = c.webhook_id join webhook_events e on e.id = c.event_id"#,
            i64::from(parallel),
            ttl.as_secs_f64()
        )
        .map(|row| Claimed {
            id: DeliveryId(row.id),
            webhook: WebhookId(row.webhook_id),
            attempt: row.attempts,
            url: row.url,
            secrets: [Some(row.secret), row.previous_secret]
                .into_iter()
                .filter_map(|secret| Secret::try_from(secret?).ok())
                .collect(),
            event: Event {
                id: WebhookEventId(row.event_id),
                tenant: row.tenant,
                kind: row.kind,
                job: row.job_id.map(JobId),
                body: row.body,
                created_at: row.created_at,
            },
        })
        .fetch_optional(pool)
    };
    retry(claim).await
}

/// Stores the body of an event, unless another try did before; returns the one that is stored.
pub async fn keep_body(
    pool: &PgPool,
    event: WebhookEventId,
    body: &str,
) -> sqlx::Result<Option<String>> {
    let kept = sqlx::query_scalar!(
        "update webhook_events set body = coalesce(body, $2) where id = $1 returning body",
        event.0,
        body
    );
    Ok(kept.fetch_optional(pool).await?.flatten())
}

/// How a try ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// `None` when there was no answer.
    pub response_status: Option<u16>,
    /// `None` when the receiver took the event.
    pub error: Option<String>,
    /// No further try can end otherwise.
    pub is_final: bool,
    /// The webhook is disabled for this reason.
    pub disable: Option<String>,
}

/// The backoff between tries: as long as the event has waited so far, within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub shortest: Duration,
    pub longest: Duration,
    /// Age of a delivery at which it is given up.
    pub give_up: Duration,
}

/// Writes the result of a try. `None`: the lease was lost, nothing was written.
pub async fn end(
    pool: &PgPool,
    claimed: &Claimed,
    tried: &Tried,
    backoff: Backoff,
) -> sqlx::Result<Option<DeliveryStatus>> {
    let end = || {
        sqlx::query_scalar!(
            "with tried as (
                select id, queued_at + make_interval(secs => $8) as deadline, now() + make_interval(secs => (0.75 + random() / 2)
                    * greatest($6, least($7, extract(epoch from now() - queued_at)::double precision))) as next
                from webhook_deliveries where id = $1 and attempts = $2 and status = 'pending' for update
            ), disabled as (
                update webhooks set enabled = false, disabled_reason = $9
                where id = (select webhook_id from webhook_deliveries d join tried on tried.id = d.id) and $9::text is not null
            ), verdict as (
                select id, next, case when $4::text is null then 'succeeded' when $5 or next > deadline then 'failed'
                    else 'pending' end as status from tried
            )
            update webhook_deliveries d set status = verdict.status, lease_expires_at = null, response_status = $3, error = $4,
                next_attempt_at = verdict.next, ended_at = case when verdict.status <> 'pending' then now() end
            from verdict where d.id = verdict.id
            returning d.status",
            claimed.id.0,
            claimed.attempt,
            tried.response_status.map(i32::from),
            tried.error,
            tried.is_final,
            backoff.shortest.as_secs_f64(),
            backoff.longest.as_secs_f64(),
            backoff.give_up.as_secs_f64(),
            tried.disable
        )
        .fetch_optional(pool)
    };
    let status = retry(end).await?;
    status
        .map(|word| convert::parse("webhook_deliveries.status", &word))
        .transpose()
}

/// Gives up what waits for a webhook that was disabled for longer than `give_up`.
pub async fn give_up_held(pool: &PgPool, give_up: Duration) -> sqlx::Result<u64> {
    let given_up = sqlx::query!(
        "update webhook_deliveries d set status = 'failed', lease_expires_at = null, ended_at = now(),
            error = coalesce(d.error, 'the webhook was disabled')
        from webhooks w where w.id = d.webhook_id and not w.enabled and d.status = 'pending'
            and d.queued_at < now() - make_interval(secs => $1)",
        give_up.as_secs_f64()
    );
    Ok(given_up.execute(pool).await?.rows_affected())
}

/// Deletes events that are older than `days`, with their deliveries; a limited number of them.
/// Returns how many.
pub async fn forget(pool: &PgPool, days: u32) -> sqlx::Result<u64> {
    let forgotten = sqlx::query!(
        "delete from webhook_events where id in (
            select e.id from webhook_events e where e.created_at < now() - make_interval(days => $1)
                and not exists (select from webhook_deliveries d where d.event_id = e.id and d.status = 'pending')
            order by e.created_at limit $2 for update skip locked)",
        convert::from_small(days),
        FORGET_AT_ONCE
    );
    Ok(forgotten.execute(pool).await?.rows_affected())
}
