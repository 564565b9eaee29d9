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
        ("model_ranking", "RankingStatus"),
        ("model_push", "PushStatus"),
        ("fine_tuning.job.phase", "Phase"),
        ("fine_tuning.job.queue.reason", "WaitReason"),
    ] {
        let words = &CONTRACT["components"]["schemas"][schema]["enum"];
        let words: BTreeSet<String> = serde_json::from_value(words.clone()).unwrap();
        assert_eq!(of(noun), words, "{noun}");
    }
    for row in rows {
        let has_order = !row["of"].as_str().unwrap().starts_with("fine_tuning.job.");
        let is_last = has_order && row["next"] == json!([]);
        assert_eq!(row["is_terminal"], is_last, "{row}");
        // Every one has a sentence for people.
        let sentence = row["description"].as_str().unwrap();
        assert!(sentence.len() > 10 && sentence.ends_with('.'), "{row}");
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
    let arguments = [
        ("--max-part-bytes", "123", "part_bytes"),
        ("--max-upload-bytes", "1234", "file_bytes"),
        ("--max-page", "12", "page"),
        ("--max-predict-images", "3", "predict_images"),
        ("--max-predict-image-bytes", "1235", "predict_image_bytes"),
        ("--max-predict-bytes-per-tenant", "1236", "predict_bytes"),
        ("--max-corrections", "7", "corrections"),
        ("--max-wait-seconds", "9", "wait_seconds"),
        ("--requests-per-minute", "1237", "requests_per_minute"),
        ("--max-streams-per-tenant", "8", "streams"),
        ("--max-stored-bytes", "1238", "stored_bytes"),
    ];
    let flags: Vec<&str> = arguments
        .iter()
        .flat_map(|(flag, value, _)| [*flag, *value])
        .collect();
    let service = Service::start_with(&flags).await;
    let limits = service.get("/v1/meta/limits").await.ok();
    for (flag, value, name) in arguments {
        let value: u64 = value.parse().unwrap();
        assert_eq!(limits[name], value, "{flag}");
    }
    for (name, value) in [
        ("counted_rows", 10_000),
        ("thumbnail_side", 128),
        ("confusion_classes", 1_000),
    ] {
        assert_eq!(limits[name], value, "{name}");
    }
    assert_eq!(limits["long_page"], 10_000);
    assert_eq!(limits["file_lifetime_seconds"], json!([3_600, 2_592_000]));
}
