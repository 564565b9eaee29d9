//! Metrics, the access log, and the pages for operators that speak of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use rehead::telemetry::metrics::{ALL, Kind, Role};
use serde_json::{Value, json};

use crate::support::{data::clipart_subset, process::Process, service::Service};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations");
    fs::read_to_string(path.join(name)).unwrap()
}

/// A page of metrics: the value of each series, by name and labels.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(url: &str) -> Self {
        let answer = reqwest::get(format!("{url}/metrics")).await.unwrap();
        assert_eq!(answer.status(), 200);
        Self::parse(&answer.text().await.unwrap())
    }

    fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(series.collect())
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let found = self.0.get(series);
        *found.unwrap_or_else(|| panic!("no `{series}` in {:#?}", self.0))
    }

    /// The names of metrics, without the ends that a histogram's series have.
    fn names(&self) -> BTreeSet<String> {
        let names = self
            .0
            .keys()
            .map(|series| series.split('{').next().unwrap());
        names.map(|name| base(name).to_owned()).collect()
    }
}

/// The name of the metric that a series belongs to.
fn base(name: &str) -> &str {
    let ends = ["_bucket", "_sum", "_count"];
    let base = ends.iter().find_map(|end| name.strip_suffix(end));
    let of_histogram = |base: &&str| {
        ALL.iter()
            .any(|one| one.name == *base && one.kind == Kind::Histogram)
    };
    base.filter(of_histogram).unwrap_or(name)
}

/// Starts a worker that serves metrics, and answers its URL.
fn worker(service: &Service) -> (Process, String) {
    let arguments = ["--metrics-listen", "127.0.0.1:0"];
    let mut worker = service.worker("worker", &arguments);
    let address = worker.wait_for("serving metrics on ");
    let url = address.trim_end_matches("/metrics").to_owned();
    (worker, url)
}

