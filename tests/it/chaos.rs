//! Short jobs under faults in workers, trainers and Postgres: none is lost, none is stuck, none
//! ends twice, and each ends with the weights of the same job undisturbed. The short form runs with
//! the others; `make chaos` runs the long one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    attempts::weights,
    data,
    postgres::invariants,
    process::{Process, is_alive},
    service::Service,
};

const WORKERS: usize = 3;
/// How long what was stopped stays stopped: from well within a lease to well past it.
const FREEZE_MS: std::ops::Range<u64> = 200..4_000;
/// Jobs that wait or run while signals fly.
const ALIVE: usize = 8;
/// After the last signal, with all workers up: a job that has not ended by then is stuck.
const SETTLE: Duration = Duration::from_secs(600);
const TIMES: [&str; 14] = [
    // The injected faults make jobs fail, not the workers.
    "--quarantine-after",
    "1000",
    "--lease-ms",
    "2000",
    "--heartbeat-ms",
    "400",
    "--reap-ms",
    "300",
    "--grace-ms",
    "5000",
    "--stall-ms",
    "60000",
    "--start-ms",
    "60000",
];

/// A fault that is injected into processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    WorkerKilled,
    WorkerTerminated,
    WorkerStopped,
    TrainerKilled,
    TrainerStopped,
    /// Its worker decides when it stops: no harm.
    TrainerTerminated,
    PostgresKilled,
    /// With all its connections.
    PostgresStopped,
    /// The process of one connection, or one that serves all.
    ConnectionTerminated,
}

/// Faults that cost least to recover from come more often, so that there are more of them.
const FAULTS: [Fault; 14] = [
    Fault::WorkerKilled,
    Fault::WorkerKilled,
    Fault::WorkerTerminated,
    Fault::WorkerTerminated,
    Fault::WorkerStopped,
    Fault::TrainerKilled,
    Fault::TrainerKilled,
    Fault::TrainerKilled,
    Fault::TrainerStopped,
    Fault::TrainerTerminated,
    Fault::PostgresKilled,
    Fault::PostgresStopped,
    Fault::ConnectionTerminated,
    Fault::ConnectionTerminated,
];

/// A process that gets SIGCONT when its time comes.
struct Frozen {
    pid: i32,
    until: Instant,
}

struct ChaosRun {
    service: Service,
    file: Value,
    workers: Vec<Process>,
    started: usize,
    frozen: Vec<Frozen>,
    dice: SmallRng,
    faults: BTreeMap<Fault, usize>,
    /// Each job's id, and its kind.
    jobs: Vec<(String, usize)>,
}

/// The kinds of jobs: what differs between them is what a resume has to restore.
fn kinds() -> Vec<Value> {
    let hyperparameters = |optimizer: &str, epochs: u32| json!({"optimizer": optimizer, "n_epochs": epochs, "batch_size": 4, "learning_rate": 0.001});
    let kind = |freeze: Value, optimizer: &str, epochs: u32| {
        json!({
            "freeze": freeze, "head": {"layers": [{"dropout": 0.2}], "init": "zero"},
            "hyperparameters": hyperparameters(optimizer, epochs), "early_stopping": {"metric": "valid_loss", "patience": 100},
            "checkpoint_every_seconds": 1,
        })
    };
    let mut averaged = kind(json!({"all_but_last_stages": 2}), "nesterov", 6);
    averaged["hyperparameters"]["ema_decay"] = json!(0.9);
    vec![
        kind(json!("all"), "adamw", 60),
        kind(json!({"all_but_last_stages": 1}), "sgd", 6),
        kind(json!({"all_but_last_stages": 3}), "adamw", 6),
        averaged,
        kind(
            json!({"schedule": [{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 2, "freeze": {"all_but_last_stages": 1}}]}),
            "adamw",
            5,
        ),
    ]
}

impl ChaosRun {
    async fn start(seed: u64) -> Self {
        let service = Service::start().await;
        let first = service.worker("worker-0", &TIMES);
        let weights = service
            .upload("lite0.pth", "weights", data::lite0_weights())
            .await
            .ok();
        let base = json!({
            "id": "small", "architecture": "tf_efficientnet_lite0", "weights": {"file": weights["id"]},
            "preprocessing": {"input_size": 64, "crop_fraction": 0.875, "interpolation": "bicubic",
                "mean": [0.498, 0.498, 0.498], "std": [0.502, 0.502, 0.502]},
        });
        service.post("/v1/base_models", &base).await.ok();
        let file = service
            .dataset(data::clipart_subset(&["animals", "food"], 10))
            .await;
        // A chaos run kills a job more often than any budget allows.
        sqlx::query("alter table jobs alter max_crashes set default 100000, alter max_failures set default 100000")
            .execute(&service.pool().await)
            .await
            .unwrap();
        let mut run = Self {
            service,
            file,
            workers: vec![first],
            started: 1,
            frozen: Vec::new(),
            dice: SmallRng::seed_from_u64(seed),
            faults: BTreeMap::new(),
            jobs: Vec::new(),
        };
        while run.workers.len() < WORKERS {
            let worker = run.new_worker();
            run.workers.push(worker);
        }
        run
    }

