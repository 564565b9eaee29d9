//! The queue on a real Postgres: order, caps, fences, budgets, cancellation, idempotency, and all of it at once.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rehead::{
    db::{
        self, Page, attempts, channel, checkpoints,
        controls::{self, Answer},
        events, files,
        jobs::{self, Created, Filter, JobProgress},
        metrics::{self, Evaluation},
        models, places,
        queue::{self, Claimed, NewBatch, Records, Trace},
    },
    domain::{
        file::Purpose,
        id::{JobId, WorkerId},
        job::{Control, JobStatus, Outcome, Phase},
        problem::Problem,
        progress::Step,
    },
};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::support::{
    postgres::invariants,
    queue::{
        HOUR, Queue, checkpoint, claim, idempotency, metrics, new_model, resolution, unusable,
        usable,
    },
};

const AT_ONCE: Duration = Duration::ZERO;

async fn status(queue: &Queue, job: JobId) -> JobStatus {
    jobs::get(queue.pool(), queue.tenant, job)
        .await
        .unwrap()
        .unwrap()
        .status
}

async fn kinds(queue: &Queue, job: JobId) -> Vec<String> {
    let events = events::after(queue.pool(), queue.tenant, job, 0, 1_000)
        .await
        .unwrap();
    events.into_iter().map(|event| event.kind).collect()
}

/// Makes jobs that wait after a failure claimable now.
async fn skip_backoff(pool: &PgPool) {
    // Several call it at once: whatever another has its hands on is another's.
    sqlx::query(
        "update jobs set run_at = now() where id in (
            select id from jobs where status = 'queued' and run_at > now() for update skip locked)",
    )
    .execute(pool)
    .await
    .unwrap();
}

fn retryable(message: &str) -> Outcome {
    Outcome::Failed {
        code: "torch_error".to_owned(),
        message: message.to_owned(),
        retryable: true,
    }
}

/// Adding a job holds its tenant's key for as long as the statement takes; a client that posts one after the other would
/// otherwise keep its own jobs from running.
#[tokio::test]
async fn a_tenant_that_is_posting_jobs_has_them_claimed_meanwhile() {
    let queue = Queue::start().await;
    let waiting = queue.job().await;
    let mut posting = queue.pool().begin().await.unwrap();
    sqlx::query("select from tenants for key share")
        .execute(&mut *posting)
        .await
        .unwrap();
    assert_eq!(queue.claim().await.unwrap().job, waiting);
    posting.rollback().await.unwrap();
}