/// A data set, a base model, a job and a prediction leave their traces in both processes, and no
/// series that is not declared.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_counted_by_server_and_worker() {
    let service = Service::start().await;
    let (_worker, url) = worker(&service);
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 8))
        .await;
    service.lite0().await;
    service
        .get("/v1/models/efficientnet_lite0?wait=60&until=imported")
        .await
        .ok();
    let transfer = json!({"freeze": "all", "hyperparameters": {"n_epochs": 2}});
    let job = service.job(&file, &transfer).await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let model = job["fine_tuned_model"].as_str().unwrap();
    let image = fs::read_dir(crate::support::data::demo().join("unseen")).unwrap();
    let image = fs::read(image.map(Result::unwrap).next().unwrap().path()).unwrap();
    service.predict(model, image).await;

    let worker = Scrape::of(&url).await;
    for (series, value) in [
        (r#"rehead_attempts_total{outcome="succeeded"}"#, 1.0),
        (r#"rehead_jobs_ended_total{status="succeeded"}"#, 1.0),
        (r#"rehead_job_start_seconds_count{attempt="first"}"#, 1.0),
        (r#"rehead_attempt_seconds_count{outcome="succeeded"}"#, 1.0),
        (r#"rehead_work_total{kind="validate",outcome="done"}"#, 1.0),
        (r#"rehead_work_total{kind="import",outcome="done"}"#, 1.0),
        (r#"rehead_slots{device="cpu"}"#, 1.0),
        (r#"rehead_slots_busy{device="cpu"}"#, 0.0),
    ] {
        assert_eq!(worker.value(series), value, "{series}");
    }
    let steps = job["progress"]["n_steps"].as_f64().unwrap();
    let trained = worker.value(r#"rehead_training_steps_total{device="cpu"}"#);
    assert_eq!(trained, steps);
    for series in [
        r#"rehead_training_samples_total{device="cpu"}"#,
        r#"rehead_device_free_bytes{device="cpu"}"#,
        r#"rehead_child_starts_total{role="warm-trainer"}"#,
        r#"rehead_disk_free_bytes{folder="work"}"#,
        r#"rehead_database_connections_max{pool="heartbeats"}"#,
        "process_resident_memory_bytes",
    ] {
        assert!(worker.value(series) > 0.0, "{series}");
    }
    let server = Scrape::of(&service.url).await;
    assert_eq!(server.value("rehead_database_up"), 1.0);
    assert_eq!(
        server.value(r#"rehead_predictions_total{outcome="predicted"}"#),
        1.0
    );
    assert_eq!(server.value("rehead_prediction_seconds_count"), 1.0);
    // This scrape is one.
    assert_eq!(server.value("rehead_http_requests_in_flight"), 1.0);
    let uploaded = server.value("rehead_uploaded_bytes_total");
    assert!(server.value("rehead_http_received_bytes_total") > uploaded && uploaded > 0.0);
    assert!(server.value("rehead_http_sent_bytes_total") > 0.0);
    for (scrape, other) in [(&server, Role::Worker), (&worker, Role::Server)] {
        let mine = ALL.iter().filter(|one| one.role != other);
        let declared: BTreeSet<_> = mine.clone().map(|one| one.name.to_owned()).collect();
        let names = scrape.names();
        let unknown: Vec<_> = names.difference(&declared).collect();
        assert!(unknown.is_empty(), "not declared: {unknown:?}");
        // Counters appear with their first event; what is measured is there from the start.
        let gauges = mine.filter(|one| one.kind == Kind::Gauge);
        let missing: Vec<_> = gauges.filter(|one| !names.contains(one.name)).collect();
        assert!(missing.is_empty(), "not measured: {missing:?}");
    }
}

/// The listener for operators answers nothing but metrics and its health.
#[tokio::test(flavor = "multi_thread")]
async fn a_metrics_listener_has_two_routes() {
    let service = Service::start().await;
    let (_worker, url) = worker(&service);
    let http = reqwest::Client::new();
    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/metrics?x=1", 200),
        ("HEAD", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("GET", "/v1/models", 404),
        ("GET", "/", 404),
    ] {
        let method = method.parse().unwrap();
        let request = http.request(method, format!("{url}{path}"));
        assert_eq!(request.send().await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metrics_listener_in_use_is_named() {
    let service = Service::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut worker = service.worker("worker", &["--metrics-listen", &address]);
    assert!(!worker.wait(std::time::Duration::from_secs(30)).success());
    let log = worker.log();
    assert!(
        log.contains(&address) && log.contains("--metrics-listen"),
        "{log}"
    );
}

/// An upload that no worker validates is a number of the queue, with its age.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_work_is_measured_without_a_worker() {
    let service = Service::start().await;
    let data = clipart_subset(&["animals", "food"], 8);
    service.upload("data.zip", "fine-tune", data).await.ok();
    let pool = service.pool().await;
    sqlx::query("update work set run_at = now() - interval '1 hour'")
        .execute(&pool)
        .await
        .unwrap();
    let series = r#"rehead_work{kind="validate",state="waiting"}"#;
    for _ in 0..100 {
        let scrape = Scrape::of(&service.url).await;
        if scrape.value(series) == 1.0 {
            let oldest = scrape.value(r#"rehead_work_oldest_seconds{kind="validate"}"#);
            if (3_600.0..3_700.0).contains(&oldest) {
                assert_eq!(scrape.value(r#"rehead_workers{state="active"}"#), 0.0);
                return;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("the upload is not counted");
}

/// A request that is refused is found in the log, with its code and its id.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_of_the_log() {
    let mut service = Service::start().await;
    let job = json!({"model": "m"});
    service
        .post("/v1/fine_tuning/jobs", &job)
        .await
        .error(422, "missing_field");
    service
        .get("/v1/models/x%0d%0aforged")
        .await
        .error(404, "not_found");
    let mut create = Process::rehead(
        "keys",
        service.dir.path(),
        &[
            "keys",
            "create",
            "--tenant",
            "t",
            "--database-url",
            &service.database_url,
        ],
    );
    assert!(create.wait(std::time::Duration::from_secs(60)).success());
    service
        .get("/v1/models")
        .await
        .error(401, "invalid_api_key");
    service.get("/healthz").await.ok();
    let id = service.server.wait_for("status=401");
    assert!(id.contains("invalid_api_key"), "{id}");
    let log = service.server.log();
    for (status, code) in [
        (422, "missing_field"),
        (404, "not_found"),
        (401, "invalid_api_key"),
    ] {
        let of_it = |line: &&str| line.contains(&format!("status={status}")) && line.contains(code);
        let lines: Vec<&str> = log.lines().filter(of_it).collect();
        assert!(
            lines.len() == 1 && lines[0].contains("req_"),
            "{status}: {log}"
        );
    }
    assert!(!log.contains("/healthz"), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
}

#[test]
fn the_page_of_metrics_is_the_declared_list() {
    let word = |kind: &dyn std::fmt::Debug| format!("{kind:?}").to_lowercase();
    let rows = ALL.iter().map(|one| {
        let labels: Vec<String> = one
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        format!(
            "| `{}` | {} | {} | {} | {} |\n",
            one.name,
            word(&one.kind),
            labels.join(", "),
            word(&one.role),
            one.help
        )
    });
    let table: String = rows.collect();
    let page = page("metrics.md");
    let written: String = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(written, table);
}

/// Every metric in an expression of the alerts, the dashboard and the page's queries exists, and
/// has the labels that it is asked for.
#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let name = Regex::new(r#"\b((?:rehead|process)_[a-z_]+)\b(?:\{([^}]*)\})?"#).unwrap();
    let label = Regex::new(r#"(\w+)(?:=~|!~|!=|=)""#).unwrap();
    let mut expressions = Vec::new();
    let rules: Value = serde_yaml_ng::from_str(&page("alerts.yaml")).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
    }
    let dashboard: Value = serde_json::from_str(&page("grafana.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    let queries = page("metrics.md");
    let queries = queries.split("Useful queries").nth(1).unwrap();
    expressions.extend(queries.split('`').skip(1).step_by(2).map(str::to_owned));
    let mut named = 0;
    for expression in &expressions {
        for found in name.captures_iter(expression) {
            let known = ALL.iter().find(|one| one.name == base(&found[1]));
            let metric = known.unwrap_or_else(|| panic!("no metric `{}`: {expression}", &found[1]));
            named += 1;
            let selectors = found.get(2).map_or("", |selectors| selectors.as_str());
            for label in label.captures_iter(selectors) {
                let known = metric.labels.contains(&&label[1]) || &label[1] == "job";
                assert!(known, "`{}` has no label `{}`", metric.name, &label[1]);
            }
        }
    }
    assert!(named > 50, "only {named}");
}

/// Each alert has a section in the runbook, and each section an alert.
#[test]
fn alerts_and_the_runbook_are_the_same_list() {
    let rules: Value = serde_yaml_ng::from_str(&page("alerts.yaml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut alerts = Vec::new();
    for rule in rules {
        let alert = rule["alert"].as_str().unwrap();
        let anchor = format!("docs/operations/runbook.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], anchor.as_str());
        assert!(rule["annotations"]["summary"].is_string(), "{alert}");
        alerts.push(alert.to_owned());
    }
    let runbook = page("runbook.md");
    let heading = Regex::new(r"(?m)^## (\w+)$").unwrap();
    let sections: Vec<String> = heading
        .captures_iter(&runbook)
        .map(|found| found[1].to_owned())
        .collect();
    assert_eq!(sections, alerts);
    let anchor = Regex::new(r"\]\(#(\w+)\)").unwrap();
    for found in anchor.captures_iter(&runbook) {
        let exists = alerts.iter().any(|alert| alert.to_lowercase() == found[1]);
        assert!(exists, "runbook.md has no section `{}`", &found[1]);
    }
    for section in runbook.split("\n## ").skip(1) {
        let tells = section.contains("- Look at:") && section.contains("- Do:");
        assert!(tells, "{section}");
    }
}

/// Prometheus' own checker, where it is installed (Debian's package `prometheus`).
#[test]
fn alerts_pass_promtool() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    let Some(promtool) = found.into_iter().find(|path: &PathBuf| path.exists()) else {
        println!("promtool is not installed: skipped");
        return;
    };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/alerts.yaml");
    let check = Command::new(promtool)
        .args(["check", "rules"])
        .arg(rules)
        .output();
    let output = check.unwrap();
    assert!(output.status.success(), "{output:?}");
}