    fn new_worker(&mut self) -> Process {
        let name = format!("worker-{}", self.started);
        self.started += 1;
        self.service.worker(&name, &TIMES)
    }

    /// Posts a job of this kind. The key makes it one job, however often the answer is lost.
    async fn submit(&mut self, kind: usize) -> Value {
        let body = json!({
            "model": "small", "training_file": self.file["id"], "seed": 7,
            "method": {"type": "transfer", "transfer": kinds()[kind]},
        });
        let key = format!("job-{}", self.jobs.len());
        for _ in 0..600 {
            let answer = self
                .service
                .send(Method::POST, "/v1/fine_tuning/jobs", |request| {
                    request.header("idempotency-key", &key).json(&body)
                })
                .await;
            if answer.status.is_success() {
                let job = answer.json();
                let id = job["id"].as_str().unwrap().to_owned();
                self.jobs.push((id, kind));
                return job;
            }
            assert!(answer.status.is_server_error(), "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no job can be posted:\n{}", self.service.server.log());
    }

    /// How many jobs have not ended; `None` while the service cannot say.
    async fn alive(&self) -> Option<usize> {
        let mut alive = 0;
        for status in ["validating_files", "queued", "running"] {
            let path = format!("/v1/fine_tuning/jobs?limit=100&status={status}");
            let answer = self.service.get(&path).await;
            if !answer.status.is_success() {
                return None;
            }
            alive += answer.json()["data"].as_array().unwrap().len();
        }
        Some(alive)
    }

    fn pick(&mut self, count: usize) -> usize {
        self.dice.random_range(0..count)
    }

    fn freeze(&mut self, pid: i32) -> bool {
        if kill(Pid::from_raw(pid), Signal::SIGSTOP).is_err() {
            return false;
        }
        let for_ms = self.dice.random_range(FREEZE_MS);
        let until = Instant::now() + Duration::from_millis(for_ms);
        self.frozen.push(Frozen { pid, until });
        true
    }

    /// Wakes what has been stopped for long enough.
    fn unfreeze(&mut self, all: bool) {
        let now = Instant::now();
        self.frozen.retain(|frozen| {
            let due = all || frozen.until <= now;
            if due {
                // It may have been killed meanwhile.
                let _ = kill(Pid::from_raw(frozen.pid), Signal::SIGCONT);
            }
            !due
        });
    }

    fn replace_worker(&mut self, place: usize) {
        let worker = self.new_worker();
        // The old one is killed, if it is not gone, and waited for.
        self.workers[place] = worker;
    }

    /// Strikes once. `false` where there was nothing to strike.
    fn strike(&mut self) -> bool {
        let place = self.pick(FAULTS.len());
        let fault = FAULTS[place];
        let place = self.pick(WORKERS);
        let worker = self.workers[place].pid();
        let struck = match fault {
            Fault::WorkerKilled => {
                self.workers[place].signal(Signal::SIGKILL);
                self.replace_worker(place);
                true
            }
            Fault::WorkerTerminated => {
                let _ = kill(Pid::from_raw(worker), Signal::SIGCONT);
                self.workers[place].signal(Signal::SIGTERM);
                let ended = self.workers[place].wait(Duration::from_secs(30));
                assert!(ended.success(), "{}", self.workers[place].log());
                self.replace_worker(place);
                true
            }
            Fault::WorkerStopped => self.freeze(worker),
            Fault::TrainerKilled | Fault::TrainerStopped | Fault::TrainerTerminated => {
                let children = self.workers[place].descendants();
                if children.is_empty() {
                    return false;
                }
                let child = children[self.pick(children.len())];
                match fault {
                    Fault::TrainerStopped => self.freeze(child),
                    Fault::TrainerTerminated => signal(child, Signal::SIGTERM),
                    _ => signal(child, Signal::SIGKILL),
                }
            }
            Fault::PostgresStopped => {
                let all = self.service.postgres_processes();
                let for_ms = self.dice.random_range(FREEZE_MS);
                let stopped = all
                    .iter()
                    .filter(|&&pid| signal(pid, Signal::SIGSTOP))
                    .count();
                // Nothing else happens meanwhile: a worker that is told to end waits for its last
                // write.
                sleep(Duration::from_millis(for_ms));
                for pid in all {
                    signal(pid, Signal::SIGCONT);
                }
                stopped > 0
            }
            Fault::ConnectionTerminated => {
                let children = self.service.postgres_processes().split_off(1);
                let place = self.pick(children.len().max(1));
                children
                    .get(place)
                    .is_some_and(|&child| signal(child, Signal::SIGTERM))
            }
            Fault::PostgresKilled => {
                self.service.kill_postgres();
                self.service.restart_postgres();
                true
            }
        };
        if struck {
            *self.faults.entry(fault).or_default() += 1;
        }
        struck
    }

    /// Waits until every job has ended.
    async fn finish_all(&mut self) -> Vec<Value> {
        self.unfreeze(true);
        let start = Instant::now();
        let mut ended = Vec::new();
        for (id, _) in &self.jobs {
            let job = loop {
                let path = format!("/v1/fine_tuning/jobs/{id}?wait=5&until=terminal");
                let job = self.service.get(&path).await.ok();
                if job["is_terminal"] == true {
                    break job;
                }
                assert!(start.elapsed() < SETTLE, "stuck: {job}");
            };
            ended.push(job);
        }
        ended
    }
}

fn signal(pid: i32, signal: Signal) -> bool {
    is_alive(pid) && kill(Pid::from_raw(pid), signal).is_ok()
}

async fn hash_of(service: &Service, job: &Value) -> String {
    hex::encode(Sha256::digest(weights(service, job).await))
}

/// A number that `make chaos` may set.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_loses_no_job_and_changes_no_weight() {
    let faults = setting("REHEAD_CHAOS_KILLS", 50);
    let least_jobs = setting("REHEAD_CHAOS_JOBS", 12);
    let seed = setting("REHEAD_CHAOS_SEED", 1) as u64;
    let mut run = ChaosRun::start(seed).await;

