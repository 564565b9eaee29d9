//! A job that goes on from a model or a checkpoint: it begins where that ended, renumbers no class,
//! and says what it did to the classes that were known.

use rehead::db::{
    checkpoints,
    controls::{self, Answer},
    jobs::{self, Created, NewJob},
    models, parents, queue, retention,
};
use rehead_domain::job::{Control, JobStatus, Outcome};
use serde_json::{Value, json};

use crate::support::{
    data::{clipart_subset, demo, unzip, zip},
    queue::{Queue, checkpoint, steps},
    service::{Service, job_body},
};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_continue_from_models_and_checkpoints() {
    let service = Service::start().await;
    let worker = service.worker("worker", &[]);
    service.lite0().await;
    let two = service
        .dataset(clipart_subset(&["animals", "food"], 12))
        .await;
    let quick =
        json!({"hyperparameters": {"n_epochs": 4}, "early_stopping": {"metric": "valid_loss"}});
    let first = service.ended(&service.job(&two, &quick).await).await;
    assert_eq!(first["status"], "succeeded", "{first}");
    let model = first["fine_tuned_model"].as_str().unwrap().to_owned();

    // A class by another name is refused, by name; nothing that the head cannot follow is taken in
    // silence.
    let renamed = clipart_subset(&["animals", "food"], 8);
    let renamed = service.dataset(rename(&renamed, "animals", "animal")).await;
    for path in ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/plan"] {
        let refused = service
            .post(path, &job_body(&model, &renamed, &quick))
            .await;
        let error = refused.error(422, "new_class");
        assert!(
            error.contains("`animal`") && error.contains("did you mean `animals`"),
            "{error}"
        );
    }
    let mut cut = quick.clone();
    cut["cut"] = json!("blocks.3");
    let refused = service
        .post("/v1/fine_tuning/jobs", &job_body(&model, &two, &cut))
        .await;
    refused.error(422, "contradiction");
    let gone = job_body("ft:efficientnet_lite0::00000000", &two, &quick);
    service
        .post("/v1/fine_tuning/jobs", &gone)
        .await
        .error(422, "unknown_model");

    let planned = service
        .post("/v1/fine_tuning/jobs/plan", &job_body(&model, &two, &quick))
        .await
        .ok();
    assert_eq!(
        planned["recipe"]["inherited"],
        json!({"labels": ["animals", "food"], "known": 2})
    );

    // It starts at its parent's numbers; the parent stays while the job lives.
    let second = service
        .post("/v1/fine_tuning/jobs", &job_body(&model, &two, &quick))
        .await
        .ok();
    assert_eq!(second["model"], model.as_str());
    service
        .delete(&format!("/v1/models/{model}"))
        .await
        .error(409, "model_in_use");
    let second = service.ended(&second).await;
    assert_eq!(second["status"], "succeeded", "{second}\n{}", worker.log());
    let start = &service.part(&second, "/metrics").await["evaluations"][0];
    assert_eq!(start["step"], 0);
    assert_eq!(start["valid_accuracy"], first["metrics"]["valid_accuracy"]);
    let made = model_of(&service, &second).await;
    assert_eq!(
        (&made["parent"], &made["base_model"]),
        (&json!(model), &json!("efficientnet_lite0"))
    );

    // Fewer classes: the model knows the other one still.
    let checkpoint = service.part(&second, "/checkpoints").await["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let split = service
        .dataset(clipart_subset(&["food", "animals", "plants"], 12))
        .await;
    let mut extended = quick.clone();
    extended["labels"] = json!("extend");
    extended["hyperparameters"]["n_epochs"] = json!(30);
    extended["hyperparameters"]["learning_rate"] = json!(0.01);
    extended["early_stopping"] = json!({"metric": "valid_loss"});
    let third = service
        .post(
            "/v1/fine_tuning/jobs",
            &job_body(&checkpoint, &split, &extended),
        )
        .await
        .ok();
    let third = service.ended(&third).await;
    assert_eq!(third["status"], "succeeded", "{third}\n{}", worker.log());
    let image = std::fs::read(demo().join("unseen/food.png")).unwrap();
    service
        .checkpoint_predicts_as_the_model(&third, image)
        .await;
    let made = model_of(&service, &third).await;
    assert_eq!(made["labels"], json!(["animals", "food", "plants"]));
    assert_eq!(made["parent"], checkpoint.as_str());
    let report = service.part(&third, "/report").await;
    assert!(
        report["forgetting"]["samples"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert!(
        report["forgetting"]["accuracy_before"].as_f64().unwrap() > 0.5,
        "{report}"
    );
    // It learns the new class's samples too; where that helps no others, the start stays the best.
    let measured = service.part(&third, "/metrics").await;
    let evaluations = measured["evaluations"].as_array().unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let [start, first, .., last] = &evaluations[..] else {
        panic!("too few evaluations: {measured}");
    };
    assert!(
        number(&last["train_loss"]) < 0.5 * number(&first["train_loss"]),
        "{measured}"
    );
    assert!(number(&report["log_loss"]) <= number(&start["valid_loss"]) + 1e-6);

    // One class of three, in a file that is not validated yet when the job is made.
    let food = service
        .upload(
            "food.zip",
            "fine-tune",
            clipart_subset(&["food", "plants"], 8),
        )
        .await
        .ok();
    let name = made["id"].as_str().unwrap().to_owned();
    let fourth = service
        .post("/v1/fine_tuning/jobs", &job_body(&name, &food, &quick))
        .await
        .ok();
    let fourth = service.ended(&fourth).await;
    assert_eq!(fourth["status"], "succeeded", "{fourth}\n{}", worker.log());
    let made = model_of(&service, &fourth).await;
    assert_eq!(made["labels"], json!(["animals", "food", "plants"]));
    predicts_and_exports(&service, made["id"].as_str().unwrap()).await;
    assert!(
        service
            .delete(&format!("/v1/models/{model}"))
            .await
            .status
            .is_success()
    );
}

/// A checkpoint that a waiting job needs is neither thinned out nor deleted with its own job, and
/// its network stays.
#[tokio::test(flavor = "multi_thread")]
async fn parents_of_live_jobs_are_kept() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let first = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    let mut ids = Vec::new();
    for step in 1..=4 {
        let new = checkpoint(&claimed, step, step == 4);
        let id = queue::commit_checkpoint(pool, first, claimed.token, &new).await;
        ids.push(id.unwrap().unwrap());
    }
    let origin = parents::of_checkpoint(pool, queue.tenant, ids[0]).await;
    let origin = origin.unwrap().unwrap();
    assert_eq!(origin.model, "net");
    let parent = origin.parent.clone().unwrap();
    assert_eq!(parent.weights.len(), 1);
    let second = NewJob {
        origin: Some(origin),
        ..queue.new_job()
    };
    let created = jobs::create(pool, &second).await.unwrap();
    assert!(matches!(created, Created::New(_)), "{created:?}");

    let superseded = checkpoints::supersede(pool, first, claimed.token).await;
    assert_eq!(steps(&superseded.unwrap()), [2]);
    let ended = queue.end(&claimed, &Outcome::Succeeded).await;
    assert_eq!(ended, Some(JobStatus::Succeeded));
    let delete = || retention::begin_to_delete_job(pool, queue.tenant, first);
    assert_eq!(
        delete().await.unwrap(),
        retention::Deleted::InUse(second.id)
    );
    let of_model = models::delete(pool, queue.tenant, "net").await.unwrap();
    assert_eq!(of_model, models::Deleted::InUse(second.id));

    // The claim has the parent, and the base model's own weights under it.
    let claimed = queue.claim().await.unwrap();
    assert_eq!((claimed.job, &claimed.parent), (second.id, &Some(parent)));
    assert_eq!(claimed.base_model.weights_sha256, "ef".repeat(32));

    // A third goes on from the second, and so from the first too, when the second has ended.
    let new = checkpoint(&claimed, 1, true);
    let over = queue::commit_checkpoint(pool, second.id, claimed.token, &new).await;
    let over = over.unwrap().unwrap();
    let from_second = async || {
        let origin = parents::of_checkpoint(pool, queue.tenant, over).await;
        origin.unwrap()
    };
    let origin = from_second().await.unwrap();
    assert_eq!(origin.checkpoints, [ids[0], over]);
    let third = NewJob {
        origin: Some(origin.clone()),
        ..queue.new_job()
    };
    let created = jobs::create(pool, &third).await.unwrap();
    assert!(matches!(created, Created::New(_)), "{created:?}");
    let ended = queue.end(&claimed, &Outcome::Cancelled).await;
    assert_eq!(ended, Some(JobStatus::Cancelled));
    assert_eq!(delete().await.unwrap(), retention::Deleted::InUse(third.id));
    let cancelled = controls::ask(pool, queue.tenant, third.id, Control::Cancel);
    assert!(matches!(cancelled.await.unwrap(), Answer::Accepted));
    assert_eq!(delete().await.unwrap(), retention::Deleted::Begun);

    // What the second's checkpoints lie over is gone, and nothing goes on from them.
    assert_eq!(from_second().await, None);
    let late = NewJob {
        origin: Some(origin),
        ..queue.new_job()
    };
    let created = jobs::create(pool, &late).await.unwrap();
    assert!(!matches!(created, Created::New(_)), "{created:?}");

    // The base model's weights stay in the store for the model that was made of it, also without
    // its row.
    let deleted = models::delete(pool, queue.tenant, "net").await.unwrap();
    assert!(matches!(deleted, models::Deleted::Yes { .. }));
    let weights = format!("models/{}/", "ef".repeat(32));
    assert!(
        retention::unreferenced(pool, vec![weights])
            .await
            .unwrap()
            .is_empty()
    );
}

async fn model_of(service: &Service, job: &Value) -> Value {
    let model = job["fine_tuned_model"].as_str().unwrap();
    service.get(&format!("/v1/models/{model}")).await.ok()
}

async fn predicts_and_exports(service: &Service, model: &str) {
    let image = std::fs::read(demo().join("unseen/food.png")).unwrap();
    let answer = service.predict(model, image).await;
    let probabilities = answer["probabilities"].as_object().unwrap();
    assert_eq!(probabilities.len(), 3, "{answer}");
    let exported = service
        .get(&format!("/v1/models/{model}/export?format=torchscript"))
        .await;
    assert_eq!(exported.status, 200, "{}", exported.text());
}

/// The same archive with one folder by another name.
fn rename(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (format!("{from}/"), format!("{to}/"));
    let renamed = unzip(archive)
        .into_iter()
        .map(|(name, bytes)| (name.replace(&from, &to), bytes));
    zip(&renamed.collect::<Vec<_>>())
}
