//! A job with adapters, from the request to a model that nobody can tell from another: its weights
//! have them.

use std::collections::BTreeMap;

use rehead::domain::export::NetworkFormat;
use rehead_test_support::weights::{by_rules, safetensors, vit_tiny};
use serde_json::{Value, json};

use crate::support::{
    attempts::weights,
    data::{clipart_subset, demo, unzip},
    service::{Service, job_body},
};

/// A Vision Transformer with made-up weights, for inputs of 64 pixels. Needs a worker. Gives its
/// weights.
async fn vit(service: &Service) -> Vec<u8> {
    let weights = safetensors(&vit_tiny(64), by_rules);
    let file = service.upload("vit", "weights", weights.clone()).await;
    let body = json!({
        "id": "vit", "architecture": "vit_tiny_patch16_224", "weights": {"file": file.ok()["id"]},
        "preprocessing": {"input_size": 64},
    });
    service.post("/v1/base_models", &body).await.ok();
    weights
}

async fn trained(service: &Service, model: &str, file: &Value, transfer: &Value) -> Value {
    let body = job_body(model, file, transfer);
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job
}

/// Tensors of a safetensors file as bytes.
fn tensors(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let all = tensors.iter();
    all.map(|(name, view)| (name.to_owned(), view.data().to_vec()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_adapters_makes_an_ordinary_model() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let base = vit(&service).await;
    let file = service
        .dataset(clipart_subset(&["animals", "food", "plants"], 12))
        .await;
    let transfer = json!({
        "adapter": {"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
        // A probe could be the best of all, and its adapters are as they began.
        "head": {"init": "zero"},
        "hyperparameters": {"n_epochs": 4, "batch_size": 8},
        "early_stopping": {"metric": "valid_loss"},
    });

    // Asked first: what trains, and how much it is.
    let body = job_body("vit", &file, &transfer);
    let plan = service.post("/v1/fine_tuning/jobs/plan", &body).await.ok();
    let adapter = &plan["recipe"]["adapter"];
    assert_eq!(adapter["layers"].as_array().unwrap().len(), 48);
    assert_eq!(
        (&adapter["rank"], &adapter["alpha"], &adapter["dropout"]),
        (&json!(4), &json!(8.0), &json!(0.1))
    );
    // Inputs and outputs of a block's four layers, at rank 4; timm's vit_tiny has 5,717,416 with a
    // head for 1,000 classes and positions for 14 patches by 14, of which 4 by 4 are left here.
    let added = 12 * 4 * ((192 + 576) + (192 + 192) + 2 * (192 + 768));
    assert_eq!(
        plan["parameters"],
        json!({"frozen": 5_717_416 - 193_000 - 192 * (14 * 14 - 4 * 4), "trainable": added, "head": 3 * 193})
    );
    let rate = &plan["resolved"]["hyperparameters.backbone_learning_rate"];
    assert!(
        rate["reason"].as_str().unwrap().contains("ten times"),
        "{rate}"
    );

    let job = trained(&service, "vit", &file, &transfer).await;
    let estimate = plan["memory"]["peak_bytes"].as_u64().unwrap() as f64;
    let measured = job["attempts"][0]["peak_bytes"].as_u64().unwrap() as f64;
    println!("peak memory: {estimate} estimated, {measured} measured");
    assert!((0.5..2.0).contains(&(estimate / measured)));
    is_ordinary(&base, &weights(&service, &job).await);
    let model = job["fine_tuned_model"].as_str().unwrap();
    predicts_and_exports(&service, model).await;
    let image = std::fs::read(demo().join("unseen/food.png")).unwrap();
    service.checkpoint_predicts_as_the_model(&job, image).await;

    goes_on(&service, &job, &file).await;
    says_what_it_cannot(&service, &file).await;
}

/// timm's names and nothing else; what has no adapter is the base model's, bit for bit.
fn is_ordinary(base: &[u8], made: &[u8]) {
    let (base, made) = (tensors(base), tensors(made));
    let shapes = vit_tiny(64).into_iter();
    let mut names: Vec<String> = shapes.map(|(name, _)| name).collect();
    names.extend(["head.weight", "head.bias"].map(str::to_owned));
    names.sort();
    assert!(made.keys().eq(&names), "{:?}", made.keys());
    for (name, bytes) in &base {
        let is_adapted = ["qkv.weight", "proj.weight", "fc1.weight", "fc2.weight"];
        let is_adapted =
            name.starts_with("blocks.") && is_adapted.iter().any(|end| name.ends_with(end));
        assert_eq!(made[name] != *bytes, is_adapted, "{name}");
    }
}

async fn predicts_and_exports(service: &Service, model: &str) {
    let image = std::fs::read(demo().join("unseen/food.png")).unwrap();
    let answer = service.predict(model, image).await;
    let probabilities = answer["probabilities"].as_object().unwrap();
    assert_eq!(probabilities.len(), 3, "{answer}");
    let path = format!("/v1/models/{model}");
    for format in NetworkFormat::ALL {
        let file = service.get(&format!("{path}/export?format={format}")).await;
        assert_eq!(file.status, 200, "{}", file.text());
    }

    let bundle = service.get(&format!("{path}/export")).await;
    let files = unzip(&bundle.body);
    let config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
    assert_eq!(config["rehead"]["recipe"]["adapter"]["rank"], 4);
    let card = String::from_utf8_lossy(&files["README.md"]);
    assert!(
        card.contains("LoRA, rank 4, alpha 8") && card.contains("48 linear layers"),
        "{card}"
    );
}

/// From the model and from its best checkpoint alike: the first evaluation is the last job's best
/// one.
async fn goes_on(service: &Service, job: &Value, file: &Value) {
    let checkpoints = service.part(job, "/checkpoints").await;
    let mut checkpoints = checkpoints["data"].as_array().unwrap().iter();
    let best = checkpoints.find(|one| one["id"] == job["best_checkpoint"]);
    let best = best.unwrap_or_else(|| panic!("no best checkpoint: {job}"));
    let parents = [&job["fine_tuned_model"], &best["id"]];
    let adapter = json!({"type": "lora", "targets": ["blocks.11.mlp.fc1"]});
    for (parent, adapter) in parents.into_iter().zip([Value::Null, adapter]) {
        let transfer = json!({"adapter": adapter, "hyperparameters": {"n_epochs": 1}});
        let next = trained(service, parent.as_str().unwrap(), file, &transfer).await;
        let start = service.part(&next, "/metrics").await["evaluations"][0].clone();
        assert_eq!(start["step"], 0);
        let [was, is] = [&job["metrics"], &start].map(|one| one["valid_loss"].as_f64().unwrap());
        assert!(
            (was - is).abs() < 1e-4 * was.max(1e-3),
            "{parent}: {was} {is}"
        );
    }
}

/// Checks errors of names and contradictions, also while the file is not validated.
async fn says_what_it_cannot(service: &Service, file: &Value) {
    let misnamed = json!({"adapter": {"type": "lora", "targets": ["attn.qvk"]}});
    let both = json!({"adapter": {"type": "lora"}, "freeze": {"all_but_last_stages": 1}});
    let large = json!({"adapter": {"type": "lora", "rank": 193}});
    for (transfer, code, words) in [
        (misnamed, "unknown_layer", "did you mean `attn.qkv`"),
        (both, "contradiction", "instead of the backbone"),
        (large, "out_of_range", "give at most 192"),
    ] {
        for path in ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/plan"] {
            let refused = service.post(path, &job_body("vit", file, &transfer)).await;
            let said = refused.error(422, code);
            assert!(said.contains(words), "{said}");
        }
    }
}
