//! Which job is claimed next, and when none is.

use rehead::domain::id::WorkerId;
use tokio::task::JoinSet;

use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, claim},
};

#[tokio::test]
async fn claims_go_by_turn_then_by_priority_then_by_age() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    let late = queue.job_of(queue.tenant, queue.file, 4).await;
    let first = queue.job().await;
    let second = queue.job().await;
    let others = queue.job_of(other, file, 2).await;
    let urgent = queue.job_of(other, file, 0).await;
    let mut order = Vec::new();
    while let Some(claimed) = queue.claim().await {
        order.push(claimed.job);
    }
    // A tie of turns goes to the older tenant.
    assert_eq!(order, [first, urgent, second, others, late]);
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn a_job_is_claimed_only_where_it_fits() {
    let queue = Queue::start().await;
    let job = queue.job().await;
    queue.run("update jobs set device_mb = 1001").await;
    assert!(queue.claim().await.is_none());
    queue.run("update jobs set device_mb = 1000").await;
    assert_eq!(queue.claim().await.unwrap().job, job);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cap_of_two_gives_sixteen_claimers_two_leases() {
    let queue = Queue::start().await;
    for _ in 0..16 {
        queue.job().await;
    }
    queue.run("update tenants set max_running = 2").await;
    let mut claimers = JoinSet::new();
    for _ in 0..16 {
        let pool = queue.pool().clone();
        claimers.spawn(async move {
            let mut claims = 0;
            for _ in 0..20 {
                claims += usize::from(claim(&pool, WorkerId::new(), HOUR).await.is_some());
            }
            claims
        });
    }
    assert_eq!(claimers.join_all().await.iter().sum::<usize>(), 2);
    invariants(queue.pool()).await;
}

/// Adding a job holds its tenant's key for as long as the statement takes; a client that posts one
/// after the other would otherwise keep its own jobs from running.
#[tokio::test]
async fn a_tenant_that_is_posting_jobs_has_them_claimed_meanwhile() {
    let queue = Queue::start().await;
    let waiting = queue.job().await;
    let mut posting = rehead::db::begin(queue.pool()).await.unwrap();
    sqlx::query("select from tenants for key share")
        .execute(&mut *posting)
        .await
        .unwrap();
    assert_eq!(queue.claim().await.unwrap().job, waiting);
    posting.rollback().await.unwrap();
}

/// A row that is still locked would be skipped by whoever claims next.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_gave_up_has_released_its_rows() {
    let queue = Queue::start().await;
    queue.job().await;
    let mut other = queue.pool().acquire().await.unwrap();
    for _ in 0..20 {
        let mut holder = rehead::db::begin(queue.pool()).await.unwrap();
        sqlx::query("select from tenants for update")
            .execute(&mut *holder)
            .await
            .unwrap();
        assert!(queue.claim().await.is_none());
        let free = sqlx::query("select from jobs for update nowait").execute(&mut *other);
        assert_eq!(free.await.unwrap().rows_affected(), 1);
        holder.rollback().await.unwrap();
    }
}
