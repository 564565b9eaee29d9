//! The command line as scripts and people meet it: exit codes, errors, JSON, folders, logs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use rehead::exit::{self, Exit};
use serde_json::{Value, json};

use crate::{
    cli::{run, said},
    events::queued_job,
    support::{
        data::clipart_subset,
        process::{Process, eventually},
        service::Service,
    },
};

#[track_caller]
fn assert_exit(output: &Output, exit: Exit) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit as i32), "{text}");
    text
}

/// A command that fails: its error, which is one line without a time or colors.
#[track_caller]
fn fails(dir: &Path, arguments: &[&str], exit: Exit) -> String {
    let output = run(dir, arguments);
    let text = assert_exit(&output, exit);
    let first = text.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    text
}

fn temporary() -> tempfile::TempDir {
    let prefix = tempfile::Builder::new().prefix("rehead-it-").tempdir();
    prefix.unwrap()
}

/// An address on which nobody listens.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The files of a zip, as a folder.
fn unzip(zip: Vec<u8>, folder: &Path) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap();
    archive.extract(folder).unwrap();
}

#[test]
fn a_service_that_does_not_run_is_named_at_once() {
    let dir = temporary();
    let url = format!("http://{}", free_address());
    let text = fails(dir.path(), &["jobs", "--url", &url], Exit::Unavailable);
    for part in [&url, "refused", "rehead up", "--url"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_database_that_does_not_run_is_named_at_once() {
    let dir = temporary();
    let address = free_address();
    let url = format!("postgres://me:secret@{address}/rehead");
    for command in [
        &["migrate"][..],
        &[
            "work",
            "--objects",
            "o",
            "--work-dir",
            "w",
            "--database-wait-ms",
            "0",
        ],
    ] {
        let arguments = [command, &["--database-url", &url]].concat();
        let text = run(dir.path(), &arguments);
        let text = assert_exit(&text, Exit::Unavailable);
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("error: cannot reach Postgres"), "{text}");
        assert!(
            last.contains(&address) && last.contains("refused"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
    // One that waits says so while it waits.
    let arguments = [
        "work",
        "--objects",
        "o",
        "--work-dir",
        "w",
        "--database-url",
        &url,
    ];
    let mut waiting = Process::rehead("work", dir.path(), &arguments);
    let rest = waiting.wait_for("cannot reach Postgres");
    assert!(
        rest.contains("refused") && rest.contains("trying again"),
        "{rest}"
    );
}

#[test]
fn usage_errors_have_their_code_and_a_suggestion() {
    let dir = temporary();
    for (arguments, hint) in [
        (&["sumbit"][..], "submit"),
        (&["jobs", "--jsno"], "--json"),
        (
            &["jobs", "--url", "localhost:8080"],
            "http://127.0.0.1:8080",
        ),
        (&["submit", "--model", "m"], "DATA"),
        (
            &["submit", "--model", "m", "a.zip", "--file", "file-1"],
            "--file",
        ),
    ] {
        let text = assert_exit(&run(dir.path(), arguments), Exit::Usage);
        assert!(text.contains(hint), "{arguments:?}: {text}");
    }
}

#[test]
fn help_and_the_reference_list_every_exit_code() {
    let dir = temporary();
    let help = said(dir.path(), &["--help"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/cli.md")).unwrap();
    for (code, meaning) in exit::MEANINGS {
        let code = code as u8;
        assert!(
            page.contains(&format!("| {code} | {meaning} |")),
            "{meaning}"
        );
        assert!(help.contains(&format!("  {code}  ")), "{help}");
    }
}

/// Each script is read by its shell, where that is installed.
#[test]
fn completions_are_scripts_of_each_shell() {
    let dir = temporary();
    for (shell, word) in [
        ("bash", "complete "),
        ("zsh", "#compdef"),
        ("fish", "complete -c"),
    ] {
        let script = said(dir.path(), &["completions", shell]);
        assert!(
            script.contains(word) && script.contains("submit"),
            "{shell}"
        );
        let file = dir.path().join(shell);
        fs::write(&file, script).unwrap();
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(error) => println!("{shell} is not installed: {error}"),
        }
    }
}

/// A wrong model or option is refused before a byte of the data set is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_would_be_refused_uploads_nothing() {
    let service = Service::start().await;
    let (dir, url) = (service.dir.path(), service.url.as_str());
    fs::create_dir_all(dir.join("flowers/roses")).unwrap();
    fs::write(dir.join("flowers/roses/a.png"), b"x").unwrap();
    let model = "efficientnet_lite0";
    let arguments = [
        "submit", "--url", url, "--model", model, "--epochs", "0", "flowers",
    ];
    let text = fails(dir, &arguments, Exit::Refused);
    assert!(
        text.contains("efficientnet_lite0") && text.contains("n_epochs"),
        "{text}"
    );
    assert!(!text.contains("file-0"), "{text}");
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"], json!([]));
}

/// A folder becomes the data set that a zip of it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_uploaded_validated_and_submitted() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let (dir, url) = (service.dir.path(), service.url.as_str());
    let zip = clipart_subset(&["animals", "food"], 8);
    unzip(zip.clone(), &dir.join("flowers of mine"));
    fs::write(dir.join("flowers of mine/.hidden"), b"x").unwrap();
    let zipped = service.dataset(zip).await;

    let arguments = [
        "upload",
        "--url",
        url,
        "--wait",
        "--json",
        "flowers of mine",
    ];
    let file: Value = serde_json::from_str(&said(dir, &arguments)).unwrap();
    assert_eq!(file["status"], "processed", "{file}");
    assert_eq!(file["filename"], "flowers of mine.tar");
    assert_eq!(file["dataset"], zipped["dataset"]);

    service.lite0().await;
    service
        .get("/v1/models/efficientnet_lite0?wait=60&until=imported")
        .await
        .ok();
    let model = "efficientnet_lite0";
    let arguments = [
        "submit",
        "--url",
        url,
        "--model",
        model,
        "--json",
        "flowers of mine",
    ];
    let job: Value = serde_json::from_str(&said(dir, &arguments)).unwrap();
    assert_eq!(job["object"], "fine_tuning.job", "{job}");
    let id = job["id"].as_str().unwrap();
    said(dir, &["cancel", "--url", url, id]);

    // A data set that is refused, and a folder without files.
    fs::create_dir_all(dir.join("texts/a")).unwrap();
    fs::write(dir.join("texts/a/readme.txt"), b"no image").unwrap();
    let arguments = ["upload", "--url", url, "--wait", "texts"];
    let output = run(dir, &arguments);
    let text = assert_exit(&output, Exit::Refused);
    assert!(text.starts_with("error: texts is refused: "), "{text}");
    fs::create_dir_all(dir.join("empty")).unwrap();
    let text = fails(dir, &["upload", "--url", url, "empty"], Exit::Failed);
    assert!(text.contains("has no files"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_exit_code() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let id = job["id"].as_str().unwrap();
    let (dir, url) = (service.dir.path(), service.url.as_str());
    let none = "ftjob-00000000000000000000000000000000";
    for command in ["watch", "logs", "report", "cancel"] {
        let text = fails(dir, &[command, "--url", url, none], Exit::NotFound);
        assert!(text.contains("not_found"), "{text}");
    }
    let text = fails(dir, &["report", "--url", url, id], Exit::Refused);
    assert!(text.contains("409"), "{text}");
    said(dir, &["cancel", "--url", url, id]);
    fails(dir, &["watch", "--url", url, id], Exit::Failed);
    fails(dir, &["pause", "--url", url, id], Exit::Refused);
    let database = ["--database-url", &service.database_url];
    let create = ["keys", "create", "--tenant", "t"];
    said(dir, &[&create[..], &database].concat());
    let text = fails(dir, &["jobs", "--url", url], Exit::Unauthorized);
    assert!(text.contains("invalid_api_key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_json() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let id = job["id"].as_str().unwrap();
    let (dir, url) = (service.dir.path(), service.url.as_str());
    let read = |arguments: &[&str]| -> Vec<Value> {
        let text = said(dir, &[arguments, &["--json"]].concat());
        let values = serde_json::Deserializer::from_str(&text).into_iter();
        values.map(|value| value.unwrap()).collect()
    };
    let jobs = read(&["jobs", "--url", url]);
    assert_eq!(jobs[0][0]["id"], id);
    assert_eq!(read(&["workers", "--url", url]), [json!([])]);
    for (command, status) in [
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
    ] {
        let answer = read(&[command, "--url", url, id]);
        assert_eq!(answer[0]["status"], status, "{answer:?}");
    }
    let events = read(&["logs", "--url", url, id]);
    let kinds: Vec<&Value> = events.iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds.first(), Some(&&json!("created")));
    assert_eq!(kinds.last(), Some(&&json!("cancelled")));
    let watched = run(dir, &["watch", "--url", url, id, "--json"]);
    let job: Value = serde_json::from_slice(&watched.stdout).unwrap();
    assert_eq!(job["status"], "cancelled");
    let objects = service.objects();
    let store = [
        "--objects",
        objects.to_str().unwrap(),
        "--database-url",
        &service.database_url,
    ];
    let found = read(&[&["gc", "--dry-run"][..], &store].concat());
    assert_eq!(found.last().unwrap()["dry_run"], true);
    assert_eq!(read(&["openapi"])[0]["info"]["title"], "Rehead");
}

/// Events of a job as they happen, until its last one.
#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_a_job_to_its_end() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let id = job["id"].as_str().unwrap().to_owned();
    let (dir, url) = (service.dir.path(), service.url.as_str());
    let arguments = ["logs", "--url", url, "-f", &id];
    let mut follower = Command::new(env!("CARGO_BIN_EXE_rehead"))
        .args(arguments)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = follower.stdout.take().unwrap();
    let read = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    service.ask(&job, "pause").await.ok();
    service.ask(&job, "resume").await.ok();
    service.ask(&job, "cancel").await.ok();
    let limit = std::time::Duration::from_secs(60);
    let status = eventually(limit, "the end of `logs -f`", || {
        follower.try_wait().unwrap()
    });
    assert!(status.success());
    let text = read.join().unwrap().unwrap();
    let said: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(" info  "))
        .map(|(_, message)| message)
        .collect();
    let end = [
        "the job is paused",
        "the job waits for a worker again",
        "the job is cancelled",
    ];
    assert!(said.ends_with(&end), "{text}");
}

/// Behind the end of each attempt comes what its trainer said last.
#[tokio::test(flavor = "multi_thread")]
async fn logs_show_trainers_behind_their_attempts() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 8))
        .await;
    service.lite0().await;
    service
        .get("/v1/models/efficientnet_lite0?wait=60&until=imported")
        .await
        .ok();
    let job = service.job(&file, &json!({"freeze": "all"})).await;
    service.runs_attempt(&job, 1).await;
    service.ask(&job, "cancel").await.ok();
    service.ended(&job).await;
    // A trainer has nothing to say in order; what it said is written for it.
    let pool = service.pool().await;
    sqlx::query("update attempts set log_tail = E'first\\nlast \\x1b[2J'")
        .execute(&pool)
        .await
        .unwrap();
    let id = job["id"].as_str().unwrap();
    let text = said(service.dir.path(), &["logs", "--url", &service.url, id]);
    let end: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(end[0], "  trainer 1: last \u{fffd}[2J", "{text}");
    assert_eq!(end[1], "  trainer 1: first", "{text}");
    assert!(end[2].ends_with("the job is cancelled"), "{text}");
}

/// A server that is asked for one thing, and answers another: its words reach the user.
#[test]
fn an_answer_that_is_not_of_rehead_is_said() {
    let dir = temporary();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1_024];
        let _ = stream.read(&mut request);
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let text = fails(dir.path(), &["jobs", "--url", &url], Exit::Unavailable);
    assert!(
        text.contains("without JSON") && text.contains("--url"),
        "{text}"
    );
    server.join().unwrap();
}
