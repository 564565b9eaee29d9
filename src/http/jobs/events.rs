//! A job's events, as a list and as a stream of server-sent events. The stream reads the same rows
//! as the list, so a client that reconnects with `Last-Event-ID` misses none.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, header},
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event as Frame, KeepAlive},
    },
};
use futures_util::{Stream, stream};

use crate::{
    db::{self, changes::Subscription, events::Event, tenants::TenantId},
    domain::id::{EventId, JobId},
    http::{
        api::{
            auth::Caller,
            error::ApiError,
            extract::{Id, Params},
            identity::Identity,
            page::{List, PageQuery},
            quota::Share,
            state::AppState,
        },
        jobs::snapshot::find,
    },
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Interval between comments on an idle stream; below the idle timeout of common proxies.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events per query.
const BATCH: u32 = 200;

/// List a job's events
///
/// With `accept: text/event-stream` a stream: the events after `last-event-id`, then new ones as
/// they happen, until the job's last event. The query parameters do not apply to it.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/events", tag = "jobs", operation_id = "list_job_events",
    params(("id" = JobId, Path), PageQuery<EventId>,
        ("last-event-id" = Option<String>, Header, description = "Id of the last event received; for streams.")),
    responses((status = 200, content((List<Event> = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn events(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(job): Id<JobId>,
    Params(query): Params<PageQuery<EventId>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    find(&state, tenant, job).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains("text/event-stream") {
        return follow(state, &identity, job, &headers).await;
    }
    let slice = db::events::list(&state.pool, tenant, job, query.page(&state.limits)?).await?;
    state.recent_jobs.forget(job);
    Ok(List::of(slice, |event| event, |event: &Event| event.id.to_string()).into_response())
}

async fn follow(
    state: AppState,
    identity: &Identity,
    job: JobId,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (tenant, place) = (identity.tenant, state.quotas.stream(identity)?);
    // Subscribed before the history is read, so that no event is missed in between.
    let changes = state.changes.follow(job);
    let last: Option<EventId> = headers
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    // An id of another job starts from the beginning: an event may be repeated, but none is missed.
    let seq = match last {
        Some(id) => db::events::seq_of(&state.pool, tenant, job, id)
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
        _place: place,
    };
    let mut response = Sse::new(follower.frames())
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response();
    // A buffering proxy would deliver the stream only at its end.
    response
        .headers_mut()
        .insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

/// An open stream.
struct Follower {
    state: AppState,
    tenant: TenantId,
    job: JobId,
    /// Sequence number of the last event read.
    seq: u64,
    read: VecDeque<Event>,
    changes: Subscription,
    ended: bool,
    _place: Share,
}

impl Follower {
    fn frames(self) -> impl Stream<Item = Result<Frame, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            let frame = Frame::default().id(event.id.to_string());
            let text = serde_json::to_string(&event).unwrap_or_default();
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
            match db::events::after(&self.state.pool, self.tenant, self.job, self.seq, BATCH).await
            {
                Ok(events) if !events.is_empty() => {
                    self.state.recent_jobs.forget(self.job);
                    self.seq = events.last().map_or(self.seq, |event| event.seq);
                    self.read = events.into();
                    continue;
                }
                // Without a further event the job's status tells whether there will be one.
                Ok(_) => match db::jobs::get(&self.state.pool, self.tenant, self.job).await {
                    Ok(None) => return None,
                    Ok(Some(job)) if job.status.is_terminal() && job.last_event <= self.seq => {
                        return None;
                    }
                    Ok(Some(_)) => {}
                    Err(error) => tracing::warn!("cannot read the job of an event stream: {error}"),
                },
                // The stream continues once the database is back.
                Err(error) => tracing::warn!("cannot read the events of a stream: {error}"),
            }
            let subject = self.job.to_string();
            tokio::select! {
                () = self.changes.changed(&subject) => {}
                () = self.state.shutdown.cancelled() => return None,
            }
        }
    }
}
