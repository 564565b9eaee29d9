//! A job's events, as a list and as a stream of server-sent events. The stream reads the same rows as the list: what a
//! client missed is there when it comes back with `Last-Event-ID`.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, header},
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event as Frame, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use crate::{
    db::{self, changes::Subscription, events::Event, tenants::TenantId},
    domain::id::{EventId, JobId},
    http::{
        api::{
            auth::Tenant,
            error::ApiError,
            extract::{Id, Params},
            page::{List, PageQuery},
            state::AppState,
        },
        jobs::create,
    },
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Between two signs of life on a quiet stream; below the idle limits of usual proxies.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events read at once.
const BATCH: u32 = 200;

/// One line of a job's history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventObject {
    pub id: EventId,
    /// `fine_tuning.job.event`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
    /// `metrics` for evaluations, else `message`.
    #[serde(rename = "type")]
    pub event_type: &'static str,
    pub data: Value,
    /// From 1, without gaps.
    pub seq: u64,
    /// `created`, `validated`, `queued`, `started`, `phase`, `evaluated`, `checkpoint`, `message`,
    /// `pause_requested`, `paused`, `resumed`, `stop_requested`, `cancel_requested`, `requeued`, and at the end one of `succeeded`, `failed`, `cancelled`.
    pub kind: String,
    /// The attempt that it is about.
    pub attempt: Option<i64>,
}

impl From<Event> for EventObject {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            object: "fine_tuning.job.event",
            created_at: event.created_at.unix_timestamp(),
            level: event.level,
            message: event.message,
            event_type: if event.kind == "evaluated" {
                "metrics"
            } else {
                "message"
            },
            data: event.data,
            seq: event.seq,
            kind: event.kind,
            attempt: event.attempt,
        }
    }
}

/// List a job's events
///
/// With `accept: text/event-stream`, a stream: the history behind `last-event-id`, then what happens, until the job's
/// last event; the page's parameters do not apply.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/events", tag = "jobs",
    params(("id" = JobId, Path), PageQuery,
        ("last-event-id" = Option<String>, Header, description = "Of a stream: the last event that was received.")),
    responses((status = 200, content((List<EventObject> = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn events(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(job): Id<JobId>,
    Params(query): Params<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    create::find(&state, tenant, job).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains("text/event-stream") {
        return follow(state, tenant, job, &headers).await;
    }
    let slice = db::events::list(state.pool(), tenant, job, query.page(state.limits())?).await?;
    let data = slice.rows.into_iter().map(EventObject::from).collect();
    Ok(
        axum::Json(List::new(data, slice.has_more, |event: &EventObject| {
            event.id.to_string()
        }))
        .into_response(),
    )
}

async fn follow(
    state: AppState,
    tenant: TenantId,
    job: JobId,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let place = Arc::clone(state.streams())
        .try_acquire_owned()
        .map_err(|_| ApiError::Unavailable {
            code: "too_many_streams",
            message: "too many event streams are open; read the events as a list, or try again"
                .to_owned(),
            retry_after_seconds: 5,
        })?;
    // Before the history is read, so that nothing falls between the two.
    let changes = state.changes().subscribe_to(job);
    let last: Option<EventId> = headers
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    // An id that is not of this job starts from the beginning: twice is better than never.
    let seq = match last {
        Some(id) => db::events::seq_of(state.pool(), tenant, job, id)
            .await?
            .unwrap_or(0),
        None => 0,
    };
    let follower = Follower {
        state,
        tenant,
        job,
        seq,
        read: VecDeque::new(),
        changes,
        ended: false,
        _open: Open::new(place),
    };
    let mut response = Sse::new(follower.frames())
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response();
    // Proxies that buffer would turn a stream into one late answer.
    response
        .headers_mut()
        .insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

/// One open stream.
struct Follower {
    state: AppState,
    tenant: TenantId,
    job: JobId,
    /// Of the last event read.
    seq: u64,
    read: VecDeque<Event>,
    changes: Subscription,
    ended: bool,
    _open: Open,
}

impl Follower {
    fn frames(self) -> impl Stream<Item = Result<Frame, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            let frame = Frame::default().id(event.id.to_string());
            let text = serde_json::to_string(&EventObject::from(event)).unwrap_or_default();
            Some((Ok(frame.data(text)), follower))
        })
    }

    /// The next event; `None` after the last, and when the service stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.ended = event.is_last();
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match db::events::after(self.state.pool(), self.tenant, self.job, self.seq, BATCH).await
            {
                Ok(events) if !events.is_empty() => {
                    self.seq = events.last().map_or(self.seq, |event| event.seq);
                    self.read = events.into();
                    continue;
                }
                // Only then can a stream that starts behind the last event know that nothing will come.
                Ok(_) => match db::jobs::get(self.state.pool(), self.tenant, self.job).await {
                    Ok(None) => return None,
                    Ok(Some(job)) if job.status.is_terminal() && job.last_event <= self.seq => {
                        return None;
                    }
                    Ok(Some(_)) => {}
                    Err(error) => tracing::warn!("a stream cannot see its job: {error}"),
                },
                // The database may come back; the client need not know.
                Err(error) => tracing::warn!("a stream cannot read its events: {error}"),
            }
            let subject = self.job.to_string();
            tokio::select! {
                () = self.changes.changed(&subject) => {}
                () = self.state.shutdown().cancelled() => return None,
            }
        }
    }
}

/// Counts a stream as open while it lives.
struct Open {
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("rehead_event_streams").increment(1.0);
        Self { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("rehead_event_streams").decrement(1.0);
    }
}
