//! The states of a job and what a user may ask in each, on a real Postgres; and their drawing.

use std::time::Duration;

use regex::Regex;
use rehead::{
    db::{
        controls::{self, Answer},
        files,
        jobs::{self, Created, Job},
        phases,
        queue::{self, Claimed},
        work::Kind,
    },
    domain::{
        file::Purpose,
        id::JobId,
        job::{Control, Failure, JobStatus, Outcome, Phase},
    },
};

use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, checkpoint, claim, heartbeat, reap, resolution, usable, validated},
};

#[test]
fn the_drawing_shows_exactly_the_legal_moves() {
    let page = include_str!("../../docs/state-machine.md");
    let arrow = Regex::new(r"(?m)^    (\w+) --> (\w+)$").unwrap();
    let mut drawn: Vec<(&str, &str)> = arrow
        .captures_iter(page)
        .map(|found| found.extract::<2>().1.into())
        .collect();
    let mut legal: Vec<(&str, &str)> = JobStatus::ALL
        .into_iter()
        .flat_map(|was| was.next().iter().map(move |to| (was.as_str(), to.as_str())))
        .collect();
    drawn.sort_unstable();
    legal.sort_unstable();
    assert_eq!(drawn, legal);

    // And the table has each of them, with who makes it.
    let row = Regex::new(r"(?m)^\| (`.+`) \| `(\w+)` \| [a-z, ]+ \|").unwrap();
    let mut told: Vec<(&str, &str)> = row
        .captures_iter(page)
        .map(|found| found.extract::<2>().1)
        .flat_map(|[from, to]| from.split(", ").map(move |was| (was.trim_matches('`'), to)))
        .collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, legal);
}

/// Tries each pair of states by plain SQL, with every column as the new state wants it.
#[tokio::test]
async fn every_move_that_is_not_drawn_is_refused_by_the_database() {
    const MOVE: &str = "update jobs set status = $2, started_at = now(),
            finished_at = case when $2 in ('succeeded', 'failed', 'cancelled') then now() end,
            fine_tuned_model = case when $2 = 'succeeded' then result_model end,
            error_code = case when $2 = 'failed' then 'x' end, error_permanent = case when $2 = 'failed' then true end
        where id = $1";
    let queue = Queue::start().await;
    let job = queue.job().await;
    let mut refused = 0;
    for was in JobStatus::ALL {
        for becomes in JobStatus::ALL.into_iter().filter(|&becomes| becomes != was) {
            let mut transaction = rehead::db::begin(queue.pool()).await.unwrap();
            for statement in [
                sqlx::query("alter table jobs disable trigger guard_job"),
                sqlx::query(MOVE).bind(job.0).bind(was.as_str()),
                sqlx::query("alter table jobs enable trigger guard_job"),
            ] {
                statement.execute(&mut *transaction).await.unwrap();
            }
            let moved = sqlx::query(MOVE).bind(job.0).bind(becomes.as_str());
            match moved.execute(&mut *transaction).await {
                Ok(_) => assert!(was.next().contains(&becomes), "{was:?} to {becomes:?}"),
                Err(error) => {
                    assert!(
                        !was.next().contains(&becomes),
                        "{was:?} to {becomes:?}: {error}"
                    );
                    let constraint = if was.is_terminal() {
                        "jobs_terminal_rows_never_change"
                    } else {
                        "jobs_legal_moves"
                    };
                    let error = error.into_database_error().unwrap();
                    assert_eq!(
                        error.constraint(),
                        Some(constraint),
                        "{was:?} to {becomes:?}"
                    );
                    refused += 1;
                }
            }
            transaction.rollback().await.unwrap();
        }
    }
    let legal: usize = JobStatus::ALL.iter().map(|was| was.next().len()).sum();
    assert_eq!(refused, 8 * 7 - legal);
}

async fn ask(queue: &Queue, job: JobId, control: Control) -> Result<Job, Job> {
    match controls::ask(queue.pool(), queue.tenant, job, control)
        .await
        .unwrap()
    {
        Answer::Accepted => Ok(jobs::get(queue.pool(), queue.tenant, job)
            .await
            .unwrap()
            .unwrap()),
        Answer::Refused(job) => Err(*job),
        Answer::NotFound => panic!("no such job"),
    }
}

/// The state after asking once, and again: which must be the same.
async fn asked_twice(queue: &Queue, job: JobId, control: Control) -> JobStatus {
    let first = ask(queue, job, control).await.unwrap();
    let second = ask(queue, job, control).await.unwrap();
    assert_eq!(
        (first.status, first.version),
        (second.status, second.version),
        "{control:?} twice"
    );
    first.status
}

async fn save(queue: &Queue, claimed: &Claimed, step: u64) {
    let new = checkpoint(claimed, step, true);
    queue::commit_checkpoint(queue.pool(), claimed.job, claimed.token, &new)
        .await
        .unwrap()
        .unwrap();
}

