//! Postgres is killed in the middle of a job, and starts again: the job still ends right, and the
//! API says honestly what it cannot do meanwhile.

use std::time::Duration;

use crate::support::{
    attempts::{QUICK, long_job, material, weights},
    postgres::invariants,
    service::Service,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_the_death_of_postgres() {
    let mut service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 12).await;
    service.has_checkpoint(&job).await;

    service.kill_postgres();
    let answer = service.get("/readyz").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    service.get("/healthz").await.ok();
    tokio::time::sleep(Duration::from_secs(1)).await;
    service.restart_postgres();

    let ended = service.ended(&job).await;
    let straight = service.ended(&long_job(&service, &file, 12).await).await;
    assert_eq!(
        weights(&service, &ended).await,
        weights(&service, &straight).await,
        "{}",
        worker.log()
    );
    let pool = service.pool().await;
    invariants(&pool).await;
}
