//! Queue positions are those in which claims take the jobs.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rehead::{
    db::{queue::Claimed, queue_position, tenants::TenantId},
    domain::{
        id::{FileId, JobId},
        job::Outcome,
    },
};

use crate::support::{postgres::invariants, queue::Queue};

/// Random states of four tenants: weights, virtual times, running jobs, waiting jobs of all
/// priorities, some in a backoff, and at times a tenant that is paused or at its cap. Numbers are
/// binary fractions, so that equal turns are equal in every order of adding them up.
#[tokio::test]
async fn claims_follow_queue_positions() {
    let queue = Queue::start().await;
    let mut tenants = vec![(queue.tenant, queue.file)];
    for name in ["second", "third", "fourth"] {
        tenants.push(queue.tenant(name).await);
    }
    for seed in 0..20 {
        round(&queue, &tenants, &mut SmallRng::seed_from_u64(seed)).await;
    }
    invariants(queue.pool()).await;
}

async fn round(queue: &Queue, tenants: &[(TenantId, FileId)], random: &mut SmallRng) {
    let mut claimed = Vec::new();
    for &(tenant, file) in tenants {
        set_tenant(queue, tenant, random).await;
        for _ in 0..random.random_range(0..3) {
            queue.job_of(tenant, file, 2).await;
        }
    }
    for _ in 0..random.random_range(0..4) {
        claimed.extend(queue.claim().await);
    }
    let mut jobs = Vec::new();
    for &(tenant, file) in tenants {
        // Their virtual times are whatever a long history made of them.
        set_tenant(queue, tenant, random).await;
        for _ in 0..random.random_range(0..6) {
            let priority = random.random_range(0..5);
            let job = queue.job_of(tenant, file, priority).await;
            if random.random_ratio(1, 8) {
                delay(queue, job).await;
            }
        }
    }
    match random.random_range(0..3) {
        0 => {
            queue
                .run("update tenants set paused = true where name = 'third'")
                .await
        }
        1 => {
            queue
                .run("update tenants set max_running = running where name = 'third'")
                .await
        }
        _ => {}
    }

    let claimable: Vec<(i64, uuid::Uuid)> = sqlx::query_as(
        "select j.tenant_id, j.id from jobs j join tenants t on t.id = j.tenant_id
        where j.status = 'queued' and j.run_at <= now() and not t.paused and t.running < t.max_running",
    )
    .fetch_all(queue.pool())
    .await
    .unwrap();
    for (tenant, job) in claimable {
        let position = queue_position::get(queue.pool(), TenantId(tenant), JobId(job)).await;
        jobs.push((position.unwrap().unwrap().ahead, JobId(job)));
    }
    jobs.sort_unstable_by_key(|&(ahead, _)| ahead);
    let mut order = Vec::new();
    while let Some(next) = queue.claim().await {
        order.push((order.len() as u64, next.job));
        claimed.push(next);
    }
    assert_eq!(order, jobs, "claimed, and as the positions said");
    finish_all(queue, claimed).await;
}

async fn set_tenant(queue: &Queue, tenant: TenantId, random: &mut SmallRng) {
    let weight = [0.5_f32, 1.0, 2.0, 4.0][random.random_range(0..4)];
    let vtime = f64::from(random.random_range(0..40)) / 8.0;
    sqlx::query(
        "update tenants set weight = $2, vtime = $3, paused = false, max_running = 1000 where id = $1",
    )
    .bind(tenant.0)
    .bind(weight)
    .bind(vtime)
    .execute(queue.pool())
    .await
    .unwrap();
}

async fn delay(queue: &Queue, job: JobId) {
    sqlx::query("update jobs set run_at = now() + interval '1 hour' where id = $1")
        .bind(job.0)
        .execute(queue.pool())
        .await
        .unwrap();
}

/// Leaves no job for the next round.
async fn finish_all(queue: &Queue, mut claimed: Vec<Claimed>) {
    queue
        .run("update tenants set paused = false, max_running = 1000")
        .await;
    queue
        .run("update jobs set run_at = now() where status = 'queued'")
        .await;
    while let Some(next) = queue.claim().await {
        claimed.push(next);
    }
    for attempt in &claimed {
        queue.end(attempt, &Outcome::Cancelled).await.unwrap();
    }
}
