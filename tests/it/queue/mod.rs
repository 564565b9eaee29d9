//! The queue on a real Postgres: order, caps, fences, budgets, cancellation, idempotency, and all
//! of it at once.

mod attempts;
mod budgets;
mod cancellation;
mod claims;
mod leases;
mod new_jobs;
mod order;
mod random_acts;
mod reading;
mod refusals;

use std::time::Duration;

use rehead::{
    db::jobs,
    domain::{
        id::JobId,
        job::{Failure, JobStatus, Outcome},
    },
};

use crate::support::queue::Queue;

const AT_ONCE: Duration = Duration::ZERO;

async fn status(queue: &Queue, job: JobId) -> JobStatus {
    jobs::get(queue.pool(), queue.tenant, job)
        .await
        .unwrap()
        .unwrap()
        .status
}

fn retryable(message: &str) -> Outcome {
    Outcome::Failed(Failure::retryable("torch_error", message))
}
