//! What cannot train ends with a code.

use rehead_domain::{
    progress::Progress,
    recipe::{Head, HeadInit, Recipe},
};
use serde_json::{Value, json};
use tch::Tensor;

use super::evaluations;
use crate::support::{
    data::clipart_subset,
    service::Service,
    training::{Material, recipe},
};

#[test]
fn trap_26_what_cannot_train_is_an_error_with_a_code() {
    let material = Material::new(10);
    let boundless = Recipe {
        learning_rate: 3e38,
        n_epochs: 5,
        ..recipe()
    };
    let mut run = material.start("boundless", &material.plan(boundless));
    let (said, _) = run.end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "diverged");
    // Clipping where nothing but the head trains, and a batch of more samples than there are, are no errors.
    let lone = Recipe {
        gradient_clip: Some(1.0),
        batch_size: 1_000,
        ..recipe()
    };
    assert_eq!(evaluations(&material, "lone", lone).len(), 1);
}

/// SGD's decay of 10 at a rate of 100 makes each weight a thousand times larger in each step: finite at first, not for long.
#[test]
fn trap_26_what_a_run_that_diverges_has_saved_is_finite() {
    let material = Material::new(10);
    let head = Head {
        layers: Vec::new(),
        init: HeadInit::Normal,
    };
    let growing = Recipe {
        head,
        n_epochs: 200,
        learning_rate: 100.0,
        weight_decay: 10.0,
        gradient_clip: Some(1.0),
        checkpoint_every_seconds: 0,
        ..recipe()
    };
    let mut run = material.start("growing", &material.plan(growing));
    let (said, _) = run.end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "diverged");
    let saved = said.iter().filter_map(|said| match said {
        Progress::Saved { step, .. } => Some(*step),
        _ => None,
    });
    // Every step before that one is saved.
    let next = format!("step {}", saved.max().unwrap() + 1);
    assert!(failure.message.contains(&next), "{next}: {failure:?}");
    let path = run.newest_checkpoint().join("model.safetensors");
    let tensors = Tensor::read_safetensors(path).unwrap();
    assert!(!tensors.is_empty());
    for (name, tensor) in tensors {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1, "{name}");
    }
}

/// The same as a job.
#[tokio::test(flavor = "multi_thread")]
async fn trap_26_a_job_that_diverges_ends_at_that_step_and_keeps_what_was_finite() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 12))
        .await;
    let job = service
        .job(
            &file,
            &json!({
                "freeze": "all", "head": {"init": "normal"}, "checkpoint_every_seconds": 1,
                "hyperparameters": {
                    "n_epochs": 200, "batch_size": 8, "optimizer": "sgd", "schedule": "constant",
                    "learning_rate": 100, "weight_decay": 10, "gradient_clip": 1,
                },
            }),
        )
        .await;
    let job = service.ended(&job).await;
    assert_eq!(
        (&job["status"], &job["error"]["code"]),
        (&json!("failed"), &json!("diverged")),
        "{job}"
    );
    assert_eq!(
        job["attempts"].as_array().unwrap().len(),
        1,
        "no other try helps: {job}"
    );
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("learning_rate"), "{message}");

    // Every number in the answers is one: NaN has no JSON.
    let metrics = service.part(&job, "/metrics").await;
    let losses = metrics["columns"]["train_loss"].as_array().unwrap();
    let (last, before) = losses.split_last().unwrap();
    assert!(
        before.len() > 1 && before.iter().all(Value::is_number),
        "{losses:?}"
    );
    assert!(last.is_null() || last.is_number(), "{last}");
    assert!(
        message.contains(&format!("step {}", losses.len())),
        "{message} after {} losses",
        losses.len()
    );
}
