//! Webhooks: what is queued when a job ends, what arrives at real receivers, and who may see it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rehead::{
    config::{OutgoingArgs, WebhookArgs},
    db::{
        Page, controls,
        deliveries::{self, Backoff, Delivery, Tried},
        idempotency::Keyed,
        tenants::TenantId,
        webhooks::{self, Change, Created, NewWebhook, Webhook},
    },
    domain::{
        id::WebhookId,
        job::{Control, Failure, Outcome},
        role::Role,
        webhook::{DeliveryStatus, EventType},
    },
    outgoing::Outgoing,
    webhooks::Sender,
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    data::clipart_subset,
    queue::{HOUR, Queue},
    receiver::{Received, Receiver, Silent, redirect, status},
    service::{Service, job_body},
};

const MS: Duration = Duration::from_millis(1);

/// Settings under which a test need not wait.
fn quick() -> WebhookArgs {
    WebhookArgs {
        max_webhooks: 16,
        webhooks_at_once: 8,
        webhook_parallel: 2,
        webhook_timeout: 60_000 * MS,
        webhook_backoff: 20 * MS,
        webhook_longest_backoff: 100 * MS,
        webhook_give_up: HOUR,
        webhook_poll: 10 * MS,
        webhook_days: 30,
    }
}

/// A sender on a queue's database, until it is dropped.
struct Sending {
    shutdown: CancellationToken,
    _task: JoinHandle<()>,
}

