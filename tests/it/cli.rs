//! The command line, as a person uses it: `up`, `submit`, `watch`, `report`, `predict`, `pause` and
//! its like; and what stops and starts again.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::{
        data::{clipart_subset, demo, lite0_weights},
        process::{Process, is_alive},
        service::Service,
    },
};

fn up(name: &str, dir: &Path) -> (Process, String) {
    let data = dir.join("data");
    let arguments = [
        "up",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--threads",
        "1",
    ];
    let mut process = Process::rehead(name, dir, &arguments);
    let url = format!("http://{}", process.wait_for("is up, listening on http://"));
    let written = std::fs::read_to_string(data.join("url")).unwrap();
    assert!(written.ends_with('\n') && process.log().contains(written.trim()));
    (process, url)
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rehead"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// The output of a command that must succeed.
#[track_caller]
pub(crate) fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_made_at_the_terminal_and_is_there_after_a_restart() {
    let dir = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    let dir = dir.path();
    let (mut service, url) = up("up", dir);
    let http = reqwest::Client::new();
    let weights = Part::bytes(lite0_weights()).file_name("lite0.pth");
    let form = Form::new().text("purpose", "weights").part("file", weights);
    let upload = http.post(format!("{url}/v1/files")).multipart(form);
    let file: Value = upload.send().await.unwrap().json().await.unwrap();
    let base = json!({"id": "lite0", "architecture": "tf_efficientnet_lite0", "weights": {"file": file["id"]}});
    let register = http.post(format!("{url}/v1/base_models")).json(&base);
    assert_eq!(register.send().await.unwrap().status(), 200);
    std::fs::write(
        dir.join("data.zip"),
        clipart_subset(&["animals", "food"], 8),
    )
    .unwrap();

    let job = said(
        dir,
        &[
            "submit", "--url", &url, "--model", "lite0", "--data", "data.zip", "--freeze", "all",
            "--epochs", "3", "--suffix", "mine",
        ],
    );
    assert!(job.starts_with("ftjob-"), "{job}");
    let model = said(dir, &["watch", "--url", &url, &job]);
    assert!(model.starts_with("ft:lite0:mine:"), "{model}");
    let report = said(dir, &["report", "--url", &url, &job]);
    assert!(report.contains("majority baseline"), "{report}");

    // Bad input is a sentence and a failure, not a trace.
    let refused = run(
        dir,
        &[
            "submit", "--url", &url, "--model", "lite1", "--data", "data.zip",
        ],
    );
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("lite1"),
        "{text}"
    );

    let children = service.descendants();
    service.signal(Signal::SIGTERM);
    assert!(service.wait(Duration::from_secs(60)).success());
    assert!(!children.iter().any(|&pid| is_alive(pid)), "left behind");
    assert!(!dir.join("data/url").exists());

    let (_service, url) = up("again", dir);
    let image = std::fs::read_dir(demo().join("unseen"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let image = image.path();
    let predicted = said(
        dir,
        &[
            "predict",
            "--url",
            &url,
            "--model",
            &model,
            image.to_str().unwrap(),
        ],
    );
    let fields: Vec<&str> = predicted.split('\t').collect();
    assert!(["animals", "food"].contains(&fields[1]), "{predicted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_private_postgres_is_restarted() {
    let dir = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    let (mut service, url) = up("up", dir.path());
    let postmaster = || -> Option<i32> {
        let file = dir.path().join("data/postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().next()?.parse().ok()
    };
    let first = postmaster().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let http = reqwest::Client::new();
    let ready = async || {
        let asked = http.get(format!("{url}/readyz")).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    };
    let killed = Instant::now();
    while postmaster() == Some(first) || !ready().await {
        let log = service.log();
        assert!(killed.elapsed() < Duration::from_secs(60), "{log}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let second = postmaster().unwrap();
    service.signal(Signal::SIGTERM);
    assert!(service.wait(Duration::from_secs(60)).success());
    assert!(!is_alive(second), "left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_resumed_and_cancelled_at_the_terminal() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let id = job["id"].as_str().unwrap();
    let (dir, url) = (service.dir.path(), service.url.as_str());
    for (command, status) in [
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
    ] {
        let line = said(dir, &[command, "--url", url, id]);
        assert_eq!(line, format!("{id} {status}"));
    }
    let refused = run(dir, &["stop", "--url", url, id]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(4) && text.contains("job_ended"),
        "{text}"
    );
    assert!(refused.stdout.is_empty());
}

#[test]
fn one_service_at_a_time_works_in_a_folder() {
    let dir = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    let (_first, _) = up("up", dir.path());
    let second = run(
        dir.path(),
        &["up", "--data-dir", "data", "--listen", "127.0.0.1:0"],
    );
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && text.contains("--data-dir"),
        "{text}"
    );
}
