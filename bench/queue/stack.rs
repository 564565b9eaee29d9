//! Postgres with its usual durability, `rehead serve`, and workers.

use std::{path::PathBuf, process::Command, time::Duration};

use rehead::{
    db,
    domain::role::Role,
    keys::Grant,
    postgres::{Postgres, StartOptions},
};
use rehead_test_support::data;
use reqwest::{Method, RequestBuilder, header::ETAG};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::process::Process;

pub(crate) struct Stack {
    _server: Process,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) database_url: String,
    /// A key of an admin of the tenant that everything belongs to.
    pub(crate) key: String,
    client: reqwest::Client,
    /// A validated data set's id.
    file: String,
    workers: usize,
    _postgres: Postgres,
    dir: tempfile::TempDir,
}

impl Stack {
    /// With Lite0 at 64 pixels as the base model `small`, a small data set, and no worker.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rehead-bench-")
            .tempdir()
            .unwrap();
        // The server's user passes through, when root runs this.
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(dir.path(), passable).unwrap();
        let postgres = Postgres::start(&StartOptions {
            bin: None,
            dir: dir.path().join("postgres"),
            fsync: true,
        })
        .unwrap();
        let database_url = postgres.url();
        let pool = db::connect(&database_url, 40).await.unwrap();
        db::migrate(&pool).await.unwrap();
        let (objects, scratch) = (path(&dir, "objects"), path(&dir, "scratch"));
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &database_url,
            "--objects",
            &objects,
            "--scratch",
            &scratch,
            "--requests-per-minute",
            "1000000000",
        ];
        let mut server = Process::rehead("serve", dir.path(), &arguments);
        let url = format!("http://{}/v1", server.wait_for("listening on http://"));
        let grant = Grant {
            tenant: "default".to_owned(),
            name: None,
            role: Role::Admin,
            expires_at: None,
            requests_per_minute: None,
        };
        let mut stack = Self {
            _server: server,
            url,
            database_url,
            key: grant.create(&pool).await.unwrap().1,
            client: reqwest::Client::new(),
            file: String::new(),
            workers: 0,
            pool,
            _postgres: postgres,
            dir,
        };
        stack.bring_material().await;
        stack
    }

    async fn bring_material(&mut self) {
        let worker = self.worker(&[]);
        let weights = self.upload("weights", data::lite0_weights()).await;
        let base = json!({
            "id": "small", "architecture": "tf_efficientnet_lite0", "weights": {"file": weights},
            "preprocessing": {"input_size": 64, "crop_fraction": 0.875, "interpolation": "bicubic",
                "mean": [0.498, 0.498, 0.498], "std": [0.502, 0.502, 0.502]},
        });
        self.post("/base_models", &base).await;
        let images = data::clipart_subset(&["animals", "food"], 10);
        self.file = self.upload("fine-tune", images).await;
        let file = format!("/files/{}?wait=60&until=processed", self.file);
        assert_eq!(self.get(&file).await["status"], "processed");
        drop(worker);
    }

    /// Starts a worker with the default times of the queue.
    pub(crate) fn worker(&mut self, arguments: &[&str]) -> Process {
        self.workers += 1;
        let name = format!("worker-{}", self.workers);
        let (objects, work) = (path(&self.dir, "objects"), path(&self.dir, &name));
        let mut all = vec![
            "work",
            "--database-url",
            &self.database_url,
            "--objects",
            &objects,
            "--work-dir",
            &work,
            "--threads",
            "1",
        ];
        all.extend(arguments);
        Process::rehead(&name, self.dir.path(), &all)
    }

    /// Posts a job whose last stage trains for so many epochs of four steps and is saved each
    /// second, and gives its id.
    pub(crate) async fn job(&self, epochs: u32) -> String {
        let body = json!({
            "model": "small", "training_file": self.file, "seed": 7,
            "method": {"type": "transfer", "transfer": {
                "freeze": {"all_but_last_stages": 1}, "head": {"init": "zero"}, "checkpoint_every_seconds": 1,
                "hyperparameters": {"n_epochs": epochs, "batch_size": 4, "learning_rate": 0.001},
                "early_stopping": {"patience": 10_000},
            }},
        });
        let job = self.post("/fine_tuning/jobs", &body).await;
        job["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ended(&self, job: &str) -> Value {
        loop {
            let path = format!("/fine_tuning/jobs/{job}?wait=30&until=terminal");
            let job = self.get(&path).await;
            if job["is_terminal"] == true {
                return job;
            }
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        answer(self.request(Method::GET, path)).await
    }

    /// The entity tag of what is at `path`.
    pub(crate) async fn etag(&self, path: &str) -> String {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        answer.headers()[ETAG].to_str().unwrap().to_owned()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.key)
    }

    async fn upload(&self, purpose: &str, bytes: Vec<u8>) -> String {
        let part = reqwest::multipart::Part::bytes(bytes).file_name("upload");
        let form = reqwest::multipart::Form::new()
            .text("purpose", purpose.to_owned())
            .part("file", part);
        let file = answer(self.request(Method::POST, "/files").multipart(form)).await;
        file["id"].as_str().unwrap().to_owned()
    }

    /// Prints the settings that the figures depend on.
    pub(crate) async fn print_settings(&self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        println!("cores: {cores}, load average before: {load}");
        for name in [
            "server_version",
            "fsync",
            "synchronous_commit",
            "shared_buffers",
            "wal_sync_method",
        ] {
            let value: String = sqlx::query_scalar("select current_setting($1)")
                .bind(name)
                .fetch_one(&self.pool)
                .await
                .unwrap();
            println!("{name}: {value}");
        }
        let file = self.dir.path().join("fsync-test");
        let test = Command::new("pg_test_fsync")
            .args(["-s", "1", "-f"])
            .arg(file)
            .env("PATH", debian_programs())
            .output();
        let Ok(test) = test else {
            println!("pg_test_fsync: not installed (Debian's package postgresql has it)");
            return;
        };
        let said = String::from_utf8_lossy(&test.stdout).into_owned();
        let line = said
            .lines()
            .find(|line| line.trim().starts_with("fdatasync"));
        println!(
            "pg_test_fsync, 8 kB: {}",
            line.unwrap_or("said nothing of fdatasync").trim()
        );
    }
}

async fn answer(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

/// `PATH`, and where Debian keeps Postgres' programs.
fn debian_programs() -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let folders: Vec<PathBuf> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    let mut all: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    all.push(std::env::var("PATH").unwrap_or_default());
    all.join(":")
}

/// Median and 99th percentile (nearest rank) of durations in milliseconds.
pub(crate) fn quantiles(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() as f64 * share).ceil() as usize).clamp(1, all.len()) - 1];
    if all.is_empty() {
        return "not measured".to_owned();
    }
    format!(
        "p50 {:.0} ms, p99 {:.0} ms ({} times)",
        at(0.5),
        at(0.99),
        all.len()
    )
}

pub(crate) async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
