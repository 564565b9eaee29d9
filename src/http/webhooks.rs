//! `/v1/webhooks`: URLs that are told when jobs end, and the deliveries to them.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        deliveries::{Delivery, Event},
        webhooks::{Change, Created, NewWebhook, Secret, Webhook},
    },
    domain::{
        codes,
        id::{DeliveryId, WebhookEventId, WebhookId},
        webhook::{EventType, TEST_EVENT},
    },
    http::api::{
        auth::Caller,
        error::ApiError,
        extract::{Id, Ids, Json, Params},
        idempotency::{self, IdempotencyKey},
        outgoing::explain_refused,
        page::{Deleted, List, PageQuery},
        state::AppState,
    },
    outgoing::Use,
    webhooks::{body, secret_text},
};

/// A webhook to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookRequest {
    /// URL that is sent a POST for each event.
    #[schema(max_length = 2048)]
    url: String,
    /// Kinds of events to send; all by default.
    #[schema(min_items = 1)]
    events: Option<Vec<EventType>>,
}

/// Changes of a webhook; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    #[schema(max_length = 2048)]
    url: Option<String>,
    #[schema(min_items = 1)]
    events: Option<Vec<EventType>>,
    /// False: it is sent nothing until it is enabled again.
    enabled: Option<bool>,
}

/// A webhook with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// Key of the signatures: `whsec_` and 32 bytes in base64, as verifying libraries take it.
    secret: String,
}

/// Register a webhook
///
/// It is sent a POST when a job ends, signed by the Standard Webhooks specification: OpenAI's
/// clients verify it by `client.webhooks.unwrap`. The response has the secret, once.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", operation_id = "create_webhook", request_body = WebhookRequest,
    params(IdempotencyKey),
    responses((status = 200, body = WebhookWithSecret, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    key: IdempotencyKey,
    json: Json,
) -> Result<Response, ApiError> {
    let idempotency = key.with_body(&json.0);
    let request: WebhookRequest = json.read()?;
    let events = checked_events(request.events)?.unwrap_or_else(|| EventType::ALL.to_vec());
    check_url(&state, &request.url).await?;
    let webhook = NewWebhook {
        tenant,
        url: request.url,
        events,
        secret: rand::random(),
        idempotency,
    };
    let limit = state.webhooks.max_webhooks;
    let created = match db::webhooks::create(&state.pool, &webhook, limit).await? {
        Created::Webhook(created) => created,
        Created::TooMany => {
            let message = format!(
                "there are {limit} webhooks, which is the limit; delete one, or change its `url` by `POST /v1/webhooks/{{id}}`"
            );
            return Err(ApiError::conflict("too_many_webhooks", message));
        }
    };
    idempotency::respond(created.map(WebhookWithSecret::from))
}

impl From<(Webhook, Secret)> for WebhookWithSecret {
    fn from((webhook, secret): (Webhook, Secret)) -> Self {
        Self {
            webhook,
            secret: secret_text(&secret),
        }
    }
}

/// The events without repetitions.
fn checked_events(events: Option<Vec<EventType>>) -> Result<Option<Vec<EventType>>, ApiError> {
    let Some(given) = events else {
        return Ok(None);
    };
    if given.is_empty() {
        let message = "must name at least one kind of event; leave it out for all";
        return Err(ApiError::invalid("events", codes::INVALID_VALUE, message));
    }
    let listed = EventType::ALL.into_iter();
    Ok(Some(listed.filter(|event| given.contains(event)).collect()))
}

async fn check_url(state: &AppState, url: &str) -> Result<(), ApiError> {
    if !state.outgoing.is_on(Use::Webhook) {
        let message = "webhooks are turned off on this service; the operator turns them on with `--webhook-hosts`";
        return Err(ApiError::invalid("url", "webhooks_off", message));
    }
    let target = state.outgoing.target(url, Use::Webhook);
    let target = target.map_err(|refused| explain_refused("url", &refused))?;
    let checked = state.outgoing.check(&target).await;
    checked.map_err(|refused| explain_refused("url", &refused))
}

/// List webhooks
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks", params(PageQuery<WebhookId>),
    responses((status = 200, body = List<Webhook>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Params(query): Params<PageQuery<WebhookId>>,
) -> Result<axum::Json<List<Webhook>>, ApiError> {
    let page = query.page(&state.limits)?;
    let slice = db::webhooks::list(&state.pool, tenant, page).await?;
    Ok(List::of(
        slice,
        |webhook| webhook,
        |webhook| webhook.id.to_string(),
    ))
}

/// Get a webhook
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook", params(("id" = WebhookId, Path)),
    responses((status = 200, body = Webhook)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
) -> Result<axum::Json<Webhook>, ApiError> {
    let webhook = db::webhooks::get(&state.pool, tenant, id).await?;
    webhook.map(axum::Json).ok_or_else(|| ApiError::unknown(id))
}

/// Change a webhook
///
/// One that was disabled is enabled again by `{"enabled": true}`.
#[utoipa::path(post, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "update_webhook", params(("id" = WebhookId, Path)),
    request_body = WebhookChange,
    responses((status = 200, body = Webhook)))]
