//! Deletion removes the objects too; garbage collection finds and removes orphans, and nothing
//! else.

use std::{path::Path, time::Duration};

use rehead::{
    db::{
        self, exports, jobs,
        metrics::Evaluation,
        queue::{self, Claimed, Records},
    },
    domain::{export::NetworkFormat, id::JobId, job::Outcome, progress::Step},
    garbage_collection::{self, Finding},
    objects::Objects,
};

use crate::support::{
    attempts::{long_job, material},
    data::files_below,
    postgres::invariants,
    process::Process,
    queue::{HOUR, Queue, checkpoint, metrics, steps},
    service::Service,
};

/// Objects of a test, and what a look at them finds.
struct Store {
    folder: tempfile::TempDir,
    objects: Objects,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().to_str().unwrap()).unwrap();
        Self { folder, objects }
    }

    /// Writes one object below a prefix.
    fn put(&self, prefix: &str) {
        let unit = self.folder.path().join(prefix);
        std::fs::create_dir_all(&unit).unwrap();
        std::fs::write(unit.join("manifest.json"), "0123456789").unwrap();
    }

    fn has(&self, prefix: &str) -> bool {
        self.folder.path().join(prefix).exists()
    }

    async fn look(&self, queue: &Queue, grace: Duration) -> Vec<Finding> {
        garbage_collection::find(queue.pool(), &self.objects, grace)
            .await
            .unwrap()
    }

    async fn sweep(&self, queue: &Queue, grace: Duration) {
        garbage_collection::sweep(queue.pool(), &self.objects, grace)
            .await
            .unwrap();
    }
}