#[tokio::test]
async fn a_job_runs_to_its_model() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let created = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
    assert_eq!(
        (created.status, created.seed, created.attempts),
        (JobStatus::Queued, u64::MAX - 7, 0)
    );
    let place = places::get(pool, queue.tenant, job).await.unwrap().unwrap();
    assert_eq!(place.ahead, 0);

    let claimed = queue.claim().await.unwrap();
    assert_eq!((claimed.job, claimed.token), (job, 1));
    assert_eq!(claimed.recipe, resolution().recipe);
    assert_eq!(claimed.training.sha256, "cd".repeat(32));
    assert_eq!(claimed.base_model.weights_sha256, "ef".repeat(32));
    assert!(claimed.resume.is_none() && claimed.validation.is_none());

    let step = |step| Step {
        step,
        epoch: 1,
        train_loss: Some(0.5),
        learning_rate: 1e-3,
        samples_per_second: 9.0,
    };
    let records = Records {
        shrunk: None,
        usage: None,
        phase: Some(Phase::Training),
        progress: Some(JobProgress {
            step: 2,
            n_steps: Some(6),
            epoch: 1,
            fraction: 0.33,
            ..JobProgress::default()
        }),
        steps: vec![
            step(1),
            Step {
                train_loss: None,
                ..step(2)
            },
        ],
        evaluations: vec![Evaluation {
            metrics: metrics(2),
            best: true,
        }],
        device: Some(("cpu".to_owned(), 2)),
        events: Vec::new(),
    };
    // A resumed attempt says the same again.
    for _ in 0..2 {
        assert!(
            queue::record(pool, job, claimed.token, &records)
                .await
                .unwrap()
        );
    }
    let saved = queue::commit_checkpoint(pool, job, claimed.token, &checkpoint(&claimed, 2, true))
        .await
        .unwrap();
    let ended = queue::finish(
        pool,
        job,
        1,
        &Outcome::Succeeded,
        Some(&new_model(&claimed)),
        &Trace::default(),
    )
    .await
    .unwrap();
    assert_eq!(ended, Some(JobStatus::Succeeded));
    invariants(pool).await;

    let job = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
    let name = job.fine_tuned_model.clone().unwrap();
    assert_eq!((&name, job.best_checkpoint), (&claimed.result_model, saved));
    assert!(name.starts_with("ft:net:pets:"), "{name}");
    assert_eq!((job.progress.step, job.device.as_deref()), (2, Some("cpu")));
    let model = models::get(pool, queue.tenant, &name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (model.parent.as_deref(), model.job),
        (Some("net"), Some(job.id))
    );
    assert!(
        models::report_of_job(pool, queue.tenant, job.id)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        models::layers(pool, queue.tenant, &name)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        metrics::steps_after(pool, queue.tenant, job.id, 0, 10)
            .await
            .unwrap(),
        records.steps
    );
    assert_eq!(
        metrics::evaluations_after(pool, queue.tenant, job.id, None)
            .await
            .unwrap(),
        records.evaluations
    );
    let attempts = attempts::list(pool, queue.tenant, job.id).await.unwrap();
    assert_eq!(attempts[0].outcome.as_deref(), Some("succeeded"));
    let told = [
        "created",
        "queued",
        "started",
        "evaluated",
        "phase",
        "evaluated",
        "phase",
        "checkpoint",
        "succeeded",
    ];
    assert_eq!(kinds(&queue, job.id).await, told);
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
    sqlx::query("update jobs set device_mb = 1001")
        .execute(queue.pool())
        .await
        .unwrap();
    assert!(queue.claim().await.is_none());
    sqlx::query("update jobs set device_mb = 1000")
        .execute(queue.pool())
        .await
        .unwrap();
    assert_eq!(queue.claim().await.unwrap().job, job);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cap_of_two_gives_sixteen_claimers_two_leases() {
    let queue = Queue::start().await;
    for _ in 0..16 {
        queue.job().await;
    }
    sqlx::query("update tenants set max_running = 2")
        .execute(queue.pool())
        .await
        .unwrap();
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

#[tokio::test]
async fn a_worker_that_lost_its_lease_writes_nothing() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let zombie = claim(pool, queue.worker, AT_ONCE).await.unwrap();
    assert_eq!(
        queue::reap(pool, AT_ONCE).await.unwrap(),
        Some((job, JobStatus::Queued))
    );
    skip_backoff(pool).await;
    let owner = queue.claim().await.unwrap();
    assert_eq!((owner.job, owner.token), (job, 2));
    let before = jobs::get(pool, queue.tenant, job)
        .await
        .unwrap()
        .unwrap()
        .version;

    let records = Records {
        phase: Some(Phase::Training),
        ..Records::default()
    };
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Yielded,
        Outcome::Cancelled,
        retryable("late"),
    ];
    assert_eq!(
        queue::heartbeat(pool, job, zombie.token, HOUR)
            .await
            .unwrap(),
        None
    );
    assert!(
        !queue::record(pool, job, zombie.token, &records)
            .await
            .unwrap()
    );
    let late = checkpoint(&zombie, 5, true);
    assert_eq!(
        queue::commit_checkpoint(pool, job, zombie.token, &late)
            .await
            .unwrap(),
        None
    );
    for outcome in outcomes {
        let model = (outcome == Outcome::Succeeded).then(|| new_model(&zombie));
        let ended = queue::finish(
            pool,
            job,
            zombie.token,
            &outcome,
            model.as_ref(),
            &Trace::default(),
        )
        .await
        .unwrap();
        assert_eq!(ended, None);
    }
    assert!(
        checkpoints::supersede(pool, job, zombie.token)
            .await
            .unwrap()
            .is_empty()
    );

    assert_eq!(
        jobs::get(pool, queue.tenant, job)
            .await
            .unwrap()
            .unwrap()
            .version,
        before
    );
    assert_eq!(
        kinds(&queue, job).await,
        ["created", "queued", "started", "requeued", "started"]
    );
    assert!(checkpoints::latest(pool, job).await.unwrap().is_none());
    assert!(
        queue::heartbeat(pool, job, owner.token, HOUR)
            .await
            .unwrap()
            .is_some()
    );
    invariants(pool).await;
}

