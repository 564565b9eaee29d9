//! Which model to start from: found by what it was trained for, and told by scores of its features
//! on one's own data.

use serde_json::{Value, json};

use crate::{
    cli::{run, said},
    support::{
        data::{clipart_subset, lite0_weights},
        service::Service,
    },
};

const CLASSES: [&str; 4] = ["animals", "food", "people", "transportation"];

/// Registers Lite0 with these weights.
async fn register(service: &Service, id: &str, weights: Vec<u8>, source_task: Value) {
    let file = service.upload("weights", "weights", weights).await.ok();
    let body = json!({
        "id": id, "architecture": "tf_efficientnet_lite0", "weights": {"file": file["id"]},
        "source_task": source_task,
    });
    let model = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(model["status"], "ready", "{model}");
}

/// A job of one epoch that has succeeded: its id.
async fn trained(service: &Service, model: &str, file: &Value, freeze: Value) -> String {
    let body = json!({
        "model": model, "training_file": file["id"], "seed": 7,
        "method": {"type": "transfer", "transfer": {
            "freeze": freeze, "hyperparameters": {"n_epochs": 1},
        }},
    });
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job["id"].as_str().unwrap().to_owned()
}

/// Ids of the models that this query lists.
async fn listed(service: &Service, query: &str) -> Vec<String> {
    let list = service
        .get(&format!("/v1/models?order=asc&{query}"))
        .await
        .ok();
    let ids = list["data"].as_array().unwrap().iter();
    ids.map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_to_start_from_is_found_and_chosen() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &["--threads", "1"]);
    let photos = json!({"name": "photos", "classes": 1000, "dataset": "ImageNet-1k"});
    register(&service, "published", lite0_weights(), photos).await;
    let noise = service.untrained_weights("published").await;
    register(&service, "noise", noise, json!({"name": "nothing"})).await;

    // By what they were trained for.
    assert_eq!(
        listed(&service, "owned_by=base").await,
        ["published", "noise"]
    );
    assert_eq!(listed(&service, "source_task=photos").await, ["published"]);
    let both = "architecture=tf_efficientnet_lite0&source_task=nothing";
    assert_eq!(listed(&service, both).await, ["noise"]);
    assert_eq!(
        listed(&service, "owned_by=base&limit=1&after=published").await,
        ["noise"]
    );
    for none in [
        "source_task=Photos",
        "architecture=resnet18",
        "owned_by=user",
    ] {
        assert!(listed(&service, none).await.is_empty(), "{none}");
    }
    for (wrong, code) in [
        ("owned_by=me", "invalid_value"),
        ("source=photos", "unknown_field"),
    ] {
        service
            .get(&format!("/v1/models?{wrong}"))
            .await
            .error(422, code);
    }

    // By their features. Nothing but the data and the backbone decides: the same bits for every
    // job.
    let file = service.dataset(clipart_subset(&CLASSES, 16)).await;
    let of_noise = trained(&service, "noise", &file, json!("all")).await;
    let of_published = trained(&service, "published", &file, json!("all")).await;
    let tuned = trained(
        &service,
        "published",
        &file,
        json!({"all_but_last_stages": 1}),
    )
    .await;
    assert_eq!(
        listed(&service, "owned_by=user&source_task=photos")
            .await
            .len(),
        2
    );
    let mut scores = Vec::new();
    for job in [&of_published, &of_noise, &tuned] {
        let report = service
            .get(&format!("/v1/fine_tuning/jobs/{job}/report"))
            .await
            .ok();
        println!("{}", report["transferability"]);
        scores.push(report["transferability"].clone());
    }
    assert_eq!(scores[2], scores[0], "before its backbone trained");
    let file_report = service
        .get(&format!(
            "/v1/files/{}/report",
            file["id"].as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(
        scores[0]["samples"],
        file_report["dataset"]["splits"]["train"]
    );
    assert_eq!(scores[0]["features"], 1280);
    // The H-score tells nothing of so many features from so few samples: any features set them
    // apart.
    for score in ["knn_accuracy", "ridge_accuracy", "log_me"] {
        let [published, noise] = [&scores[0], &scores[1]].map(|of| of[score].as_f64().unwrap());
        assert!(published > noise, "{score}: {published} {noise}");
    }
    let [published, noise] =
        [&scores[0], &scores[1]].map(|of| of["ridge_accuracy"].as_f64().unwrap());
    let error = scores[1]["ridge_standard_error"].as_f64().unwrap();
    assert!(
        published > noise + 3.0 * error,
        "{published} {noise} ±{error}"
    );

    // At the terminal.
    let dir = tempfile::tempdir().unwrap();
    let compare = |jobs: &[&str]| {
        let url = ["compare", "--url", &service.url];
        run(dir.path(), &[&url, jobs].concat())
    };
    let table = said(
        dir.path(),
        &[
            "compare",
            "--url",
            &service.url,
            &tuned,
            &of_noise,
            &of_published,
        ],
    );
    let order: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_whitespace().next_back())
        .collect();
    let mut best = [order[1], order[2]];
    best.sort_unstable();
    let mut published = [of_published.as_str(), &tuned];
    published.sort_unstable();
    assert_eq!((best, order[3]), (published, of_noise.as_str()), "{table}");
    let list = said(
        dir.path(),
        &[
            "compare",
            "--json",
            "--url",
            &service.url,
            &of_noise,
            &of_published,
        ],
    );
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (&list[0]["model"], &list[1]["model"]),
        (&json!("published"), &json!("noise"))
    );
    assert_eq!(list[0]["transferability"], scores[0]);

    // Scores of other data are no comparison.
    let other = service.dataset(clipart_subset(&CLASSES[..2], 16)).await;
    let elsewhere = trained(&service, "published", &other, json!("all")).await;
    let refused = compare(&[&of_published, &elsewhere]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("different data"),
        "{text}"
    );
}
