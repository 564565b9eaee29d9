//! A whole service for one test: private Postgres, object folder, `rehead serve`, and workers as
//! the test likes.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rehead::{domain::role::Role, keys::Grant};
use rehead_test_support::weights;
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    data, openapi, postgres,
    process::{Process, trainer},
};

/// Ended with everything it started when dropped. The order of the fields is the order of their
/// ends.
pub(crate) struct Service {
    pub(crate) server: Process,
    pub(crate) url: String,
    postgres: Option<rehead::postgres::Postgres>,
    pub(crate) database_url: String,
    pub(crate) dir: TempDir,
    client: reqwest::Client,
    /// Goes with every request: that of one tenant, once there are keys.
    pub(crate) key: Option<String>,
}

/// An answer, already checked against openapi.yaml.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body of an answer that must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self.json()
    }

    /// Asserts the status and code of an error, and that it says something; gives its message.
    #[track_caller]
    pub(crate) fn error(self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let body = self.json();
        let error = &body["error"];
        let details: Vec<&str> = error["details"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["code"].as_str())
            .collect();
        assert!(
            error["code"] == code || details.contains(&code),
            "not `{code}`: {body}"
        );
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.len() > 10, "the message helps nobody: {body}");
        error.to_string()
    }
}

/// A job's body; `transfer` is its `method.transfer`.
pub(crate) fn job_body(model: &str, training_file: &Value, transfer: &Value) -> Value {
    json!({
        "model": model, "training_file": training_file["id"], "seed": 7,
        "method": {"type": "transfer", "transfer": transfer},
    })
}

/// Starts `rehead serve`; gives its URL too.
fn serve(dir: &Path, database_url: &str, arguments: &[&str]) -> (Process, String) {
    let (objects, scratch) = (dir.join("objects"), dir.join("scratch"));
    let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
    all.extend(["--database-url", database_url]);
    all.extend(["--objects", objects.to_str().unwrap()]);
    all.extend(["--scratch", scratch.to_str().unwrap()]);
    all.extend(arguments);
    let mut server = Process::rehead("serve", dir, &all);
    let url = format!("http://{}", server.wait_for("listening on http://"));
    (server, url)
}

impl Drop for Service {
    fn drop(&mut self) {
        postgres::check_at_end(self.database_url.parse().unwrap(), Some(&self.objects()));
    }
}