#[tokio::test]
async fn an_attempt_goes_on_from_the_last_good_checkpoint() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let first = queue.claim().await.unwrap();
    let mut ids = Vec::new();
    for step in 1..=5 {
        let new = checkpoint(&first, step, step == 2);
        ids.push(
            queue::commit_checkpoint(pool, job, 1, &new)
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let gone: Vec<u64> = checkpoints::supersede(pool, job, 1)
        .await
        .unwrap()
        .iter()
        .map(|gone| gone.step)
        .collect();
    assert_eq!(gone, [1, 3]);
    checkpoints::forget(pool, ids[0]).await.unwrap();
    assert_eq!(
        queue::finish(pool, job, 1, &Outcome::Yielded, None, &Trace::default())
            .await
            .unwrap(),
        Some(JobStatus::Queued)
    );

    let second = queue.claim().await.unwrap();
    let resume = second.resume.unwrap();
    assert_eq!(
        (resume.id, resume.step, resume.metrics),
        (ids[4], 5, Some(metrics(5)))
    );
    assert_eq!(
        checkpoints::reject(pool, job, 2, ids[4])
            .await
            .unwrap()
            .unwrap()
            .step,
        4
    );
    let page = Page {
        after: None,
        limit: 1,
        descending: false,
    };
    let listed = checkpoints::list(pool, queue.tenant, job, page)
        .await
        .unwrap();
    assert_eq!((listed.rows[0].step, listed.has_more), (2, true));
    let page = Page {
        after: Some(listed.rows[0].id),
        ..page
    };
    let listed = checkpoints::list(pool, queue.tenant, job, page)
        .await
        .unwrap();
    assert_eq!((listed.rows[0].step, listed.has_more), (4, false));
    let job = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
    assert_eq!((job.preemptions, job.failures, job.crashes), (1, 0, 0));
    invariants(pool).await;
}

/// The last record is about evaluation: it says nothing of training.
#[tokio::test]
async fn the_next_attempt_begins_with_the_batch_that_fitted() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let first = queue.claim().await.unwrap();
    assert_eq!(first.micro_batch, None);
    for micro_batch in [Some(16), Some(8), None] {
        let shrunk = NewBatch {
            micro_batch,
            best_effort: "memory ran out".to_owned(),
        };
        let records = Records {
            shrunk: Some(shrunk),
            ..Records::default()
        };
        assert!(
            queue::record(pool, job, first.token, &records)
                .await
                .unwrap()
        );
    }
    let trace = Trace::default();
    let ended = queue::finish(pool, job, first.token, &Outcome::Yielded, None, &trace).await;
    assert_eq!(ended.unwrap(), Some(JobStatus::Queued));
    let second = queue.claim().await.unwrap();
    assert_eq!((second.job, second.micro_batch), (job, Some(8)));
    invariants(pool).await;
}