impl Sending {
    fn start(queue: &Queue, args: WebhookArgs) -> Self {
        let hosts = |text: &str| text.parse().unwrap();
        let outgoing = OutgoingArgs {
            download_hosts: hosts("none"),
            webhook_hosts: hosts("*:*"),
            private_hosts: hosts("127.0.0.1:*"),
            ..OutgoingArgs::default()
        };
        let sender = Sender {
            pool: queue.pool().clone(),
            outgoing: Outgoing::new(&outgoing),
            args,
        };
        let shutdown = CancellationToken::new();
        let job = |_, id| async move { Ok(Some(json!({ "id": id }))) };
        let task = tokio::spawn(sender.run(job, shutdown.clone()));
        Self {
            shutdown,
            _task: task,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn webhook(queue: &Queue, tenant: TenantId, url: &str, events: &[EventType]) -> Webhook {
    let new = NewWebhook {
        tenant,
        url: url.to_owned(),
        events: events.to_vec(),
        secret: [1; 32],
        idempotency: None,
    };
    match webhooks::create(queue.pool(), &new, 100).await {
        Ok(Created::Webhook(Keyed::New((webhook, _)))) => webhook,
        other => panic!("{other:?}"),
    }
}

/// Deliveries to a webhook, oldest first.
async fn deliveries_to(queue: &Queue, tenant: TenantId, webhook: WebhookId) -> Vec<Delivery> {
    let page = Page {
        after: None,
        limit: 100,
        descending: false,
    };
    let listed = deliveries::list(queue.pool(), tenant, webhook, page).await;
    listed.unwrap().rows
}

/// Waits until the first delivery to a webhook has this status.
async fn first_is(queue: &Queue, webhook: &Webhook, status: DeliveryStatus) -> Delivery {
    for _ in 0..1_200 {
        let all = deliveries_to(queue, queue.tenant, webhook.id).await;
        if let Some(first) = all.first().filter(|one| one.status == status) {
            return first.clone();
        }
        tokio::time::sleep(50 * MS).await;
    }
    let all = deliveries_to(queue, queue.tenant, webhook.id).await;
    panic!("no delivery is {status}: {all:?}");
}

/// Ends a job by cancelling it in the queue.
async fn cancelled_job(queue: &Queue) -> rehead::domain::id::JobId {
    let job = queue.job().await;
    controls::ask(queue.pool(), queue.tenant, job, Control::Cancel)
        .await
        .unwrap();
    job
}

fn is_signed_by(received: &Received, secret: &str) -> bool {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let (id, timestamp) = (
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{}", received.body).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let mut signatures = received.header("webhook-signature").split(' ');
    signatures.any(|signature| signature == expected)
}

/// The outbox has one row for each end and each webhook that wants it, whatever ended the job.
#[tokio::test]
async fn each_end_of_a_job_is_queued_once_for_its_tenant() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    let all = webhook(&queue, queue.tenant, "http://a", &EventType::ALL).await;
    let failed = webhook(&queue, queue.tenant, "http://b", &[EventType::JobFailed]).await;
    let disabled = webhook(&queue, queue.tenant, "http://c", &EventType::ALL).await;
    let off = Change {
        enabled: Some(false),
        ..Change::default()
    };
    webhooks::change(queue.pool(), queue.tenant, disabled.id, &off)
        .await
        .unwrap()
        .unwrap();
    let others = webhook(&queue, other, "http://d", &EventType::ALL).await;

    let first = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    queue.end(&claimed, &Outcome::Yielded).await;
    assert!(deliveries_to(&queue, queue.tenant, all.id).await.is_empty());
    let claimed = queue.claim().await.unwrap();
    assert_eq!(claimed.job, first);
    queue.end(&claimed, &Outcome::Succeeded).await;
    let second = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    let failure = Outcome::Failed(Failure::permanent("diverged", "no".to_owned()));
    queue.end(&claimed, &failure).await;
    let third = cancelled_job(&queue).await;
    queue.job_of(other, file, 2).await;

    let of = async |webhook: &Webhook| -> Vec<_> {
        let all = deliveries_to(&queue, queue.tenant, webhook.id).await;
        all.into_iter()
            .map(|one| (one.kind, one.job.unwrap()))
            .collect()
    };
    let event = |event: EventType, job| (event.as_str().to_owned(), job);
    assert_eq!(
        of(&all).await,
        [
            event(EventType::JobSucceeded, first),
            event(EventType::JobFailed, second),
            event(EventType::JobCancelled, third)
        ]
    );
    assert_eq!(of(&failed).await, [event(EventType::JobFailed, second)]);
    assert_eq!(of(&disabled).await, []);
    assert!(deliveries_to(&queue, other, others.id).await.is_empty());
    // Two webhooks are told of one event.
    let events = async |webhook: &Webhook| -> BTreeSet<String> {
        let all = deliveries_to(&queue, queue.tenant, webhook.id).await;
        all.iter().map(|one| one.event.to_string()).collect()
    };
    assert!(events(&failed).await.is_subset(&events(&all).await));
}

/// A webhook that is being deleted, in a transaction that has not ended, delays no end of a job.
#[tokio::test]
async fn a_webhook_that_is_being_deleted_delays_no_job() {
    let queue = Queue::start().await;
    let going = webhook(&queue, queue.tenant, "http://a", &EventType::ALL).await;
    let mut deleting = rehead::db::begin(queue.pool()).await.unwrap();
    sqlx::query("delete from webhooks where id = $1")
        .bind(going.id.0)
        .execute(&mut *deleting)
        .await
        .unwrap();
    cancelled_job(&queue).await;
    deleting.commit().await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from webhook_deliveries")
        .fetch_one(queue.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_try_is_repeated_given_up_and_sent_again() {
    let queue = Queue::start().await;
    let receiver = Receiver::start(|_, before| match before {
        0 => status(500),
        1 => redirect(302, "http://127.0.0.1:1/"),
        _ => status(204),
    })
    .await;
    let taken = webhook(&queue, queue.tenant, &receiver.url(), &EventType::ALL).await;
    let hears = Arc::new(AtomicBool::new(false));
    let hearing = Arc::clone(&hears);
    let deaf = Receiver::start(move |_, _| match hearing.load(Ordering::Relaxed) {
        false => status(503),
        true => status(200),
    })
    .await;
    let given_up = webhook(&queue, queue.tenant, &deaf.url(), &EventType::ALL).await;
    let job = cancelled_job(&queue).await;
    let sending = Sending::start(&queue, quick());

    let delivery = first_is(&queue, &taken, DeliveryStatus::Succeeded).await;
    assert_eq!(
        (delivery.attempts, delivery.response_status),
        (3, Some(204))
    );
    assert_eq!(delivery.error, None);
    let received = receiver.received();
    let ids: BTreeSet<&str> = received
        .iter()
        .map(|one| one.header("webhook-id"))
        .collect();
    let bodies: BTreeSet<&str> = received.iter().map(|one| one.body.as_str()).collect();
    assert_eq!((ids.len(), bodies.len()), (1, 1), "{received:?}");
    assert_eq!(received[0].json()["data"]["id"], job.to_string());
    drop(sending);

    // The other one waits for its next try: the time to give up has come.
    let short = WebhookArgs {
        webhook_give_up: MS,
        ..quick()
    };
    let _sending = Sending::start(&queue, short);
    let failed = first_is(&queue, &given_up, DeliveryStatus::Failed).await;
    let error = failed.error.clone().unwrap();
    assert!(error.contains("answered 503"), "{error}");
    assert!(failed.ended_at.is_some() && failed.next_attempt_at.is_none());
    hears.store(true, Ordering::Relaxed);
    let again = deliveries::redeliver(queue.pool(), queue.tenant, given_up.id, failed.id).await;
    assert_eq!(again.unwrap().unwrap().status, DeliveryStatus::Pending);
    first_is(&queue, &given_up, DeliveryStatus::Succeeded).await;
}

/// Tries of the hanging receiver are limited, so the last permit is left for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_no_other() {
    let queue = Queue::start().await;
    let hanging = Receiver::start(|_, _| None).await;
    let hung = webhook(&queue, queue.tenant, &hanging.url(), &EventType::ALL).await;
    for _ in 0..4 {
        cancelled_job(&queue).await;
    }
    let args = WebhookArgs {
        webhooks_at_once: 3,
        ..quick()
    };
    let _sending = Sending::start(&queue, args);
    hanging.wait_for(2).await;
    let receiver = Receiver::start(|_, _| status(200)).await;
    let quick = webhook(&queue, queue.tenant, &receiver.url(), &EventType::ALL).await;
    cancelled_job(&queue).await;
    first_is(&queue, &quick, DeliveryStatus::Succeeded).await;
    assert_eq!(hanging.received().len(), 2);
    let waiting = deliveries_to(&queue, queue.tenant, hung.id).await;
    assert_eq!(waiting.len(), 5);
    assert!(
        waiting
            .iter()
            .all(|one| one.status == DeliveryStatus::Pending)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_a_failed_try_and_an_endless_one_is_not_read() {
    let queue = Queue::start().await;
    let receiver = Receiver::start(|_, before| match before {
        0 => None,
        _ => {
            let endless = futures_util::stream::repeat(Bytes::from_static(&[0; 1_024]));
            let endless = futures_util::StreamExt::map(endless, Ok::<_, std::io::Error>);
            Some(axum::response::Response::new(Body::from_stream(endless)))
        }
    })
    .await;
    let slow = webhook(&queue, queue.tenant, &receiver.url(), &EventType::ALL).await;
    cancelled_job(&queue).await;
    let args = WebhookArgs {
        webhook_timeout: 300 * MS,
        ..quick()
    };
    let _sending = Sending::start(&queue, args);
    let delivery = first_is(&queue, &slow, DeliveryStatus::Succeeded).await;
    assert!(delivery.attempts >= 2, "{delivery:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_disabled() {
    let queue = Queue::start().await;
    let receiver = Receiver::start(|_, _| status(410)).await;
    let gone = webhook(&queue, queue.tenant, &receiver.url(), &EventType::ALL).await;
    cancelled_job(&queue).await;
    let _sending = Sending::start(&queue, quick());
    let delivery = first_is(&queue, &gone, DeliveryStatus::Failed).await;
    assert_eq!(
        (delivery.attempts, delivery.response_status),
        (1, Some(410))
    );
    let read = webhooks::get(queue.pool(), queue.tenant, gone.id).await;
    let read = read.unwrap().unwrap();
    assert!(!read.enabled && read.disabled_reason.unwrap().contains("410"));
    cancelled_job(&queue).await;
    let all = deliveries_to(&queue, queue.tenant, gone.id).await;
    assert_eq!(all.len(), 1, "a disabled webhook is told nothing");
}

/// The process of a try was suspended until its lease expired and another took over.
#[tokio::test]
async fn a_try_that_lost_its_lease_writes_nothing() {
    let queue = Queue::start().await;
    let hook = webhook(&queue, queue.tenant, "http://a", &EventType::ALL).await;
    cancelled_job(&queue).await;
    let backoff = Backoff {
        shortest: MS,
        longest: MS,
        give_up: HOUR,
    };
    let claim = async |parallel, ttl| {
        deliveries::claim(queue.pool(), parallel, ttl)
            .await
            .unwrap()
    };
    let lost = claim(2, Duration::ZERO).await.unwrap();
    let owner = claim(2, HOUR).await.unwrap();
    assert_eq!((lost.attempt, owner.attempt), (1, 2));
    let failed = Tried {
        error: Some("no answer in time".to_owned()),
        is_final: true,
        ..Tried::default()
    };
    let end = async |claimed, tried| {
        let ended = deliveries::end(queue.pool(), claimed, tried, backoff).await;
        ended.unwrap()
    };
    let taken = Tried::default();
    assert_eq!(end(&lost, &failed).await, None);
    // At the limit of tries under way, and below it.
    cancelled_job(&queue).await;
    assert!(claim(1, HOUR).await.is_none());
    assert!(claim(2, HOUR).await.is_some());
    assert_eq!(end(&owner, &taken).await, Some(DeliveryStatus::Succeeded));
    assert_eq!(end(&owner, &failed).await, None);
    let first = &deliveries_to(&queue, queue.tenant, hook.id).await[0];
    assert_eq!(first.status, DeliveryStatus::Succeeded);
}

#[tokio::test]
async fn old_deliveries_are_given_up_and_forgotten() {
    let queue = Queue::start().await;
    let hook = webhook(&queue, queue.tenant, "http://a", &EventType::ALL).await;
    cancelled_job(&queue).await;
    let off = Change {
        enabled: Some(false),
        ..Change::default()
    };
    webhooks::change(queue.pool(), queue.tenant, hook.id, &off)
        .await
        .unwrap();
    assert_eq!(
        deliveries::give_up_held(queue.pool(), HOUR).await.unwrap(),
        0
    );
    queue
        .run("update webhook_deliveries set queued_at = now() - interval '61 minutes'")
        .await;
    // One that is pending is kept, however old.
    queue
        .run("update webhook_events set created_at = now() - interval '31 days'")
        .await;
    assert_eq!(deliveries::forget(queue.pool(), 30).await.unwrap(), 0);
    assert_eq!(
        deliveries::give_up_held(queue.pool(), HOUR).await.unwrap(),
        1
    );
    assert_eq!(deliveries::forget(queue.pool(), 32).await.unwrap(), 0);
    assert_eq!(deliveries::forget(queue.pool(), 30).await.unwrap(), 1);
    assert!(
        deliveries_to(&queue, queue.tenant, hook.id)
            .await
            .is_empty()
    );
}

/// As a user sees it: registered over HTTP, sent by `rehead serve`, verified with the secret.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_job_arrives_whole_and_signed() {
    let arguments = ["--private-hosts", "127.0.0.1:*", "--webhook-poll-ms", "50"];
    let service = Service::start_with(&arguments).await;
    let worker = service.worker("worker", &[]);
    service.lite0().await;
    drop(worker);
    let receiver = Receiver::start(|_, _| status(200)).await;
    let request = json!({"url": receiver.url()});
    let hook = service.post("/v1/webhooks", &request).await.ok();
    let secret = hook["secret"].as_str().unwrap().to_owned();
    let path = format!("/v1/webhooks/{}", hook["id"].as_str().unwrap());
    let read = service.get(&path).await.ok();
    assert_eq!(read["events"].as_array().unwrap().len(), 3);
    assert!(read.get("secret").is_none(), "{read}");
    assert!(
        service
            .get("/v1/webhooks")
            .await
            .text()
            .contains(path.rsplit('/').next().unwrap())
    );

    let test = service.post(&format!("{path}/test"), &json!({})).await.ok();
    assert_eq!(test["type"], "webhook.test");
    receiver.wait_for(1).await;

    let file = service
        .upload(
            "data.zip",
            "fine-tune",
            clipart_subset(&["animals", "food"], 6),
        )
        .await
        .ok();
    let body = job_body("efficientnet_lite0", &file, &json!({}));
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    service.ask(&job, "cancel").await.ok();
    let received = receiver.wait_for(2).await;
    for one in &received {
        assert!(is_signed_by(one, &secret), "{one:?}");
        assert_eq!(one.header("content-type"), "application/json");
        assert_eq!(one.header("webhook-id"), one.json()["id"]);
    }
    let event = received[1].json();
    assert_eq!(event["object"], "event");
    assert_eq!(event["type"], "fine_tuning.job.cancelled");
    let whole = service.get(&service.path(&job)).await.ok();
    assert_eq!(event["data"], whole);

    // After a rotation both secrets verify for a while.
    let rotated = service
        .post(&format!("{path}/rotate_secret"), &json!({}))
        .await
        .ok();
    let delivered = service
        .until(
            &format!("{path}/deliveries?order=asc"),
            "delivery",
            |list| list["data"][1]["status"] == "succeeded",
        )
        .await;
    let again = format!(
        "{path}/deliveries/{}/redeliver",
        delivered["data"][1]["id"].as_str().unwrap()
    );
    service.post(&again, &json!({})).await.ok();
    let third = &receiver.wait_for(3).await[2];
    assert_eq!(third.json(), event);
    for secret in [&secret, rotated["secret"].as_str().unwrap()] {
        assert!(is_signed_by(third, secret), "{third:?}");
    }
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.contains(r#"rehead_webhook_deliveries_total{outcome="succeeded"}"#));
}

#[tokio::test]
async fn webhooks_are_read_strictly_and_limited() {
    let arguments = ["--private-hosts", "localhost:*", "--max-webhooks", "2"];
    let service = Service::start_with(&arguments).await;
    let url = "http://localhost:9/";
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"url": url, "event": []}), "unknown_field"),
        (json!({"url": url, "events": []}), "invalid_value"),
        (
            json!({"url": url, "events": ["fine_tuning.job.done"]}),
            "invalid_value",
        ),
        (json!({"url": 1}), "invalid_value"),
        (json!({"url": ""}), "invalid_url"),
        (json!({"url": "localhost"}), "invalid_url"),
        (
            json!({"url": format!("{url}{}", "a".repeat(2_048))}),
            "invalid_url",
        ),
    ] {
        service.post("/v1/webhooks", &body).await.error(422, code);
    }
    let longest = format!("{url}{}", "a".repeat(2_048 - url.len()));
    let twice =
        json!({"url": longest, "events": ["fine_tuning.job.failed", "fine_tuning.job.failed"]});
    let first = service.post("/v1/webhooks", &twice).await.ok();
    assert_eq!(first["events"], json!(["fine_tuning.job.failed"]));
    service
        .post("/v1/webhooks", &json!({"url": url}))
        .await
        .ok();
    let full = service.post("/v1/webhooks", &json!({"url": url})).await;
    full.error(409, "too_many_webhooks");

    let path = format!("/v1/webhooks/{}", first["id"].as_str().unwrap());
    let changed = json!({"enabled": false, "events": ["fine_tuning.job.succeeded"]});
    let changed = service.post(&path, &changed).await.ok();
    assert_eq!(changed["enabled"], false);
    assert_eq!(changed["events"], json!(["fine_tuning.job.succeeded"]));
    assert_eq!(changed["url"], longest);
    let test = service.post(&format!("{path}/test"), &json!({})).await;
    test.error(409, "webhook_disabled");
    let refused = service
        .post(&path, &json!({"url": "http://127.0.0.1/"}))
        .await;
    refused.error(422, "url_not_allowed");
    service.delete(&path).await.ok();
    service.delete(&path).await.error(404, "not_found");
    service
        .post("/v1/webhooks", &json!({"url": url}))
        .await
        .ok();
}

#[tokio::test]
async fn webhooks_that_are_off_are_refused_in_one_sentence() {
    let service = Service::start_with(&["--webhook-hosts", "none"]).await;
    let answer = service
        .post("/v1/webhooks", &json!({"url": "https://example.org"}))
        .await;
    let error = answer.error(422, "webhooks_off");
    assert!(error.contains("--webhook-hosts"), "{error}");
}

/// Every route answers another tenant as if there were no webhook, and does nothing.
#[tokio::test]
async fn webhooks_of_another_tenant_are_not_found() {
    let mut service = Service::start_with(&["--private-hosts", "127.0.0.1:*"]).await;
    let mut keys_of = Vec::new();
    for name in ["one", "two"] {
        keys_of.push(service.new_key(name, Role::User).await);
    }
    let silent = Silent::bind("127.0.0.1").unwrap();
    service.key = Some(keys_of[0].clone());
    let body = json!({"url": format!("http://127.0.0.1:{}/", silent.port())});
    let hook = service.post("/v1/webhooks", &body).await.ok();
    let path = format!("/v1/webhooks/{}", hook["id"].as_str().unwrap());
    let before = service.get(&path).await.ok();

    service.key = Some(keys_of[1].clone());
    assert_eq!(service.get("/v1/webhooks").await.ok()["data"], json!([]));
    let delivery = format!("/deliveries/whd_{}", "0".repeat(32));
    let redeliver = format!("{delivery}/redeliver");
    for (method, below) in [
        (Method::GET, ""),
        (Method::POST, ""),
        (Method::DELETE, ""),
        (Method::POST, "/rotate_secret"),
        (Method::POST, "/test"),
        (Method::GET, "/deliveries"),
        (Method::GET, delivery.as_str()),
        (Method::POST, redeliver.as_str()),
    ] {
        let path = format!("{path}{below}");
        let change: Value = json!({"enabled": false});
        let answer = service
            .send(method, &path, |request| request.json(&change))
            .await;
        answer.error(404, "not_found");
    }
    service.key = Some(keys_of[0].clone());
    assert_eq!(service.get(&path).await.ok(), before);
    assert!(!silent.was_contacted());
}
