//! Requests that people were seen to send (tests/cases), each with what is right for it. Data sets
//! and weights are in the trainer's tests.

use std::{fs, path::Path, process::Command};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    attempts::{QUICK, material},
    service::Service,
};

const JOBS: &str = "/v1/fine_tuning/jobs";
/// The model's id stands for `{model}`.
const PREDICT: &str = "/v1/models/{model}/predict";
const JSON: &str = "application/json";

/// File, route, content type, status, and the code and a phrase of the error.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const CASES: &[Case] = &[
    (
        "g1_filename_star.form",
        "/v1/files",
        "multipart/form-data; boundary=XX",
        200,
        "",
        "",
    ),
    (
        "g2_bom.json",
        JOBS,
        JSON,
        422,
        "missing_field",
        "training_file",
    ),
    (
        "g3_id_of_another_form.json",
        JOBS,
        JSON,
        422,
        "invalid_value",
        "`file-` and 32 digits",
    ),
    ("g4_base64_in_lines.json", PREDICT, JSON, 200, "", ""),
    (
        "g6_gzipped.json.gz",
        JOBS,
        JSON,
        415,
        "unsupported_encoding",
        "gzip",
    ),
    ("g01_data_url.json", PREDICT, JSON, 200, "", ""),
    ("g02_url_safe_base64.json", PREDICT, JSON, 200, "", ""),
    (
        "g03_hyperparameters_at_the_top.json",
        JOBS,
        JSON,
        422,
        "unknown_field",
        "method.transfer.hyperparameters",
    ),
    ("g04_utf_16.json", JOBS, JSON, 400, "invalid_json", "UTF-16"),
    (
        "g05_form_in_place_of_json.txt",
        JOBS,
        "application/x-www-form-urlencoded",
        415,
        "unsupported_media_type",
        "application/json",
    ),
    (
        "g06_trailing_comma.json",
        JOBS,
        JSON,
        400,
        "invalid_json",
        "line 1 column",
    ),
];

fn made() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for script in ["make_cases.py", "more_cases.py"] {
        let made = Command::new("python3")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(scripts.join(script))
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_as_people_send_them_are_taken_or_named() {
    let made = made();
    let service = Service::start().await;
    let _worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 1}});
    let job = service.ended(&service.job(&file, &transfer).await).await;
    let model = job["fine_tuned_model"].as_str().unwrap();

    for entry in fs::read_dir(made.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let has_case = CASES.iter().any(|(case, ..)| *case == name);
        assert!(has_case || !name.starts_with('g'), "{name} has no case");
    }
    for (name, route, content_type, status, code, phrase) in CASES {
        let path = route.replace("{model}", model);
        let body = fs::read(made.path().join(name)).unwrap();
        let build = |request: reqwest::RequestBuilder| {
            let request = request.header("content-type", *content_type).body(body);
            match name.ends_with(".gz") {
                true => request.header("content-encoding", "gzip"),
                false => request,
            }
        };
        let answer = service.send(Method::POST, &path, build).await;
        if *status == 200 {
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            continue;
        }
        assert_eq!(answer.status.as_u16(), *status, "{name}: {}", answer.text());
        let error = answer.error(*status, code);
        assert!(error.contains(phrase), "{name}: {error}");
    }
}
