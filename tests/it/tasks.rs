//! Several labels a sample, and numbers: real images through the real service, from a manifest to a
//! prediction.

use std::io::{Cursor, Read as _};

use serde_json::{Value, json};

use crate::support::{
    data::{clipart, unzip, zip},
    service::{Service, job_body},
};

/// Side of an image made here, in pixels.
const SIDE: u32 = 112;
const CATEGORIES: [&str; 3] = ["animals", "food", "plants"];

/// The first `count` different clip-art images of a category, on white.
fn images(category: &str, count: usize) -> Vec<image::RgbImage> {
    let mut archive = ::zip::ZipArchive::new(Cursor::new(clipart())).unwrap();
    let mut names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .filter(|name| name.split('/').any(|part| part == category) && !name.ends_with('/'))
        .collect();
    names.sort();
    let mut one = |name: &String| -> Option<image::RgbImage> {
        let mut bytes = Vec::new();
        archive
            .by_name(name)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        // One is larger than the decoder allows.
        let image = image::load_from_memory(&bytes).ok()?.to_rgba8();
        let white = |pixel: &image::Rgba<u8>| {
            let [r, g, b, alpha] = pixel.0.map(u32::from);
            image::Rgb([r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha)) / 255) as u8))
        };
        let flat = image::RgbImage::from_fn(image.width(), image.height(), |x, y| {
            white(image.get_pixel(x, y))
        });
        Some(image::imageops::thumbnail(&flat, SIDE, SIDE))
    };
    let mut found: Vec<image::RgbImage> = Vec::new();
    for name in &names {
        if let Some(image) = one(name).filter(|image| !found.contains(image)) {
            found.push(image);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

fn png(image: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Images of one category or of two side by side, labelled with all that is on them.
fn several_labels(categories: &[&str; 3]) -> Vec<u8> {
    let all = categories.map(|category| images(category, 40));
    let mut entries = Vec::new();
    let mut rows = String::new();
    for place in 0..40 {
        for (first, second) in [(0, 1), (1, 2), (2, 0), (0, 0), (1, 1), (2, 2)] {
            let (left, right) = (&all[first][place], &all[second][(place * 7 + 3) % 40]);
            let mut both = image::RgbImage::new(2 * SIDE, SIDE);
            image::imageops::replace(&mut both, left, 0, 0);
            image::imageops::replace(&mut both, right, i64::from(SIDE), 0);
            let labels = if first == second {
                format!("[\"{}\"]", categories[first])
            } else {
                format!("[\"{}\", \"{}\"]", categories[first], categories[second])
            };
            let path = format!("{place}-{first}{second}.png");
            rows.push_str(&format!("{{\"path\": \"{path}\", \"labels\": {labels}}}\n"));
            entries.push((path, png(&both)));
        }
    }
    entries.push(("manifest.jsonl".to_owned(), rows.into_bytes()));
    zip(&entries)
}

/// Percent of the pixels that are not nearly white.
fn colored(image: &image::RgbImage) -> f64 {
    let inked = image
        .pixels()
        .filter(|pixel| pixel.0.iter().any(|&value| value < 230));
    100.0 * inked.count() as f64 / f64::from(image.width() * image.height())
}

fn numbers() -> Vec<u8> {
    let mut entries = Vec::new();
    let mut rows = "path,value,split\n".to_owned();
    for category in CATEGORIES {
        for (place, image) in images(category, 40).iter().enumerate() {
            let path = format!("{category}/{place}.png");
            let split = ["train", "train", "train", "validation", "test"][place % 5];
            rows.push_str(&format!("{path},{},{split}\n", colored(image)));
            entries.push((path, png(image)));
        }
    }
    entries.push(("manifest.csv".to_owned(), rows.into_bytes()));
    zip(&entries)
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_numbers_work_from_manifest_to_prediction() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;

    let file = service.dataset(several_labels(&CATEGORIES)).await;
    assert_eq!(file["dataset"]["task"], "multi_label_classification");
    refuses_options_of_other_tasks(&service, &file).await;
    let choice = json!({
        "freeze": "all",
        "early_stopping": {"metric": "valid_micro_f1"},
        "hyperparameters": {"class_weights": "balanced", "n_epochs": 20},
    });
    let job = service.job(&file, &choice).await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    labels_are_measured_and_predicted(&service, &job).await;
    a_head_of_labels_grows(&service, &job).await;
    let started = first_evaluation(&service, &job).await;
    assert!(number(&started["valid_micro_f1"]) > 0.6, "{started}");

    let file = service.dataset(numbers()).await;
    assert_eq!(file["dataset"]["task"], "regression");
    assert_eq!(file["dataset"]["target"]["count"], 120);
    let choice = json!({
        "task": "regression", "freeze": "all",
        "early_stopping": {"metric": "valid_mae"},
        "hyperparameters": {"loss": "huber", "n_epochs": 60, "learning_rate": 3e-3},
    });
    let job = service.job(&file, &choice).await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    numbers_are_measured_and_predicted(&service, &job).await;
    let started = first_evaluation(&service, &job).await;
    assert!(number(&started["valid_r2"]) > 0.3, "{started}");

    // On from it, on the backbone that it has; its head is fitted anew, and said to be.
    let transfer = json!({"freeze": "all", "hyperparameters": {"n_epochs": 1}});
    let body = job_body(job["fine_tuned_model"].as_str().unwrap(), &file, &transfer);
    let longer = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    assert_eq!(longer["resolved"]["labels"]["value"], "replace", "{longer}");
    let longer = service.ended(&longer).await;
    assert_eq!(longer["status"], "succeeded", "{longer}");
    let started = first_evaluation(&service, &longer).await;
    assert!(number(&started["valid_r2"]) > 0.3, "{started}");
}

/// That of the probe, before any step.
async fn first_evaluation(service: &Service, job: &Value) -> Value {
    assert_eq!(job["recipe"]["head"]["init"], "probe", "{job}");
    let metrics = service.part(job, "/metrics").await;
    let first = metrics["evaluations"][0].clone();
    assert_eq!(first["step"], 0, "{metrics}");
    println!("probe: {first}");
    first
}

async fn refuses_options_of_other_tasks(service: &Service, file: &Value) {
    let body = json!({
        "model": "efficientnet_lite0", "training_file": file["id"],
        "method": {"type": "transfer", "transfer": {
    "task": "regression", "early_stopping": {"metric": "valid_r2"},
            "hyperparameters": {"loss": "mse", "label_smoothing": 0.1, "mixup": 0.2},
        }},
    });
    let refused = service.post("/v1/fine_tuning/jobs", &body).await;
    assert_eq!(refused.status, 422);
    let error: Value = serde_json::from_slice(&refused.body).unwrap();
    let found: Vec<(&str, &str)> = error["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["path"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("method.transfer.task", "task_mismatch"),
        ("method.transfer.early_stopping.metric", "contradiction"),
        ("method.transfer.hyperparameters.loss", "contradiction"),
        (
            "method.transfer.hyperparameters.label_smoothing",
            "contradiction",
        ),
        ("method.transfer.hyperparameters.mixup", "contradiction"),
    ];
    assert_eq!(found, wanted);
}

async fn labels_are_measured_and_predicted(service: &Service, job: &Value) {
    let report = service.part(job, "/report").await;
    println!("several labels: {report}");
    assert_eq!(report["task"], "multi_label_classification");
    assert!(number(&report["mean_average_precision"]) > 0.8, "{report}");
    assert!(number(&report["micro_f1"]) > 0.75, "{report}");
    assert!(number(&report["roc_auc"]) > 0.75, "{report}");
    for class in report["classes"].as_array().unwrap() {
        assert!((0.0..1.0).contains(&number(&class["threshold"])), "{class}");
    }
    let metrics = service.part(job, "/metrics").await;
    let evaluations = metrics["evaluations"].as_array().unwrap();
    let value = |one: &Value| number(&one["valid_micro_f1"]);
    let best = evaluations.iter().map(value).fold(0.0, f64::max);
    assert!(
        evaluations
            .iter()
            .all(|one| one.get("valid_accuracy").is_none())
    );
    assert_eq!(
        value(&job["metrics"]),
        best,
        "the best by the metric asked for"
    );

    let one = &images("food", 60)[55];
    let model = job["fine_tuned_model"].as_str().unwrap();
    let answer = service.predict(model, png(one)).await;
    service
        .checkpoint_predicts_as_the_model(job, png(one))
        .await;
    let labels = answer["labels"].as_array().unwrap();
    for class in report["classes"].as_array().unwrap() {
        let name = class["name"].as_str().unwrap();
        let reached = number(&answer["probabilities"][name]) >= number(&class["threshold"]);
        assert_eq!(labels.contains(&class["name"]), reached, "{answer} {class}");
    }
    assert!(answer.get("label").is_none() && answer.get("value").is_none());
}

/// On from it, with a label that it does not know: how it ranks those that it knew is told before
/// and after.
async fn a_head_of_labels_grows(service: &Service, job: &Value) {
    let file = service
        .dataset(several_labels(&["food", "plants", "transportation"]))
        .await;
    let body = json!({
        "model": job["fine_tuned_model"], "training_file": file["id"], "seed": 7,
        "method": {"type": "transfer", "transfer": {
            "labels": "extend", "freeze": "all", "hyperparameters": {"n_epochs": 5},
            "early_stopping": {"metric": "valid_roc_auc"}, "evaluate_every": {"epochs": 2},
        }},
    });
    let grown = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let grown = service.ended(&grown).await;
    assert_eq!(grown["status"], "succeeded", "{grown}");
    let report = service.part(&grown, "/report").await;
    println!("grown: {report}");
    let told = &report["forgetting"];
    let known = told["classes"].as_array().unwrap();
    let names: Vec<&str> = known
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, CATEGORIES);
    // Of what it knew, animals are not in this file: nothing is said of them.
    assert_eq!(
        (&known[0]["support"], &known[0]["average_precision_after"]),
        (&json!(0), &Value::Null)
    );
    for class in &known[1..] {
        assert!(number(&class["average_precision_before"]) > 0.7, "{told}");
        assert!(number(&class["average_precision_after"]) > 0.7, "{told}");
    }
    let mean = |when: &str| known[1..].iter().map(|one| number(&one[when])).sum::<f64>() / 2.0;
    for when in ["average_precision_before", "average_precision_after"] {
        let found = number(&told[format!("mean_{when}")]);
        assert!((found - mean(when)).abs() < 1e-12, "{told}");
    }

    // The start, then every other epoch, and the last; the best by what it asked for.
    let metrics = service.part(&grown, "/metrics").await;
    let evaluations = metrics["evaluations"].as_array().unwrap();
    let epochs: Vec<u64> = evaluations
        .iter()
        .map(|one| one["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, [0, 2, 4, 5]);
    let area = |one: &Value| number(&one["valid_roc_auc"]);
    let best = evaluations.iter().map(area).fold(0.0, f64::max);
    assert_eq!(area(&grown["metrics"]), best, "{metrics}");
    assert!(
        job["metrics"].get("valid_roc_auc").is_none(),
        "nobody asked for it"
    );
}

async fn numbers_are_measured_and_predicted(service: &Service, job: &Value) {
    let report = service.part(job, "/report").await;
    println!("numbers: {report}");
    assert_eq!(
        (&report["task"], &report["split"]),
        (&json!("regression"), &json!("test"))
    );
    assert_eq!(report["target"]["count"], 24);
    assert!(number(&report["r2"]) > 0.2, "{report}");
    assert!(
        number(&report["rmse"]) < number(&report["baseline"]["rmse"]),
        "{report}"
    );
    let [low, high] = [0, 1].map(|at| number(&report["mae_interval"][at]));
    assert!((low..high).contains(&number(&report["mae"])));

    // Every test image predicted by the service gives the report's error: the unit is the
    // manifest's.
    let model = job["fine_tuned_model"].as_str().unwrap();
    let mut errors = Vec::new();
    for category in CATEGORIES {
        for image in images(category, 40).iter().skip(4).step_by(5) {
            let answer = service.predict(model, png(image)).await;
            errors.push((number(&answer["value"]) - colored(image)).abs());
            assert!(answer.get("label").is_none() && answer.get("probabilities").is_none());
        }
    }
    let image = &images("food", 40)[4];
    service
        .checkpoint_predicts_as_the_model(job, png(image))
        .await;
    let mae = errors.iter().sum::<f64>() / errors.len() as f64;
    assert!(
        (mae - number(&report["mae"])).abs() < 1e-2,
        "{mae} {report}"
    );
    let curves = service
        .get(&format!(
            "/v1/fine_tuning/jobs/{}/curves.svg",
            job["id"].as_str().unwrap()
        ))
        .await;
    assert!(curves.text().contains("validation RMSE"));
    let bundle = service.get(&format!("/v1/models/{model}/export")).await;
    let files = unzip(&bundle.body);
    let text = String::from_utf8_lossy(&files["README.md"]);
    assert!(
        text.contains("mean absolute error") && text.contains("num_classes=1"),
        "{text}"
    );
}