fn crashed() -> Outcome {
    Outcome::Crashed {
        message: "gone".to_owned(),
    }
}

fn failed(retryable: bool) -> Outcome {
    Outcome::Failed(Failure {
        retryable,
        ..Failure::permanent("diverged", "loss")
    })
}

#[tokio::test]
async fn a_waiting_job_is_paused_at_once_and_resumed() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    assert_eq!(
        asked_twice(&queue, job, Control::Pause).await,
        JobStatus::Paused
    );
    assert!(queue.claim().await.is_none());
    assert_eq!(
        asked_twice(&queue, job, Control::Resume).await,
        JobStatus::Queued
    );
    assert_eq!(
        queue.told(job).await,
        ["created", "queued", "paused", "resumed"]
    );
    assert_eq!(queue.claim().await.unwrap().job, job);

    // One that waits for its file goes back to that wait, and is resolved then.
    let file = queue.upload(queue.tenant, Purpose::FineTune).await;
    let mut waiting = queue.new_job();
    waiting.resolution = None;
    waiting.request.training_file = file;
    let created = jobs::create(pool, &waiting).await.unwrap();
    assert!(matches!(created, Created::New(_)));
    assert_eq!(
        asked_twice(&queue, waiting.id, Control::Pause).await,
        JobStatus::Paused
    );
    let lease = queue.claim_work(Kind::Validate, HOUR).await.unwrap();
    assert!(
        files::accept(pool, &lease, &validated(usable(), 2_000))
            .await
            .unwrap()
    );
    assert!(jobs::waiting_for_files(pool, 10).await.unwrap().is_empty());
    assert_eq!(
        asked_twice(&queue, waiting.id, Control::Resume).await,
        JobStatus::ValidatingFiles
    );
    assert_eq!(
        jobs::waiting_for_files(pool, 10).await.unwrap()[0].id,
        waiting.id
    );
    let resolved = jobs::resolve(pool, waiting.id, &Ok(resolution()))
        .await
        .unwrap();
    assert_eq!(resolved, Some(JobStatus::Queued));

    let paused = queue.job().await;
    ask(&queue, paused, Control::Pause).await.unwrap();
    assert_eq!(
        asked_twice(&queue, paused, Control::Cancel).await,
        JobStatus::Cancelled
    );
    invariants(pool).await;
}

/// A pausing job ends paused, however its attempt ends: it holds no device and waits for its user
/// only.
#[tokio::test]
async fn a_running_job_pauses_however_its_attempt_ends() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    for (outcome, becomes) in [
        (Outcome::Yielded, JobStatus::Paused),
        (crashed(), JobStatus::Paused),
        (failed(true), JobStatus::Paused),
        (failed(false), JobStatus::Failed),
        (Outcome::Succeeded, JobStatus::Succeeded),
    ] {
        let job = queue.job().await;
        let claimed = queue.claim().await.unwrap();
        save(&queue, &claimed, 3).await;
        assert_eq!(
            asked_twice(&queue, job, Control::Pause).await,
            JobStatus::Pausing
        );
        let seen = heartbeat(pool, job, claimed.token, HOUR)
            .await
            .unwrap()
            .unwrap();
        assert!(seen.pause_requested && !seen.cancel_requested && !seen.stop_requested);
        assert_eq!(
            queue.end(&claimed, &outcome).await,
            Some(becomes),
            "{outcome:?}"
        );
        invariants(pool).await;
        let now = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
        assert_eq!(now.budgets.preemptions, 0, "a pause is no preemption");
        if becomes == JobStatus::Paused {
            assert!(queue.claim().await.is_none());
            assert_eq!(
                asked_twice(&queue, job, Control::Resume).await,
                JobStatus::Queued
            );
            // Also after a failure: its user has said when.
            let again = queue.claim().await.unwrap();
            assert_eq!((again.job, again.resume.as_ref().unwrap().step), (job, 3));
            queue.end(&again, &Outcome::Succeeded).await.unwrap();
        } else {
            assert_eq!(
                ask(&queue, job, Control::Resume).await.unwrap_err().status,
                becomes
            );
        }
    }
    // Nor does a lost worker bring it back, unless nothing is left to bring back.
    let lost = queue.job().await;
    for crash in 1..=4 {
        claim(pool, queue.worker, Duration::ZERO).await.unwrap();
        ask(&queue, lost, Control::Pause).await.unwrap();
        let reaped = reap(pool, Duration::ZERO).await.unwrap();
        let becomes = if crash < 4 {
            JobStatus::Paused
        } else {
            JobStatus::Failed
        };
        assert_eq!(reaped, Some((lost, becomes)));
        let _ = ask(&queue, lost, Control::Resume).await;
    }
    invariants(pool).await;
}