/// The rows that a queue starts with have no objects here.
async fn with_inputs(store: &Store, queue: &Queue) {
    for (_, prefix) in db::retention::referenced(queue.pool(), Duration::ZERO)
        .await
        .unwrap()
    {
        store.put(&prefix);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_files_go_once_no_job_needs_them() {
    let queue = Queue::start().await;
    let store = Store::new();
    with_inputs(&store, &queue).await;
    let prefix = format!("files/{}/", queue.file.0.simple());
    let job = queue.job().await;
    queue.run("update files set expires_at = now()").await;
    store.sweep(&queue, HOUR).await;
    assert!(store.has(&prefix), "a job needs it");

    let claimed = queue.claim().await.unwrap();
    assert_eq!(claimed.job, job);
    queue.end(&claimed, &Outcome::Cancelled).await;
    let found = store.look(&queue, HOUR).await;
    assert!(
        matches!(found[..], [Finding::ExpiredFile { .. }]),
        "{found:?}"
    );
    store.sweep(&queue, HOUR).await;
    assert!(!store.has(&prefix));
    assert_eq!(store.look(&queue, HOUR).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_removed_after_their_grace() {
    let queue = Queue::start().await;
    let store = Store::new();
    with_inputs(&store, &queue).await;
    assert_eq!(store.look(&queue, Duration::ZERO).await, []);

    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    let hex = job.0.simple().to_string();
    let underway = [
        format!("checkpoints/{hex}/7-{}/", claimed.token),
        format!("bundles/{hex}/{}/", claimed.token),
    ];
    let dead = [
        format!("checkpoints/{hex}/7-{}/", claimed.token + 9),
        "bundles/0193a5c0000070008000123456789abc/1/".to_owned(),
        "files/0193a5c0000070008000123456789abc/".to_owned(),
        format!("models/{}/", "00".repeat(32)),
        "scripts/0193a5c0000070008000123456789abc/".to_owned(),
    ];
    for prefix in underway.iter().chain(&dead) {
        store.put(prefix);
    }
    store.put("elsewhere/x/y/");

    assert_eq!(store.look(&queue, HOUR).await, [], "within the grace");
    let findings = store.look(&queue, Duration::ZERO).await;
    let mut found: Vec<&str> = findings
        .iter()
        .map(|finding| match finding {
            Finding::Orphan {
                prefix, bytes: 10, ..
            } => prefix.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_unstable();
    let mut expected: Vec<&str> = dead.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(dead.iter().all(|prefix| store.has(prefix)), "only looked");

    store.sweep(&queue, Duration::ZERO).await;
    assert!(!dead.iter().any(|prefix| store.has(prefix)));
    assert!(underway.iter().all(|prefix| store.has(prefix)) && store.has("elsewhere/x/y/"));

    // Once named by rows they stay when the attempt has ended.
    let (pool, token) = (queue.pool(), claimed.token);
    let new = checkpoint(&claimed, 7, true);
    queue::commit_checkpoint(pool, job, token, &new)
        .await
        .unwrap()
        .unwrap();
    queue.end(&claimed, &Outcome::Succeeded).await.unwrap();
    let script = exports::prefix(job);
    store.put(&script);
    store.sweep(&queue, Duration::ZERO).await;
    assert!(underway.iter().all(|prefix| store.has(prefix)) && store.has(&script));
    assert_eq!(store.look(&queue, Duration::ZERO).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_deletions_end_and_lost_checkpoints_are_marked() {
    let queue = Queue::start().await;
    let store = Store::new();
    with_inputs(&store, &queue).await;
    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    let (pool, token) = (queue.pool(), claimed.token);
    for step in 1..=5 {
        let new = checkpoint(&claimed, step, step == 2);
        store.put(&new.objects);
        queue::commit_checkpoint(pool, job, token, &new)
            .await
            .unwrap()
            .unwrap();
    }
    // The worker dies between the list and the objects.
    let superseded = db::checkpoints::supersede(pool, job, token).await.unwrap();
    assert_eq!(steps(&superseded), [1, 3], "the last two and the best stay");
    let last = checkpoint(&claimed, 5, false).objects;
    store.objects.delete_prefix(&last).await.unwrap();

    let findings = store.look(&queue, Duration::ZERO).await;
    let says: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 3, "{says:#?}");
    store.sweep(&queue, Duration::ZERO).await;
    assert_eq!(store.look(&queue, Duration::ZERO).await, []);
    for superseded in &superseded {
        assert!(!store.has(&superseded.objects));
    }
    let latest = db::checkpoints::latest(pool, job).await.unwrap().unwrap();
    assert_eq!(latest.step, 4, "the one without objects is passed over");
}

async fn table_of_steps(queue: &Queue, job: JobId) -> Vec<String> {
    let query = "select distinct tableoid::regclass::text from job_steps where job_id = $1";
    let tables = sqlx::query_scalar(query).bind(job.0);
    tables.fetch_all(queue.pool()).await.unwrap()
}

/// Claims the next job and has it take one step with an evaluation.
async fn trained(queue: &Queue) -> Claimed {
    let claimed = queue.claim().await.unwrap();
    let records = Records {
        steps: vec![Step {
            step: 1,
            epoch: 1,
            train_loss: Some(0.5),
            learning_rate: 0.1,
            samples_per_second: 1.0,
        }],
        evaluations: vec![Evaluation {
            metrics: metrics(1),
            best: true,
        }],
        ..Records::default()
    };
    let written = queue::record(queue.pool(), claimed.job, claimed.token, &records);
    assert!(written.await.unwrap());
    claimed
}

#[tokio::test]
async fn steps_go_by_the_week_and_never_those_of_a_job_that_lives() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    assert_eq!(
        db::retention::rotate_step_partitions(pool, 400)
            .await
            .unwrap(),
        0
    );
    queue.job().await;
    let first = trained(&queue).await;
    assert_eq!(table_of_steps(&queue, first.job).await, ["job_steps_first"]);

    // A server whose clock is a month ahead: its steps have a place at once, and their own table
    // once there is one.
    let mut ahead = queue.new_job();
    let id = "select first_job_id(now() + interval '30 days')";
    ahead.id = JobId(sqlx::query_scalar(id).fetch_one(pool).await.unwrap());
    jobs::create(pool, &ahead).await.unwrap();
    let early = trained(&queue).await;
    assert_eq!(early.job, ahead.id);
    assert_eq!(table_of_steps(&queue, early.job).await, ["job_steps_rest"]);
    queue
        .run("select add_job_step_weeks(now() + interval '40 days')")
        .await;
    let [table] = &table_of_steps(&queue, early.job).await[..] else {
        panic!("its step is in no table, or in two");
    };
    assert_ne!(table, "job_steps_rest");
    // Twice is once.
    queue
        .run("select add_job_step_weeks(now() + interval '40 days')")
        .await;

    // 300 days from now, of which 200 are kept.
    let later = "select drop_job_step_weeks(interval '200 days' - interval '300 days')";
    let dropped = || sqlx::query_scalar::<_, i64>(later).fetch_one(pool);
    assert_eq!(dropped().await.unwrap(), 0, "the first job lives");
    queue.end(&first, &Outcome::Succeeded).await.unwrap();
    assert!((1..=6).contains(&dropped().await.unwrap()));
    assert!(table_of_steps(&queue, first.job).await.is_empty());
    assert_eq!(table_of_steps(&queue, early.job).await.len(), 1);
    let kept = db::metrics::evaluations_after(pool, queue.tenant, first.job, None);
    assert_eq!(kept.await.unwrap().len(), 1, "evaluations stay");
    queue.end(&early, &Outcome::Succeeded).await.unwrap();
    dropped().await.unwrap();

    // Somebody still trains that week's next job, and deletes the other with what is left of it.
    queue.job().await;
    let next = trained(&queue).await;
    assert_eq!(table_of_steps(&queue, next.job).await, ["job_steps_rest"]);
    queue.end(&next, &Outcome::Succeeded).await.unwrap();
    for job in [first.job, early.job, next.job] {
        assert!(
            db::retention::forget_job(pool, queue.tenant, job)
                .await
                .unwrap()
        );
        assert!(table_of_steps(&queue, job).await.is_empty());
    }
}

fn gc(service: &Service, arguments: &[&str]) -> String {
    let objects = service.objects();
    let mut all = vec!["gc", "--database-url", &service.database_url];
    all.extend(["--objects", objects.to_str().unwrap()]);
    all.extend(arguments);
    // A log of its own for each call.
    let name = format!("gc-{}", rand::random::<u32>());
    let mut gc = Process::rehead(&name, service.dir.path(), &all);
    assert!(gc.wait(Duration::from_secs(60)).success(), "{}", gc.log());
    gc.log()
}

fn objects_below(service: &Service, folder: &str) -> Vec<String> {
    let folder = service.objects().join(Path::new(folder));
    if folder.exists() {
        files_below(&folder)
    } else {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_job_a_model_and_a_file_takes_their_objects_along() {
    let service = Service::start().await;
    let worker = service.worker("worker", &["--steps-kept", "10"]);
    let file = material(&service).await;
    let job = long_job(&service, &file, 6).await;
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    let message = service.delete(&path).await.error(409, "job_not_ended");
    assert!(message.contains("cancel"), "{message}");

    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let n_steps = ended["progress"]["n_steps"].as_u64().unwrap();
    let metrics = service.get(&format!("{path}/metrics")).await.ok();
    let steps = metrics["columns"]["step"].as_array().unwrap();
    assert!(
        n_steps > 10 && steps.len() <= 11 && steps.last().unwrap() == n_steps,
        "{n_steps} steps, kept {steps:?}"
    );
    assert!(!objects_below(&service, "checkpoints").is_empty());
    let answer = gc(&service, &["--orphan-ms", "0"]);
    assert!(
        answer.contains("\n0 items, 0 bytes removed") || answer.starts_with("0 items"),
        "{answer}"
    );

    // What is missing cannot be removed, and is not counted with what can.
    let (bundles, away) = (
        service.objects().join("bundles"),
        service.dir.path().join("away"),
    );
    std::fs::rename(&bundles, &away).unwrap();
    for arguments in [
        &["--dry-run", "--orphan-ms", "0"][..],
        &["--orphan-ms", "0"],
    ] {
        let answer = gc(&service, arguments);
        assert!(
            answer.contains("has no objects at bundles/")
                && answer.contains("\n0 items, 0 bytes ")
                && answer.contains("\n1 row(s) without objects: restore them"),
            "{answer}"
        );
    }
    std::fs::rename(&away, &bundles).unwrap();

    service.delete(&path).await.ok();
    service.get(&path).await.error(404, "not_found");
    service
        .get(&format!("{path}/events"))
        .await
        .error(404, "not_found");
    service.delete(&path).await.error(404, "not_found");
    assert_eq!(objects_below(&service, "checkpoints"), Vec::<String>::new());
    let model = ended["fine_tuned_model"].as_str().unwrap();
    service.get(&format!("/v1/models/{model}")).await.ok();
    assert!(!objects_below(&service, "bundles").is_empty());
    for format in NetworkFormat::ALL {
        let export = format!("/v1/models/{model}/export?format={format}");
        assert_eq!(service.get(&export).await.status, 200);
    }
    assert_eq!(objects_below(&service, "scripts").len(), 2);
    gc(&service, &["--orphan-ms", "0"]);
    assert_eq!(objects_below(&service, "scripts").len(), 2);

    service.delete(&format!("/v1/models/{model}")).await.ok();
    for folder in ["bundles", "scripts"] {
        assert_eq!(objects_below(&service, folder), Vec::<String>::new());
    }
    let id = file["id"].as_str().unwrap();
    let uploads = objects_below(&service, "files").len();
    service.delete(&format!("/v1/files/{id}")).await.ok();
    // Its content, pack and thumbnails.
    assert_eq!(objects_below(&service, "files").len(), uploads - 3);

    // Base weights may be another model's too: they go by the sweep.
    service.delete("/v1/models/efficientnet_lite0").await.ok();
    let weights = objects_below(&service, "models");
    assert_eq!(weights.len(), 1);
    let answer = gc(&service, &["--dry-run", "--orphan-ms", "0"]);
    assert!(
        answer.contains("bytes at models/") && answer.contains("1 item,"),
        "{answer}"
    );
    assert_eq!(objects_below(&service, "models"), weights);
    gc(&service, &["--orphan-ms", "0"]);
    assert_eq!(objects_below(&service, "models"), Vec::<String>::new());
    invariants(&service.pool().await).await;
    drop(worker);
}
