//! Claims deliveries that are due, tries each once, and writes what came of it.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::signature::signatures;
use crate::{
    config::WebhookArgs,
    db::{
        deliveries::{self, Backoff, Claimed, Event, Tried},
        tenants::TenantId,
    },
    domain::{
        id::{JobId, WebhookEventId},
        webhook::DeliveryStatus,
    },
    outgoing::{Outgoing, Unsent, Use},
    telemetry::metrics::WEBHOOK_DELIVERIES,
};

/// Time beside that of the receiver until a try counts as lost.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Interval between deletions of old rows.
const SWEEP: Duration = Duration::from_secs(60);

/// Sends webhooks.
#[derive(Clone)]
pub struct Sender {
    pub pool: PgPool,
    pub outgoing: Outgoing,
    pub args: WebhookArgs,
}

impl Sender {
    /// Sends what is due until `shutdown`, then waits for the tries under way. `job` gives the
    /// object of a job, as the API has it; `None` if there is no such job.
    pub async fn run<F>(
        self,
        job: impl Fn(TenantId, JobId) -> F + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) where
        F: Future<Output = sqlx::Result<Option<Value>>> + Send,
    {
        let permits = Arc::new(Semaphore::new(self.args.webhooks_at_once as usize));
        let tries = TaskTracker::new();
        let mut swept = Instant::now();
        while !shutdown.is_cancelled() {
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep().await;
            }
            let permit = shutdown.run_until_cancelled(Arc::clone(&permits).acquire_owned());
            let Some(Ok(permit)) = permit.await else {
                break;
            };
            let ttl = self.args.webhook_timeout + LEASE_MARGIN;
            match deliveries::claim(&self.pool, self.args.webhook_parallel, ttl).await {
                Ok(Some(claimed)) => {
                    let (sender, job) = (self.clone(), job.clone());
                    tries.spawn(async move {
                        sender.deliver(&claimed, job).await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("cannot claim webhook deliveries: {error}"),
            }
            let pause = self.args.webhook_poll.mul_f64(rand::random_range(0.5..1.5));
            shutdown
                .run_until_cancelled(tokio::time::sleep(pause))
                .await;
        }
        tries.close();
        tries.wait().await;
    }

    /// Tries a delivery once. Without a result the lease expires, and it is tried again.
    async fn deliver<F>(&self, claimed: &Claimed, job: impl Fn(TenantId, JobId) -> F)
    where
        F: Future<Output = sqlx::Result<Option<Value>>> + Send,
    {
        let args = &self.args;
        let backoff = Backoff {
            shortest: args.webhook_backoff,
            longest: args.webhook_longest_backoff,
            give_up: args.webhook_give_up,
        };
        let ended = async {
            let tried = match self.body_of(&claimed.event, job).await? {
                Some(body) => self.attempt(claimed, body).await,
                None => Tried {
                    error: Some("the job was deleted before its event was sent".to_owned()),
                    is_final: true,
                    ..Tried::default()
                },
            };
            let status = deliveries::end(&self.pool, claimed, &tried, backoff).await?;
            Ok::<_, sqlx::Error>((status, tried))
        };
        match ended.await {
            Ok((status, tried)) => report(claimed, status, &tried),
            Err(error) => {
                tracing::warn!(delivery.id = %claimed.id, "webhook delivery will be tried again: {error}")
            }
        }
    }

    /// The body of an event, which is the same at every try.
    async fn body_of<F>(
        &self,
        event: &Event,
        job: impl Fn(TenantId, JobId) -> F,
    ) -> sqlx::Result<Option<String>>
    where
        F: Future<Output = sqlx::Result<Option<Value>>> + Send,
    {
        if let Some(body) = &event.body {
            return Ok(Some(body.clone()));
        }
        let Some(id) = event.job else {
            return Ok(None);
        };
        let Some(data) = job(event.tenant, id).await? else {
            return Ok(None);
        };
        let body = body(event.id, event.created_at, &event.kind, &data);
        deliveries::keep_body(&self.pool, event.id, &body).await
    }

    async fn attempt(&self, claimed: &Claimed, body: String) -> Tried {
        let failed = |error: String| Tried {
            error: Some(error),
            ..Tried::default()
        };
        let target = match self.outgoing.target(&claimed.url, Use::Webhook) {
            Ok(target) => target,
            Err(refused) => return failed(Unsent::Refused(refused).to_string()),
        };
        let id = claimed.event.id.to_string();
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let signatures = signatures(&claimed.secrets, &id, timestamp, &body);
        let response = self.outgoing.send(Method::POST, &target, |request| {
            request
                .header(CONTENT_TYPE, "application/json")
                .header("webhook-id", id)
                .header("webhook-timestamp", timestamp)
                .header("webhook-signature", signatures)
                .timeout(self.args.webhook_timeout)
                .body(body)
        });
        // The body of the response is not read: the connection is closed instead.
        match response.await {
            Ok(response) => judge(response.status()),
            Err(unsent) => failed(unsent.to_string()),
        }
    }

    async fn sweep(&self) {
        let held = deliveries::give_up_held(&self.pool, self.args.webhook_give_up).await;
        let old = deliveries::forget(&self.pool, self.args.webhook_days).await;
        for result in [held, old] {
            if let Err(error) = result {
                tracing::warn!("cannot remove old webhook deliveries: {error}");
            }
        }
    }
}

/// The body of an event, in OpenAI's form.
pub fn body(id: WebhookEventId, created_at: OffsetDateTime, kind: &str, data: &Value) -> String {
    let created_at = created_at.unix_timestamp();
    json!({"id": id, "object": "event", "created_at": created_at, "type": kind, "data": data})
        .to_string()
}

/// Judges a try by the status of its answer.
fn judge(status: StatusCode) -> Tried {
    let gone = status == StatusCode::GONE;
    let why = match status.as_u16() {
        200..=299 => None,
        300..=399 => Some("; redirects are not followed, so give the URL that they lead to"),
        410 => Some(" (gone), so the webhook is disabled"),
        _ => Some(""),
    };
    let error = why.map(|why| format!("the receiver answered {}{why}", status.as_u16()));
    Tried {
        response_status: Some(status.as_u16()),
        is_final: gone,
        disable: error.clone().filter(|_| gone),
        error,
    }
}

/// Counts and logs a try. The log has no URL, whose path may hold a secret.
fn report(claimed: &Claimed, status: Option<DeliveryStatus>, tried: &Tried) {
    let Some(status) = status else {
        return tracing::warn!(delivery.id = %claimed.id, "webhook delivery took longer than its lease");
    };
    let outcome = match status {
        DeliveryStatus::Pending => "retried",
        DeliveryStatus::Succeeded => "succeeded",
        DeliveryStatus::Failed => "failed",
    };
    WEBHOOK_DELIVERIES.add([outcome.into()], 1);
    if let Some(error) = &tried.error {
        tracing::info!(
            webhook.id = %claimed.webhook,
            delivery.id = %claimed.id,
            attempt = claimed.attempt,
            outcome,
            "webhook delivery failed: {error}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_ends_a_delivery_and_gone_disables() {
        let of = |status| judge(StatusCode::from_u16(status).unwrap());
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status).error, None, "{status}");
        }
        for status in [301, 307, 400, 404, 429, 500, 503, 599] {
            let tried = of(status);
            assert!(tried.error.is_some() && !tried.is_final, "{status}");
            assert_eq!(tried.disable, None, "{status}");
        }
        let gone = of(410);
        assert!(gone.is_final && gone.disable.is_some());
    }
}
