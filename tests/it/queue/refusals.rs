//! Changes that the database itself refuses.

use rehead::{
    db::{
        controls,
        queue::{self, Trace},
    },
    domain::job::{Control, JobStatus, Outcome},
};

use super::status;
use crate::support::{postgres::invariants, queue::Queue};

#[tokio::test]
async fn the_database_allows_exactly_the_moves_of_the_domain() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    for was in JobStatus::ALL {
        for becomes in JobStatus::ALL {
            let query = sqlx::query_scalar("select job_may_move($1, $2)")
                .bind(was.as_str())
                .bind(becomes.as_str());
            let may: bool = query.fetch_one(pool).await.unwrap();
            assert_eq!(may, was.next().contains(&becomes), "{was:?} to {becomes:?}");
        }
    }
    // The table is not only there: it is asked.
    let job = queue.job().await;
    let forced = sqlx::query("update jobs set status = 'validating_files' where id = $1")
        .bind(job.0)
        .execute(pool)
        .await;
    assert!(
        forced
            .unwrap_err()
            .to_string()
            .contains("cannot go from queued to validating_files")
    );
    controls::ask(pool, queue.tenant, job, Control::Cancel)
        .await
        .unwrap();
    let forced = sqlx::query("update jobs set step = 1 where id = $1")
        .bind(job.0)
        .execute(pool)
        .await;
    assert!(
        forced
            .unwrap_err()
            .to_string()
            .contains("its row never changes again")
    );
}

/// By hand, or by a mistake of ours.
#[tokio::test]
async fn the_database_refuses_rows_of_what_never_was() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    for (statement, reason) in [
        (
            "insert into jobs overriding user value
            select (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid(), 'result_model', 'm'))).*
            from jobs j where id = $1",
            "a job cannot begin as running",
        ),
        (
            "update work set token = token + 1 where job_id = $1",
            "work_attempt_fk",
        ),
        (
            "insert into checkpoints (id, job_id, token, step, epoch, objects, bytes, manifest_sha256, best)
            values (gen_random_uuid(), $1, 7, 1, 1, 'checkpoints/x/', 1, 'ab', false)",
            "checkpoints_attempt_fk",
        ),
        (
            "update job_events set message = 'all is well' where job_id = $1",
            "it never changes",
        ),
    ] {
        let done = sqlx::query(statement).bind(job.0).execute(pool).await;
        let error = done.unwrap_err().to_string();
        assert!(error.contains(reason), "{statement}: {error}");
    }
    let ended = queue.end(&claimed, &Outcome::Yielded).await;
    assert_eq!(ended, Some(JobStatus::Queued));
}

#[tokio::test]
async fn a_success_without_a_model_is_refused_by_the_database() {
    let queue = Queue::start().await;
    let job = queue.job().await;
    queue.claim().await.unwrap();
    assert!(
        queue::finish(
            queue.pool(),
            job,
            1,
            &Outcome::Succeeded,
            None,
            &Trace::default()
        )
        .await
        .is_err()
    );
    assert_eq!(status(&queue, job).await, JobStatus::Running);
    invariants(queue.pool()).await;
}