    // Undisturbed.
    let count = kinds().len();
    for kind in 0..count {
        run.submit(kind).await;
    }
    let mut expected = Vec::new();
    for job in run.finish_all().await {
        expected.push(hash_of(&run.service, &job).await);
    }

    // Disturbed.
    let begun = Instant::now();
    let mut struck = 0;
    while struck < faults || run.jobs.len() < count + least_jobs {
        if run.alive().await.is_some_and(|alive| alive < ALIVE) {
            let kind = run.jobs.len() % count;
            run.submit(kind).await;
        }
        run.unfreeze(false);
        if struck < faults {
            struck += usize::from(run.strike());
        }
        let pause = Duration::from_millis(run.dice.random_range(100..1_200));
        tokio::time::sleep(pause).await;
    }
    let took = begun.elapsed();
    let ended = run.finish_all().await;

    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (job, (id, kind)) in ended.iter().zip(&run.jobs) {
        assert_eq!(job["status"], "succeeded", "{job}");
        for attempt in job["attempts"].as_array().unwrap() {
            let outcome = attempt["outcome"].as_str().unwrap_or("open").to_owned();
            *attempts.entry(outcome).or_default() += 1;
        }
        if hash_of(&run.service, job).await != expected[*kind] {
            wrong.push(format!("{id} (kind {kind})"));
        }
    }
    let pool = run.service.pool().await;
    let lost = run.jobs.len() - ended.len();
    let twice: i64 = sqlx::query_scalar(
        "select count(*) from (select from job_events where kind in ('succeeded', 'failed', 'cancelled')
            group by job_id having count(*) <> 1) ends",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    println!(
        "{}| lost, ended twice | {lost}, {twice} |\n| other weights | {} |",
        table(&run, took, &attempts),
        wrong.len()
    );
    assert_eq!((lost, twice), (0, 0));
    invariants(&pool).await;
    assert!(
        wrong.is_empty(),
        "other weights than undisturbed: {wrong:?}"
    );
}

fn table(run: &ChaosRun, took: Duration, attempts: &BTreeMap<String, usize>) -> String {
    let total: usize = run.faults.values().sum();
    let mut text = format!(
        "\n| chaos | |\n|---|---|\n| signals in {} s | {total} |\n",
        took.as_secs()
    );
    for (fault, count) in &run.faults {
        let _ = writeln!(text, "| {fault:?} | {count} |");
    }
    let _ = writeln!(text, "| jobs | {} |", run.jobs.len());
    for (outcome, count) in attempts {
        let _ = writeln!(text, "| attempts {outcome} | {count} |");
    }
    text
}