/// Another try may find more memory; a third would find the same.
#[tokio::test]
async fn one_sample_that_does_not_fit_is_tried_once_more_and_then_the_jobs_fault() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    for expected in [JobStatus::Queued, JobStatus::Failed] {
        skip_backoff(pool).await;
        let token = queue.claim().await.unwrap().token;
        let outcome = Outcome::Failed {
            code: "out_of_memory".to_owned(),
            message: "freeze more".to_owned(),
            retryable: true,
        };
        let trace = Trace::default();
        let ended = queue::finish(pool, job, token, &outcome, None, &trace).await;
        assert_eq!(ended.unwrap(), Some(expected));
    }
    let job = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
    let error = job.error.unwrap();
    assert_eq!(error.code, "out_of_memory");
    assert!(error.permanent, "{error:?}");
}

#[tokio::test]
async fn budgets_end_a_job_that_fails_or_crashes_again_and_again() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let failing = queue.job().await;
    for attempt in 1..=4 {
        skip_backoff(pool).await;
        let claimed = queue.claim().await.unwrap();
        let ended = queue::finish(
            pool,
            failing,
            claimed.token,
            &retryable("no memory"),
            None,
            &Trace::default(),
        )
        .await;
        let expected = if attempt < 4 {
            JobStatus::Queued
        } else {
            JobStatus::Failed
        };
        assert_eq!(ended.unwrap(), Some(expected));
    }
    let error = jobs::get(pool, queue.tenant, failing)
        .await
        .unwrap()
        .unwrap()
        .error
        .unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("torch_error", "no memory")
    );

    let crashing = queue.job().await;
    for attempt in 1..=4 {
        skip_backoff(pool).await;
        let claimed = claim(pool, queue.worker, AT_ONCE).await.unwrap();
        let expected = if attempt < 4 {
            JobStatus::Queued
        } else {
            JobStatus::Failed
        };
        // Both ways to vanish count on one budget.
        if attempt % 2 == 0 {
            assert_eq!(
                queue::reap(pool, AT_ONCE).await.unwrap(),
                Some((crashing, expected))
            );
        } else {
            let crashed = Outcome::Crashed {
                message: "killed by signal 9".to_owned(),
            };
            let ended = queue::finish(
                pool,
                crashing,
                claimed.token,
                &crashed,
                None,
                &Trace::default(),
            )
            .await
            .unwrap();
            assert_eq!(ended, Some(expected));
        }
    }
    let job = jobs::get(pool, queue.tenant, crashing)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (job.error.unwrap().code.as_str(), job.crashes),
        ("worker_crash_loop", 4)
    );

    let wrong = queue.job().await;
    queue.claim().await.unwrap();
    let permanent = Outcome::Failed {
        code: "diverged".to_owned(),
        message: "loss".to_owned(),
        retryable: false,
    };
    assert_eq!(
        queue::finish(pool, wrong, 1, &permanent, None, &Trace::default())
            .await
            .unwrap(),
        Some(JobStatus::Failed)
    );
    assert_eq!(queue::reap(pool, AT_ONCE).await.unwrap(), None);
    invariants(pool).await;
}