pub(crate) async fn update(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
    json: Json,
) -> Result<axum::Json<Webhook>, ApiError> {
    let WebhookChange {
        url,
        events,
        enabled,
    } = json.read()?;
    let found = db::webhooks::get(&state.pool, tenant, id).await?;
    found.ok_or_else(|| ApiError::unknown(id))?;
    if let Some(url) = &url {
        check_url(&state, url).await?;
    }
    let change = Change {
        url,
        events: checked_events(events)?,
        enabled,
    };
    let webhook = db::webhooks::change(&state.pool, tenant, id, &change).await?;
    webhook.map(axum::Json).ok_or_else(|| ApiError::unknown(id))
}

/// Replace a webhook's secret
///
/// The response has the new secret, once. For 24 hours deliveries are signed by the old one too.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate_secret", tag = "webhooks", operation_id = "rotate_webhook_secret",
    params(("id" = WebhookId, Path)),
    responses((status = 200, body = WebhookWithSecret)))]
pub(crate) async fn rotate_secret(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
) -> Result<axum::Json<WebhookWithSecret>, ApiError> {
    let secret: Secret = rand::random();
    let webhook = db::webhooks::rotate_secret(&state.pool, tenant, id, &secret).await?;
    let webhook = webhook.ok_or_else(|| ApiError::unknown(id))?;
    Ok(axum::Json((webhook, secret).into()))
}

/// Delete a webhook
///
/// Its deliveries are deleted with it.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook", params(("id" = WebhookId, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    if db::webhooks::delete(&state.pool, tenant, id).await? {
        Ok(Deleted::of("webhook", id))
    } else {
        Err(ApiError::unknown(id))
    }
}

/// Send a webhook a test event
///
/// Its type is `webhook.test`; it is signed and retried as every other. The response is its
/// delivery.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "webhooks", operation_id = "test_webhook", params(("id" = WebhookId, Path)),
    responses((status = 200, body = Delivery)))]
pub(crate) async fn test(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
) -> Result<axum::Json<Delivery>, ApiError> {
    refuse_disabled(&state, tenant, id).await?;
    let (event, now) = (WebhookEventId::new(), OffsetDateTime::now_utc());
    let data = json!({"id": id, "object": "webhook"});
    let event = Event {
        id: event,
        tenant,
        kind: TEST_EVENT.to_owned(),
        job: None,
        body: Some(body(event, now, TEST_EVENT, &data)),
        created_at: now,
    };
    let delivery = db::deliveries::test(&state.pool, id, &event).await?;
    delivery
        .map(axum::Json)
        .ok_or_else(|| ApiError::unknown(id))
}

/// # Errors
/// There is no such webhook, or nothing would be sent to it.
async fn refuse_disabled(
    state: &AppState,
    tenant: db::tenants::TenantId,
    id: WebhookId,
) -> Result<(), ApiError> {
    let webhook = db::webhooks::get(&state.pool, tenant, id).await?;
    if webhook.ok_or_else(|| ApiError::unknown(id))?.enabled {
        return Ok(());
    }
    let message = format!(
        "the webhook is disabled; enable it by `POST /v1/webhooks/{id}` with `{{\"enabled\": true}}`"
    );
    Err(ApiError::conflict("webhook_disabled", message))
}

/// List a webhook's deliveries
///
/// Those of the last 30 days.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_webhook_deliveries",
    params(("id" = WebhookId, Path), PageQuery<DeliveryId>),
    responses((status = 200, body = List<Delivery>)))]
pub(crate) async fn deliveries(
    Caller { state, tenant }: Caller,
    Id(id): Id<WebhookId>,
    Params(query): Params<PageQuery<DeliveryId>>,
) -> Result<axum::Json<List<Delivery>>, ApiError> {
    let page = query.page(&state.limits)?;
    let webhook = db::webhooks::get(&state.pool, tenant, id).await?;
    webhook.ok_or_else(|| ApiError::unknown(id))?;
    let slice = db::deliveries::list(&state.pool, tenant, id, page).await?;
    Ok(List::of(
        slice,
        |delivery| delivery,
        |delivery| delivery.id.to_string(),
    ))
}

/// Get a webhook's delivery
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries/{delivery}", tag = "webhooks", operation_id = "get_webhook_delivery",
    params(("id" = WebhookId, Path), ("delivery" = DeliveryId, Path)),
    responses((status = 200, body = Delivery)))]
pub(crate) async fn delivery(
    Caller { state, tenant }: Caller,
    Ids(id, delivery): Ids<WebhookId, DeliveryId>,
) -> Result<axum::Json<Delivery>, ApiError> {
    let found = db::deliveries::get(&state.pool, tenant, id, delivery).await?;
    found
        .map(axum::Json)
        .ok_or_else(|| ApiError::unknown(delivery))
}

/// Send an event again
///
/// The same event with the same id, whether it was taken or given up.
#[utoipa::path(post, path = "/v1/webhooks/{id}/deliveries/{delivery}/redeliver", tag = "webhooks",
    operation_id = "redeliver_webhook_delivery", params(("id" = WebhookId, Path), ("delivery" = DeliveryId, Path)),
    responses((status = 200, body = Delivery)))]
pub(crate) async fn redeliver(
    Caller { state, tenant }: Caller,
    Ids(id, delivery): Ids<WebhookId, DeliveryId>,
) -> Result<axum::Json<Delivery>, ApiError> {
    refuse_disabled(&state, tenant, id).await?;
    let again = db::deliveries::redeliver(&state.pool, tenant, id, delivery).await?;
    again
        .map(axum::Json)
        .ok_or_else(|| ApiError::unknown(delivery))
}
