//! NOTIFY takes a lock that all committers share, so only what a worker waits for, and the ends of
//! short work, is notified: a job to claim, control requests of its user. Attempts, events,
//! heartbeats, steps, checkpoints and results are not.

use std::time::Duration;

use rehead::{
    db::{
        self, channel,
        jobs::JobProgress,
        queue::{self, Records},
        workers::{self, NewWorker},
    },
    domain::{
        job::{Outcome, Phase},
        progress::Step,
    },
};
use sqlx::postgres::PgListener;

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes},
    queue::{HOUR, Queue, checkpoint, heartbeat},
    service::Service,
};

const CHANNELS: [&str; 4] = [
    channel::WORK,
    channel::CONTROL,
    channel::FILE,
    channel::MODEL,
];

/// The channels of all that was notified since the last look.
async fn heard(listener: &mut PgListener) -> Vec<String> {
    let mut heard = Vec::new();
    while let Ok(notification) =
        tokio::time::timeout(Duration::from_millis(300), listener.recv()).await
    {
        heard.push(notification.unwrap().channel().to_owned());
    }
    heard
}

/// Whatever a worker and a server do about a job happens in it.
#[tokio::test(flavor = "multi_thread")]
async fn f14_a_job_on_a_real_worker_is_notified_once() {
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let pool = service.pool().await;
    let mut listener = db::listen(&pool, &CHANNELS).await.unwrap();
    let job = long_job(&service, &file, 20).await;
    service.has_checkpoint(&job).await;
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}\n{}", worker.log());
    assert_eq!(heard(&mut listener).await, [channel::WORK]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_a_running_job_sends_no_notification() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut listener = db::listen(pool, &CHANNELS).await.unwrap();
    let job = queue.job().await;
    assert_eq!(heard(&mut listener).await, [channel::WORK], "a job came");
    let claimed = queue.claim().await.unwrap();

    let worker = NewWorker {
        id: queue.worker,
        host: "here".to_owned(),
        pid: 1,
        version: "1".to_owned(),
        device: "cpu".to_owned(),
        slots: 1,
    };
    workers::register(pool, &worker).await.unwrap();
    for step in 1..=20 {
        let steps = vec![Step {
            step,
            epoch: 1,
            train_loss: Some(0.5),
            learning_rate: 0.1,
            samples_per_second: 9.0,
        }];
        let progress = Some(JobProgress {
            step,
            ..JobProgress::default()
        });
        let records = Records {
            progress,
            steps,
            device: Some(("cpu".to_owned(), 1)),
            ..Records::default()
        };
        assert!(
            queue::record(pool, job, claimed.token, &records)
                .await
                .unwrap()
        );
        let kept = heartbeat(pool, job, claimed.token, HOUR).await;
        assert!(kept.unwrap().is_some());
        workers::beat(pool, queue.worker).await.unwrap();
    }
    let records = Records {
        phase: Some(Phase::Training),
        ..Records::default()
    };
    queue::record(pool, job, claimed.token, &records)
        .await
        .unwrap();
    let checkpoint = checkpoint(&claimed, 20, true);
    queue::commit_checkpoint(pool, job, claimed.token, &checkpoint)
        .await
        .unwrap()
        .unwrap();
    queue.end(&claimed, &Outcome::Succeeded).await.unwrap();
    assert_eq!(heard(&mut listener).await, Vec::<String>::new());
    let triggers: Vec<String> = sqlx::query_scalar(
        "select distinct tgrelid::regclass::text from pg_trigger join pg_proc on pg_proc.oid = tgfoid
        where not tgisinternal and prosrc like '%pg_notify%' and (tgrelid::regclass::text in ('job_steps', 'job_evaluations', 'job_events', 'workers', 'checkpoints')
            or tgrelid = 'work'::regclass and tgqual is null)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(triggers, Vec::<String>::new());
}