#[tokio::test]
async fn a_job_is_cancelled_wherever_it_is() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let tenant = queue.tenant;

    let waiting = queue.job().await;
    assert!(matches!(
        controls::ask(pool, tenant, waiting, Control::Cancel)
            .await
            .unwrap(),
        Answer::Accepted(_)
    ));
    assert_eq!(status(&queue, waiting).await, JobStatus::Cancelled);
    assert!(matches!(
        controls::ask(pool, tenant, waiting, Control::Cancel)
            .await
            .unwrap(),
        Answer::Accepted(_)
    ));
    assert!(queue.claim().await.is_none());

    // A running job gets the flag; however its attempt then ends, but for a success, it is cancelled.
    let crashed = Outcome::Crashed {
        message: "gone".to_owned(),
    };
    for outcome in [
        Outcome::Cancelled,
        Outcome::Yielded,
        retryable("no memory"),
        crashed,
    ] {
        let running = queue.job().await;
        queue.claim().await.unwrap();
        let seen = queue::heartbeat(pool, running, 1, HOUR)
            .await
            .unwrap()
            .unwrap();
        assert!(!seen.cancel_requested);
        for _ in 0..2 {
            let Answer::Accepted(job) = controls::ask(pool, tenant, running, Control::Cancel)
                .await
                .unwrap()
            else {
                panic!()
            };
            assert_eq!(job.status, JobStatus::Running);
        }
        let seen = queue::heartbeat(pool, running, 1, HOUR)
            .await
            .unwrap()
            .unwrap();
        assert!(seen.cancel_requested);
        let ended = queue::finish(pool, running, 1, &outcome, None, &Trace::default())
            .await
            .unwrap();
        assert_eq!(ended, Some(JobStatus::Cancelled), "{outcome:?}");
        assert_eq!(
            kinds(&queue, running).await,
            [
                "created",
                "queued",
                "started",
                "cancel_requested",
                "cancelled"
            ]
        );
    }
    let lost = queue.job().await;
    claim(pool, queue.worker, AT_ONCE).await.unwrap();
    controls::ask(pool, tenant, lost, Control::Cancel)
        .await
        .unwrap();
    assert_eq!(
        queue::reap(pool, AT_ONCE).await.unwrap(),
        Some((lost, JobStatus::Cancelled))
    );

    let done = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    controls::ask(pool, tenant, done, Control::Cancel)
        .await
        .unwrap();
    let ended = queue::finish(
        pool,
        done,
        1,
        &Outcome::Succeeded,
        Some(&new_model(&claimed)),
        &Trace::default(),
    )
    .await
    .unwrap();
    assert_eq!(ended, Some(JobStatus::Succeeded));
    assert!(matches!(
        controls::ask(pool, tenant, done, Control::Cancel)
            .await
            .unwrap(),
        Answer::Refused(_)
    ));
    assert!(matches!(
        controls::ask(pool, tenant, JobId::new(), Control::Cancel)
            .await
            .unwrap(),
        Answer::NotFound
    ));
    invariants(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_makes_one_job() {
    let queue = Queue::start().await;
    let mut posts = JoinSet::new();
    for _ in 0..50 {
        let pool = queue.pool().clone();
        let mut job = queue.new_job();
        job.idempotency = idempotency("once", 1);
        posts.spawn(async move {
            match jobs::create(&pool, &job).await.unwrap() {
                Created::New(job) => (1, job.id),
                Created::Replayed(job) => (0, job.id),
                other => panic!("{other:?}"),
            }
        });
    }
    let answers = posts.join_all().await;
    assert_eq!(answers.iter().map(|(new, _)| new).sum::<i32>(), 1);
    assert_eq!(
        answers
            .iter()
            .map(|(_, id)| id)
            .collect::<BTreeSet<_>>()
            .len(),
        1
    );

    let mut other = queue.new_job();
    other.idempotency = idempotency("once", 2);
    assert!(matches!(
        jobs::create(queue.pool(), &other).await.unwrap(),
        Created::KeyConflict
    ));
    let (tenant, file) = queue.tenant("other").await;
    other.tenant = tenant;
    other.request.training_file = file;
    assert!(matches!(
        jobs::create(queue.pool(), &other).await.unwrap(),
        Created::New(_)
    ));
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn a_full_queue_takes_no_more() {
    let queue = Queue::start().await;
    sqlx::query("update tenants set max_queued = 2")
        .execute(queue.pool())
        .await
        .unwrap();
    queue.job().await;
    queue.job().await;
    let third = jobs::create(queue.pool(), &queue.new_job()).await.unwrap();
    assert!(matches!(third, Created::QueueFull { limit: 2 }));
    queue.claim().await.unwrap();
    queue.job().await;
}

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
            "update job_leases set token = token + 1 where job_id = $1",
            "job_leases_attempt_fk",
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
    let trace = Trace::default();
    let ended = queue::finish(pool, job, claimed.token, &Outcome::Yielded, None, &trace);
    assert_eq!(ended.await.unwrap(), Some(JobStatus::Queued));
}

#[tokio::test]
async fn a_job_waits_for_its_file_and_is_settled_once() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut settled = Vec::new();
    for accepted in [true, false] {
        let file = queue.upload(queue.tenant, Purpose::FineTune).await;
        let mut job = queue.new_job();
        job.resolution = None;
        job.request.training_file = file;
        assert!(matches!(
            jobs::create(pool, &job).await.unwrap(),
            Created::New(_)
        ));
        assert!(jobs::to_settle(pool, 10).await.unwrap().is_empty());
        assert_eq!(
            files::delete(pool, queue.tenant, file).await.unwrap(),
            files::Deleted::InUseByJob(job.id)
        );

        let claimed = files::claim(pool, queue.worker, HOUR)
            .await
            .unwrap()
            .unwrap();
        let token = claimed.token;
        if accepted {
            assert!(
                files::accept(pool, file, token, &usable(), "cd", 2_000)
                    .await
                    .unwrap()
            );
        } else {
            assert!(
                files::refuse(pool, file, token, &unusable(), "no image")
                    .await
                    .unwrap()
            );
        }
        let waiting = jobs::to_settle(pool, 10).await.unwrap();
        assert_eq!(
            (waiting.len(), waiting[0].id, waiting[0].seed),
            (1, job.id, job.seed)
        );
        assert!(waiting[0].layers.is_some() && waiting[0].validation.is_none());
        let outcome = if accepted {
            Ok(resolution())
        } else {
            Err(vec![Problem::new(
                "training_file",
                "unusable_file",
                "the file cannot be used: no image",
            )])
        };
        let becomes = jobs::settle(pool, job.id, &outcome).await.unwrap();
        let again = jobs::settle(pool, job.id, &Ok(resolution())).await.unwrap();
        assert_eq!(becomes, again);
        settled.push(becomes.unwrap());
        assert!(jobs::to_settle(pool, 10).await.unwrap().is_empty());
    }
    assert_eq!(settled, [JobStatus::Queued, JobStatus::Failed]);
    invariants(pool).await;
}