impl Service {
    /// A service without a worker.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A service without a worker, with further arguments of `rehead serve`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        trainer();
        let dir = tempfile::Builder::new()
            .prefix("rehead-it-")
            .tempdir()
            .unwrap();
        let postgres = postgres::start(dir.path());
        let database_url = postgres.url();
        let mut migrate = Process::rehead(
            "migrate",
            dir.path(),
            &["migrate", "--database-url", &database_url],
        );
        assert!(
            migrate.wait(Duration::from_secs(60)).success(),
            "{}",
            migrate.log()
        );
        let (server, url) = serve(dir.path(), &database_url, arguments);
        Self {
            server,
            url,
            postgres: Some(postgres),
            database_url,
            dir,
            client: reqwest::Client::new(),
            key: None,
        }
    }

    /// Ends the server, and starts another on the same rows and objects.
    pub(crate) fn restart_server(&mut self) {
        kill(Pid::from_raw(self.server.pid()), Signal::SIGKILL).unwrap();
        self.server.wait(Duration::from_secs(10));
        std::fs::remove_file(self.dir.path().join("serve.log")).unwrap();
        (self.server, self.url) = serve(self.dir.path(), &self.database_url, &[]);
    }

    /// Starts a worker, with a one-thread trainer and a quick poll where `arguments` do not say
    /// otherwise; `name` tells it from the test's other workers.
    pub(crate) fn worker(&self, name: &str, arguments: &[&str]) -> Process {
        let rehead = Path::new(env!("CARGO_BIN_EXE_rehead"));
        self.worker_of(rehead, name, arguments)
    }

    /// As `worker`, with a `rehead` of one's own, and so with the `rehead-trainer` beside it.
    pub(crate) fn worker_of(&self, rehead: &Path, name: &str, arguments: &[&str]) -> Process {
        let objects = self.objects();
        let work_dir = self.dir.path().join(name);
        let mut all = vec![
            "work",
            "--database-url",
            &self.database_url,
            "--objects",
            objects.to_str().unwrap(),
        ];
        all.extend(["--work-dir", work_dir.to_str().unwrap()]);
        if !arguments.contains(&"--poll-ms") {
            all.extend(["--poll-ms", "200"]);
        }
        if !arguments.contains(&"--threads") {
            all.extend(["--threads", "1"]);
        }
        all.extend(arguments);
        Process::start(name, self.dir.path(), rehead, &all)
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Postgres' own process, then its children.
    pub(crate) fn postgres_processes(&self) -> Vec<i32> {
        postgres::processes(self.postgres.as_ref().unwrap())
    }

    /// Kills Postgres and the processes of all its connections.
    pub(crate) fn kill_postgres(&self) {
        postgres::kill_server(self.postgres.as_ref().unwrap());
    }

    /// Starts Postgres again on the same data, under the same URL.
    pub(crate) fn restart_postgres(&mut self) {
        // The old one must be gone, not only dead, or the new one takes it for alive.
        self.postgres = None;
        self.postgres = Some(postgres::start(self.dir.path()));
    }

    pub(crate) async fn pool(&self) -> sqlx::PgPool {
        rehead::db::connect(&self.database_url, 4).await.unwrap()
    }

    /// Creates a key, and its tenant; the service is closed from then on.
    pub(crate) async fn new_key(&self, tenant: &str, role: Role) -> String {
        let grant = Grant {
            tenant: tenant.to_owned(),
            name: None,
            role,
            expires_at: None,
            requests_per_minute: None,
        };
        let (_, key) = grant.create(&self.pool().await).await.unwrap();
        // The service is told of it, and asks by itself once a second.
        let closed = async || {
            let request = self.client.get(format!("{}/v1/files", self.url));
            request.send().await.unwrap().status() == StatusCode::UNAUTHORIZED
        };
        let started = Instant::now();
        while !closed().await {
            assert!(started.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        key
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = build(request).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        openapi::check(&method, path, status, &headers, &body);
        Answer {
            status,
            headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, |request| request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Uploads bytes as a file and answers at once.
    pub(crate) async fn upload(&self, name: &str, purpose: &str, bytes: Vec<u8>) -> Answer {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new()
            .text("purpose", purpose.to_owned())
            .part("file", part);
        self.send(Method::POST, "/v1/files", |request| request.multipart(form))
            .await
    }

    /// Uploads a data set and waits until a worker has validated it, for better or worse.
    pub(crate) async fn dataset(&self, bytes: Vec<u8>) -> Value {
        let file = self.upload("data.zip", "fine-tune", bytes).await.ok();
        let id = file["id"].as_str().unwrap();
        self.get(&format!("/v1/files/{id}?wait=60&until=processed"))
            .await
            .ok()
    }

    /// Registers the real EfficientNet-Lite0 from its published file. Needs a worker.
    pub(crate) async fn lite0(&self) -> Value {
        let file = self
            .upload("lite0.pth", "weights", data::lite0_weights())
            .await
            .ok();
        let body = json!({
            "id": "efficientnet_lite0",
            "architecture": "tf_efficientnet_lite0",
            "weights": {"file": file["id"]},
            "source_task": {"name": "image classification", "classes": 1000, "dataset": "ImageNet-1k"},
        });
        self.post("/v1/base_models", &body).await.ok()
    }

    /// Registers weights as the base model of their architecture's name.
    pub(crate) async fn base_model(&self, architecture: &str, weights: Vec<u8>) -> Value {
        let file = self.upload("weights", "weights", weights).await.ok();
        let body = json!({
            "id": architecture, "architecture": architecture, "weights": {"file": file["id"]},
        });
        self.post("/v1/base_models", &body).await.ok()
    }

    /// Weights of the same shapes as a base model's, which never saw an image.
    pub(crate) async fn untrained_weights(&self, model: &str) -> Vec<u8> {
        let path = format!("/v1/models/{model}/layers");
        let layers = self.get(&path).await.ok();
        let tensors = layers["tensors"].as_array().unwrap().iter();
        let shape = |tensor: &Value| serde_json::from_value(tensor["shape"].clone()).unwrap();
        let name = |tensor: &Value| tensor["name"].as_str().unwrap().to_owned();
        let shapes = tensors.map(|tensor| (name(tensor), shape(tensor)));
        weights::safetensors(&shapes.collect(), weights::untrained)
    }

    /// Submits a job on the real Lite0; `transfer` is the body's `method.transfer`.
    pub(crate) async fn job(&self, training_file: &Value, transfer: &Value) -> Value {
        let body = job_body("efficientnet_lite0", training_file, transfer);
        self.post("/v1/fine_tuning/jobs", &body).await.ok()
    }

    pub(crate) fn path(&self, job: &Value) -> String {
        format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap())
    }

    /// A part of what is recorded of a job: its `/report`, its `/metrics`.
    pub(crate) async fn part(&self, job: &Value, part: &str) -> Value {
        let path = format!("{}{part}", self.path(job));
        self.get(&path).await.ok()
    }

    /// Prediction of a model for an image.
    pub(crate) async fn predict(&self, model: &str, image: Vec<u8>) -> Value {
        let part = reqwest::multipart::Part::bytes(image).file_name("image.png");
        let form = reqwest::multipart::Form::new().part("image", part);
        let path = format!("/v1/models/{model}/predict");
        let send = self.send(Method::POST, &path, |request| request.multipart(form));
        send.await.ok()["data"][0].clone()
    }

    /// Asserts that a job's best checkpoint predicts as its model does, but for what was fitted
    /// after training: temperature and thresholds.
    pub(crate) async fn checkpoint_predicts_as_the_model(&self, job: &Value, image: Vec<u8>) {
        let of = async |id: &Value| self.predict(id.as_str().unwrap(), image.clone()).await;
        let by_model = of(&job["fine_tuned_model"]).await;
        let by_checkpoint = of(&job["best_checkpoint"]).await;
        assert_eq!(by_model["label"], by_checkpoint["label"]);
        let place = format!("{by_model}\n{by_checkpoint}");
        if let Some(value) = by_model["value"].as_f64() {
            let found = by_checkpoint["value"].as_f64().unwrap();
            assert!((value - found).abs() <= 1e-4 * value.abs(), "{place}");
            return;
        }
        let probabilities = |answer: &Value| -> Vec<f64> {
            let all = answer["probabilities"].as_object().unwrap().values();
            all.map(|one| one.as_f64().unwrap()).collect()
        };
        let (model, checkpoint) = (probabilities(&by_model), probabilities(&by_checkpoint));
        assert_eq!(model.len(), checkpoint.len(), "{place}");
        let pairs = || model.iter().zip(&checkpoint);
        if by_model["labels"].is_array() {
            assert!(pairs().all(|(a, b)| (a - b).abs() < 1e-5), "{place}");
        } else {
            // One temperature for all: logits, up to a shift, are in one proportion.
            let against_first = |all: &[f64], at: usize| (all[at] / all[0]).ln();
            let last = model.len() - 1;
            let factor = against_first(&checkpoint, last) / against_first(&model, last);
            for at in 1..model.len() {
                let expected = factor * against_first(&model, at);
                let found = against_first(&checkpoint, at);
                assert!(
                    (expected - found).abs() < 1e-2 * (1.0 + found.abs()),
                    "{place}"
                );
            }
        }
    }

    /// `cancel`, `pause`, `resume` or `stop`.
    pub(crate) async fn ask(&self, job: &Value, control: &str) -> Answer {
        let path = format!("{}/{control}", self.path(job));
        self.post(&path, &json!({})).await
    }

    /// Waits until a job has ended.
    pub(crate) async fn ended(&self, job: &Value) -> Value {
        let id = job["id"].as_str().unwrap();
        for _ in 0..10 {
            let job = self
                .get(&format!("/v1/fine_tuning/jobs/{id}?wait=30&until=terminal"))
                .await
                .ok();
            if job["is_terminal"] == true {
                return job;
            }
        }
        panic!("job {id} does not end:\n{}", self.server.log());
    }

    /// Asks again and again until the answer is as wanted, at most for a minute.
    pub(crate) async fn until(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        for _ in 0..1_200 {
            let answer = self.get(path).await.ok();
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {what} at {path}:\n{}", self.server.log());
    }

    /// Waits until the job's `n`th attempt has begun.
    pub(crate) async fn runs_attempt(&self, job: &Value, n: usize) {
        let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
        self.until(&path, &format!("attempt {n}"), |job| {
            job["attempts"].as_array().unwrap().len() >= n
        })
        .await;
    }

    /// All that is recorded of a job: itself, its events, metrics and checkpoints.
    pub(crate) async fn history(&self, job: &Value) -> Vec<Value> {
        let mut history = Vec::new();
        for part in ["", "/events?limit=100", "/metrics", "/checkpoints"] {
            history.push(self.part(job, part).await);
        }
        history
    }

    /// Waits until a job trains, and its first checkpoint is stored.
    pub(crate) async fn has_checkpoint(&self, job: &Value) {
        let path = format!(
            "/v1/fine_tuning/jobs/{}/checkpoints",
            job["id"].as_str().unwrap()
        );
        self.until(&path, "checkpoint", |checkpoints| {
            !checkpoints["data"].as_array().unwrap().is_empty()
        })
        .await;
    }
}