#[tokio::test]
async fn a_pause_can_be_taken_back() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    ask(&queue, job, Control::Pause).await.unwrap();
    assert_eq!(
        asked_twice(&queue, job, Control::Resume).await,
        JobStatus::Running
    );
    // Its trainer was not told yet: nothing has happened.
    let seen = heartbeat(pool, job, claimed.token, HOUR)
        .await
        .unwrap()
        .unwrap();
    assert!(!seen.pause_requested);
    // It was: the attempt ends with its state saved, and the next goes on.
    ask(&queue, job, Control::Pause).await.unwrap();
    save(&queue, &claimed, 5).await;
    ask(&queue, job, Control::Resume).await.unwrap();
    assert_eq!(
        queue.end(&claimed, &Outcome::Yielded).await,
        Some(JobStatus::Queued)
    );
    assert_eq!(queue.claim().await.unwrap().resume.unwrap().step, 5);
    invariants(pool).await;
}

#[tokio::test]
async fn a_cancellation_beats_every_other_request() {
    let queue = Queue::start().await;
    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    save(&queue, &claimed, 1).await;
    ask(&queue, job, Control::Stop).await.unwrap();
    ask(&queue, job, Control::Pause).await.unwrap();
    assert_eq!(
        asked_twice(&queue, job, Control::Cancel).await,
        JobStatus::Pausing
    );
    for control in [Control::Pause, Control::Resume, Control::Stop] {
        let refused = ask(&queue, job, control).await.unwrap_err();
        assert_eq!(refused.status, JobStatus::Pausing, "{control:?}");
    }
    assert_eq!(
        queue.end(&claimed, &Outcome::Yielded).await,
        Some(JobStatus::Cancelled)
    );
    for control in [Control::Pause, Control::Resume, Control::Stop] {
        assert!(ask(&queue, job, control).await.is_err(), "{control:?}");
    }
    let expected = [
        "created",
        "queued",
        "started",
        "checkpoint",
        "stop_requested",
        "pause_requested",
        "cancel_requested",
        "cancelled",
    ];
    assert_eq!(queue.told(job).await, expected);
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn a_stop_needs_a_trained_step_and_outlives_attempts() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    assert_eq!(
        ask(&queue, job, Control::Stop).await.unwrap_err().status,
        JobStatus::Queued
    );
    let first = queue.claim().await.unwrap();
    assert_eq!(
        ask(&queue, job, Control::Stop).await.unwrap_err().status,
        JobStatus::Running
    );
    save(&queue, &first, 2).await;
    assert_eq!(
        asked_twice(&queue, job, Control::Stop).await,
        JobStatus::Running
    );
    assert_eq!(queue.end(&first, &crashed()).await, Some(JobStatus::Queued));

    let second = queue.claim().await.unwrap();
    let seen = heartbeat(pool, job, second.token, HOUR)
        .await
        .unwrap()
        .unwrap();
    assert!(seen.stop_requested);
    // Its user may still free the device, and a stop then asks for it again.
    ask(&queue, job, Control::Pause).await.unwrap();
    assert_eq!(
        queue.end(&second, &Outcome::Yielded).await,
        Some(JobStatus::Paused)
    );
    assert_eq!(
        asked_twice(&queue, job, Control::Stop).await,
        JobStatus::Queued
    );
    let third = queue.claim().await.unwrap();
    ask(&queue, job, Control::Pause).await.unwrap();
    assert_eq!(
        asked_twice(&queue, job, Control::Stop).await,
        JobStatus::Running
    );
    assert_eq!(
        queue.end(&third, &Outcome::Succeeded).await,
        Some(JobStatus::Succeeded)
    );
    assert!(ask(&queue, job, Control::Stop).await.is_err());
    invariants(pool).await;
}

#[tokio::test]
async fn neither_waiting_nor_a_pause_counts_as_running() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let first = queue.claim().await.unwrap();
    assert_eq!(first.elapsed_seconds, 0.0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    ask(&queue, job, Control::Pause).await.unwrap();
    queue.end(&first, &Outcome::Yielded).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    ask(&queue, job, Control::Resume).await.unwrap();
    let second = queue.claim().await.unwrap();
    let elapsed = second.elapsed_seconds;
    assert!((0.2..0.6).contains(&elapsed), "{elapsed}");

    // Its history says so, phase by phase.
    let mut spans = phases::list(pool, queue.tenant, &[job.0]).await.unwrap();
    let spans = spans.remove(&job).unwrap();
    let seen: Vec<_> = spans
        .iter()
        .map(|span| (span.phase, span.attempt))
        .collect();
    let expected = [
        (Phase::Waiting, None),
        (Phase::Preparing, Some(1)),
        (Phase::Waiting, None),
        (Phase::Preparing, Some(2)),
    ];
    assert_eq!(seen, expected);
    let paused = spans[2].started_at - spans[1].ended_at.unwrap();
    assert!(paused >= Duration::from_millis(600), "{paused}");
    assert_eq!(spans[0].ended_at, Some(spans[1].started_at));
    assert_eq!(spans[3].ended_at, None);
}