#[tokio::test]
async fn files_and_imports_have_leases_and_budgets_too() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let file = queue.upload(queue.tenant, Purpose::FineTune).await;
    queue.register(queue.tenant, "bad").await;
    for attempt in 1..=3 {
        if attempt == 3 {
            // Their leases ran out, but only the reaper may say so: it knows of outages.
            assert!(
                files::claim(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(
                models::claim_import(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(files::reap(pool).await.unwrap().is_empty());
            assert!(models::reap_imports(pool).await.unwrap().is_empty());
        }
        let stale = files::claim(pool, queue.worker, AT_ONCE)
            .await
            .unwrap()
            .unwrap();
        let stale_import = models::claim_import(pool, queue.worker, AT_ONCE)
            .await
            .unwrap()
            .unwrap();
        if attempt == 1 {
            // Stopped, not crashed: costs nothing.
            assert!(
                files::release(pool, file, stale.token, false)
                    .await
                    .unwrap()
            );
            assert!(
                models::release_import(pool, &stale_import, false)
                    .await
                    .unwrap()
            );
            let held = files::claim(pool, queue.worker, HOUR)
                .await
                .unwrap()
                .unwrap();
            let held_import = models::claim_import(pool, queue.worker, HOUR)
                .await
                .unwrap()
                .unwrap();
            assert!(!files::renew(pool, file, stale.token, HOUR).await.unwrap());
            assert!(
                !files::accept(pool, file, stale.token, &usable(), "cd", 1)
                    .await
                    .unwrap()
            );
            assert!(
                !models::renew_import(pool, &stale_import, HOUR)
                    .await
                    .unwrap()
            );
            assert!(
                !models::refuse_import(pool, &stale_import, &[])
                    .await
                    .unwrap()
            );
            assert!(
                files::claim(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(files::release(pool, file, held.token, true).await.unwrap());
            assert!(
                models::release_import(pool, &held_import, true)
                    .await
                    .unwrap()
            );
        }
    }
    assert!(
        files::claim(pool, queue.worker, HOUR)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(files::reap(pool).await.unwrap(), [file]);
    assert_eq!(models::reap_imports(pool).await.unwrap(), ["bad"]);
    assert_eq!(
        models::take_refused(pool, queue.tenant, "bad")
            .await
            .unwrap()
            .unwrap()[0]
            .code,
        "inspection_crashed"
    );
    assert!(
        models::get(pool, queue.tenant, "bad")
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        files::delete(pool, queue.tenant, file).await.unwrap(),
        files::Deleted::Yes
    );
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_rows() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let (other, _) = queue.tenant("other").await;
    assert!(jobs::get(pool, other, job).await.unwrap().is_none());
    assert!(matches!(
        controls::ask(pool, other, job, Control::Cancel)
            .await
            .unwrap(),
        Answer::NotFound
    ));
    assert!(
        events::after(pool, other, job, 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(files::get(pool, other, queue.file).await.unwrap().is_none());
    assert_eq!(
        files::delete(pool, other, queue.file).await.unwrap(),
        files::Deleted::NotFound
    );
    let page = Page {
        after: None,
        limit: 10,
        descending: true,
    };
    assert!(
        jobs::list(pool, other, page, &Filter::default())
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let mut foreign = queue.new_job();
    foreign.tenant = other;
    assert!(matches!(
        jobs::create(pool, &foreign).await.unwrap(),
        Created::InputGone
    ));
    assert_eq!(status(&queue, job).await, JobStatus::Queued);
}

#[tokio::test]
async fn lists_page_and_filter() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(queue.job().await);
    }
    queue.claim().await.unwrap();
    let all = Filter::default();
    let mut seen = Vec::new();
    let mut page = Page {
        after: None,
        limit: 2,
        descending: true,
    };
    loop {
        let slice = jobs::list(pool, queue.tenant, page, &all).await.unwrap();
        seen.extend(slice.rows.iter().map(|job| job.id));
        page.after = seen.last().copied();
        if !slice.has_more {
            break;
        }
    }
    made.reverse();
    assert_eq!(seen, made);
    let page = Page {
        after: None,
        limit: 10,
        descending: false,
    };
    let mut filter = Filter {
        status: Some(JobStatus::Queued),
        model: Some("net".to_owned()),
        ..all
    };
    filter.metadata.insert("team".to_owned(), "zoo".to_owned());
    assert_eq!(
        jobs::list(pool, queue.tenant, page, &filter)
            .await
            .unwrap()
            .rows
            .len(),
        4
    );
    filter
        .metadata
        .insert("team".to_owned(), "other".to_owned());
    assert!(
        jobs::list(pool, queue.tenant, page, &filter)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let events = events::list(
        pool,
        queue.tenant,
        made[0],
        Page {
            after: None,
            limit: 1,
            descending: true,
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (events.rows[0].kind.as_str(), events.has_more),
        ("queued", true)
    );
    let page = Page {
        after: Some(events.rows[0].id),
        limit: 5,
        descending: true,
    };
    let events = events::list(pool, queue.tenant, made[0], page)
        .await
        .unwrap();
    assert_eq!(
        (events.rows[0].kind.as_str(), events.has_more),
        ("created", false)
    );
}

#[tokio::test]
async fn changes_are_notified() {
    let queue = Queue::start().await;
    let channels = [
        channel::WORK,
        channel::CONTROL,
        channel::FILE,
        channel::MODEL,
    ];
    let mut listener = db::listen(queue.pool(), &channels).await.unwrap();
    let job = queue.job().await;
    queue.claim().await.unwrap();
    controls::ask(queue.pool(), queue.tenant, job, Control::Cancel)
        .await
        .unwrap();
    let file = queue.data_set(queue.tenant).await;
    queue.base_model(queue.tenant, "second").await;
    let id = job.to_string();
    let expected = [
        (channel::WORK, "job"),
        (channel::CONTROL, id.as_str()),
        (channel::WORK, "file"),
        (channel::FILE, &file.to_string()),
        (channel::WORK, "import"),
        (channel::MODEL, "second"),
    ];
    let mut heard = BTreeSet::new();
    for _ in &expected {
        let told = tokio::time::timeout(Duration::from_secs(5), listener.recv())
            .await
            .unwrap()
            .unwrap();
        heard.insert((told.channel().to_owned(), told.payload().to_owned()));
    }
    let expected = expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned()));
    assert_eq!(heard, BTreeSet::from(expected));
}

/// One worker of the storm: does to a claimed job whatever `dice` says, with a lease that may be born dead.
async fn storm(pool: &PgPool, dice: u64, ends: &AtomicU64) {
    let ttl = if dice.is_multiple_of(3) {
        AT_ONCE
    } else {
        Duration::from_millis(dice % 20)
    };
    let Some(claimed) = claim(pool, WorkerId::new(), ttl).await else {
        skip_backoff(pool).await;
        return;
    };
    let Claimed {
        job, token, tenant, ..
    } = claimed;
    if dice.is_multiple_of(5) {
        tokio::time::sleep(Duration::from_millis(dice % 30)).await;
    }
    queue::heartbeat(pool, job, token, ttl).await.unwrap();
    let records = Records {
        phase: Some(Phase::Training),
        ..Records::default()
    };
    queue::record(pool, job, token, &records).await.unwrap();
    queue::commit_checkpoint(pool, job, token, &checkpoint(&claimed, dice % 50, true))
        .await
        .unwrap();
    if dice.is_multiple_of(17) {
        controls::ask(pool, tenant, job, Control::Cancel)
            .await
            .unwrap();
    }
    let (outcome, model) = match dice % 7 {
        0 => (Outcome::Succeeded, Some(new_model(&claimed))),
        1 => (retryable("no memory"), None),
        2 => (Outcome::Yielded, None),
        3 => (
            Outcome::Crashed {
                message: "abort".to_owned(),
            },
            None,
        ),
        // Vanishes.
        _ => return,
    };
    if queue::finish(
        pool,
        job,
        token,
        &outcome,
        model.as_ref(),
        &Trace::default(),
    )
    .await
    .unwrap()
    .is_some()
    {
        ends.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_workers_and_reapers_breaks_nothing() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let (other, file) = queue.tenant("other").await;
    sqlx::query("update tenants set max_running = 4")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(
        "alter table jobs alter max_failures set default 20, alter max_crashes set default 40",
    )
    .execute(pool)
    .await
    .unwrap();
    for _ in 0..150 {
        queue.job().await;
        queue.job_of(other, file, 1).await;
    }
    let (ends, reaped) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(5);
    let workers = (0..12_u64).map(|worker| {
        let ends = &ends;
        async move {
            let mut dice = worker + 1;
            while Instant::now() < until {
                // Knuth's multiplier: every worker has its own, repeatable luck.
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                storm(pool, dice >> 33, ends).await;
            }
        }
    });
    let reapers = (0..3).map(|_| async {
        while Instant::now() < until {
            if queue::reap(pool, AT_ONCE).await.unwrap().is_some() {
                reaped.fetch_add(1, Ordering::Relaxed);
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let watcher = async {
        while Instant::now() < until {
            invariants(pool).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let workers = futures_util::future::join_all(workers);
    let reapers = futures_util::future::join_all(reapers);
    futures_util::future::join3(workers, reapers, watcher).await;
    while queue::reap(pool, AT_ONCE).await.unwrap().is_some() {}
    tokio::time::sleep(Duration::from_millis(50)).await;
    while queue::reap(pool, AT_ONCE).await.unwrap().is_some() {}
    invariants(pool).await;
    let (ends, reaped) = (ends.into_inner(), reaped.into_inner());
    println!("{ends} attempts ended by their workers, {reaped} by a reaper");
    assert!(
        ends > 50 && reaped > 50,
        "{ends} ends, {reaped} reaped: not much of a storm"
    );
}
