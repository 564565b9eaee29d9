//! Rows that an attempt writes, and where the next one continues.

use rehead::{
    db::{
        Page, attempts, checkpoints,
        jobs::{self, JobProgress},
        metrics::{self, Evaluation},
        models,
        queue::{self, MicroBatch, Records},
        queue_position,
    },
    domain::{
        job::{JobStatus, Outcome, Phase},
        progress::Step,
    },
};

use crate::support::{
    postgres::invariants,
    queue::{Queue, checkpoint, metrics, resolution, steps},
};

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
    let position = queue_position::get(pool, queue.tenant, job)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(position.ahead, 0);

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
    let ended = queue.end(&claimed, &Outcome::Succeeded).await;
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
    let mut attempts = attempts::list(pool, queue.tenant, &[job.id.0])
        .await
        .unwrap();
    let attempts = attempts.remove(&job.id).unwrap();
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
    assert_eq!(queue.told(job.id).await, told);
}

#[tokio::test]
async fn an_attempt_continues_from_the_last_good_checkpoint() {
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
    let gone = checkpoints::supersede(pool, job, 1).await.unwrap();
    assert_eq!(steps(&gone), [1, 3]);
    checkpoints::forget(pool, ids[0]).await.unwrap();
    assert_eq!(
        queue.end(&first, &Outcome::Yielded).await,
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
    let budgets = job.budgets;
    assert_eq!(
        (budgets.preemptions, budgets.failures, budgets.crashes),
        (1, 0, 0)
    );
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
        let shrunk = MicroBatch {
            micro_batch,
            nondeterminism_reason: "memory ran out".to_owned(),
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
    let ended = queue.end(&first, &Outcome::Yielded).await;
    assert_eq!(ended, Some(JobStatus::Queued));
    let second = queue.claim().await.unwrap();
    assert_eq!((second.job, second.micro_batch), (job, Some(8)));
    invariants(pool).await;
}
