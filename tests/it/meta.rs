//! The API describes itself: statuses, error codes, limits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{openapi::CONTRACT, service::Service};

#[tokio::test]
async fn statuses_are_those_of_the_contract() {
    let service = Service::start().await;
    let list = service.get("/v1/meta/statuses").await.ok();
    let rows = list["data"].as_array().unwrap();
    let of = |noun: &str| -> BTreeSet<String> {
        let rows = rows.iter().filter(|row| row["of"] == noun);
        rows.map(|row| row["status"].as_str().unwrap().to_owned())
            .collect()
    };
    for (noun, schema) in [
        ("fine_tuning.job", "JobStatus"),
        ("file", "FileStatus"),
        ("upload", "UploadStatus"),
        ("model", "ModelStatus"),
    ] {
        let words = &CONTRACT["components"]["schemas"][schema]["enum"];
        let words: BTreeSet<String> = serde_json::from_value(words.clone()).unwrap();
        assert_eq!(of(noun), words, "{noun}");
    }
    for row in rows {
        assert_eq!(row["is_terminal"], row["next"] == json!([]), "{row}");
    }
}

#[tokio::test]
async fn error_codes_are_those_of_the_page() {
    let service = Service::start().await;
    let list = service.get("/v1/meta/error_codes").await.ok();
    let page = include_str!("../../docs/errors.md");
    let rows = list["data"].as_array().unwrap();
    for row in rows {
        let code = row["code"].as_str().unwrap();
        assert!(page.contains(&format!("| `{code}` |")), "{code}");
        for text in ["meaning", "what_to_do"] {
            assert!(
                row[text].as_str().is_some_and(|text| text.len() > 5),
                "{row}"
            );
        }
    }
    let is = |row: &&Value| row["code"] == "queue_full";
    let found = rows.iter().find(is).unwrap();
    assert_eq!(found["statuses"], json!([429]));
}

#[tokio::test]
async fn limits_are_those_of_the_settings() {
    let service = Service::start_with(&["--max-part-bytes", "123"]).await;
    let limits = service.get("/v1/meta/limits").await.ok();
    assert_eq!(limits["part_bytes"], 123);
    assert_eq!(limits["long_page"], 10_000);
    assert_eq!(limits["file_lifetime_seconds"], json!([3_600, 2_592_000]));
}
