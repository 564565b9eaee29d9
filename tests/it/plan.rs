//! A plan says what a job would be, and queues nothing.

use serde_json::{Value, json};

use crate::support::{
    data::{clipart_subset, zip},
    service::{Service, job_body},
};

const PLAN: &str = "/v1/fine_tuning/jobs/plan";

fn body(file: &Value, transfer: Value) -> Value {
    job_body("efficientnet_lite0", file, &transfer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_what_the_job_then_does() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food", "plants"], 12))
        .await;
    let body = body(
        &file,
        json!({"freeze": {"all_but_last_stages": 1}, "hyperparameters": {"n_epochs": 2, "batch_size": 10}}),
    );
    let plan = service.post(PLAN, &body).await.ok();
    let jobs = service.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(jobs["data"], json!([]), "a plan queues nothing");

    let trainable = ["conv_head.weight", "bn2.weight", "bn2.bias"];
    assert_eq!(plan["recipe"]["trainable"], json!(trainable));
    // Lite0's last stage is a 1x1 convolution from 320 to 1280 channels and its BatchNorm; all of
    // it with its head: 4,652,008.
    let last_stage = 320 * 1280 + 2 * 1280;
    let backbone = 4_652_008 - 1000 * 1281;
    assert_eq!(
        plan["parameters"],
        json!({"frozen": backbone - last_stage, "trainable": last_stage, "head": 3 * 1281})
    );
    assert_eq!(plan["head"], json!({"inputs": 1280, "outputs": 3}));
    let trained = u64::try_from(last_stage + 3 * 1281).unwrap();
    let frozen = u64::try_from(backbone - last_stage).unwrap();
    assert_eq!(plan["tensor_bytes"], 4 * (frozen + 5 * trained), "{plan}");
    assert_eq!(plan["time"]["measured_on"], 0, "no job was measured yet");
    let guessed = plan["time"]["seconds"].as_f64().unwrap();

    let deep =
        json!({"cut": "blocks.6", "head": {"layers": [{"linear": 16}, {"batch_norm": true}]}});
    let cut = service.post(PLAN, &self::body(&file, deep)).await.ok();
    assert_eq!(cut["head"]["inputs"], 320);
    assert_eq!(cut["parameters"]["head"], 321 * 16 + 2 * 16 + 17 * 3);
    assert_eq!(cut["parameters"]["frozen"], backbone - last_stage);

    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    assert_eq!(job["resolved"], plan["resolved"]);
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["recipe"], plan["recipe"]);
    let listed = service.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(listed["data"][0]["recipe"], Value::Null);
    assert_eq!(job["progress"]["n_steps"], plan["n_steps"]);
    assert_eq!(job["progress"]["step"], plan["n_steps"]);

    let estimate = plan["memory"]["peak_bytes"].as_u64().unwrap() as f64;
    let measured = job["attempts"][0]["peak_bytes"].as_u64().unwrap() as f64;
    println!("peak memory: {estimate} estimated, {measured} measured");
    assert!(
        (0.5..2.0).contains(&(estimate / measured)),
        "{estimate} {measured}"
    );
    let asked = std::time::Instant::now();
    let again = service.post(PLAN, &body).await.ok();
    assert!(asked.elapsed().as_secs_f64() < 1.0, "{:?}", asked.elapsed());
    assert_eq!(again["time"]["measured_on"], 1);
    let seconds = again["time"]["seconds"].as_f64().unwrap();
    println!("time: {guessed} s guessed from the import, {seconds} s by the job that ran");
    assert!(seconds > 0.1 && seconds < 300.0, "{seconds}");
    assert!(
        (0.05..20.0).contains(&(guessed / seconds)),
        "{guessed} {seconds}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_all_problems_and_what_is_wrong_with_the_data() {
    let service = Service::start().await;
    let importer = service.worker("importer", &[]);
    service.lite0().await;
    drop(importer);
    let mut entries = Vec::new();
    for class in ["animals", "food"] {
        for i in 0..12_u8 {
            let image = image::RgbImage::from_fn(8, 8, |x, y| {
                image::Rgb([x as u8 * 9, y as u8 * 9, i * 20 + class.len() as u8])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            entries.push((format!("{class}/{i}.png"), bytes.into_inner()));
        }
    }
    entries.push(("food/broken.png".to_owned(), b"no image".to_vec()));
    let archive = zip(&entries);
    let uploaded = service.upload("data.zip", "fine-tune", archive).await.ok();
    service
        .post(PLAN, &body(&uploaded, json!({})))
        .await
        .error(422, "not_ready");

    let _worker = service.worker("worker", &[]);
    let id = uploaded["id"].as_str().unwrap();
    service
        .until(&format!("/v1/files/{id}"), "validated file", |file| {
            file["status"] == "processed"
        })
        .await;
    let plan = service.post(PLAN, &body(&uploaded, json!({}))).await.ok();
    let warnings = plan["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().any(|one| one["path"] == "food/broken.png"),
        "{warnings:?}"
    );

    let wrong = body(
        &uploaded,
        json!({"freeze": {"blocks": ["blocks.66"]}, "hyperparameters": {"batch_size": 4_000}}),
    );
    let said = service.post(PLAN, &wrong).await.error(422, "unknown_layer");
    assert!(
        said.contains("batch_too_large") && said.contains("blocks.6"),
        "{said}"
    );
}
