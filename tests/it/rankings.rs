//! Rankings of base models, and jobs whose model is chosen by one.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rehead::{
    db::{
        rankings::{succeed, to_rank},
        work::{self, Kind},
        workers::{self, NewWorker},
    },
    jobs::resolve_waiting::resolve_waiting,
};
use rehead_domain::{
    id::WorkerId,
    ranking::{Order, Ranked, Scores},
};
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::{
        data::{clipart_subset, lite0_weights},
        service::Service,
    },
};

const PATH: &str = "/v1/model_rankings";

/// Registers Lite0 with these weights.
async fn register(service: &Service, id: &str, weights: Vec<u8>, license: Option<&str>) {
    let file = service.upload("weights", "weights", weights).await.ok();
    let body = json!({
        "id": id, "architecture": "tf_efficientnet_lite0", "weights": {"file": file["id"]},
        "source_task": {"name": "image classification"}, "license": license,
    });
    let model = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(model["status"], "ready", "{model}");
}

/// Lite0 as published, and with random weights.
async fn published_and_noise(service: &Service) {
    register(service, "published", lite0_weights(), Some("Apache-2.0")).await;
    let noise = service.untrained_weights("published").await;
    register(service, "noise", noise, None).await;
}

async fn dataset(service: &Service) -> Value {
    let classes = ["animals", "food", "people", "transportation"];
    service.dataset(clipart_subset(&classes, 16)).await
}

/// Asks for a ranking, and waits for its end.
async fn ranked(service: &Service, body: &Value) -> Value {
    let ranking = service.post(PATH, body).await.ok();
    assert_eq!(ranking["object"], "model_ranking");
    let path = format!("{PATH}/{}?wait=60", ranking["id"].as_str().unwrap());
    service.get(&path).await.ok()
}

fn models(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|model| model["model"].as_str().unwrap()).collect()
}

/// T20 and T23, in part: the twin with random weights comes last, and what is no candidate is
/// listed with its reason. Asking twice computes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_ranking_puts_published_weights_first() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    published_and_noise(&service).await;
    let file = dataset(&service).await;
    let body = json!({"training_file": file["id"]});
    let ranking = ranked(&service, &body).await;
    assert_eq!(ranking["status"], "succeeded", "{ranking}");
    assert_eq!(models(&ranking["data"]), ["published", "noise"]);
    let [first, last] = [0, 1].map(|place| &ranking["data"][place]);
    let score = |model: &Value| model["score"].as_f64().unwrap();
    let error = last["standard_error"].as_f64().unwrap();
    assert!(score(first) > score(last) + 2.0 * error, "{ranking}");
    assert_eq!(
        (&first["tied"], &last["tied"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(first["samples"], file["dataset"]["splits"]["train"]);
    assert!(first["macs"].as_u64().unwrap() > 300_000_000, "{first}");
    assert_eq!(first["license"], "Apache-2.0");
    assert!(ranking["seconds"].as_f64().unwrap() > 0.0);

    let again = ranked(&service, &body).await;
    assert_eq!(again["data"], ranking["data"]);
    assert_eq!(again["seconds"], 0.0);

    let licensed = json!({
        "training_file": file["id"],
        "candidates": {"licenses": ["Apache-2.0"], "models": ["published", "noise", "none"]},
    });
    let ranking = ranked(&service, &licensed).await;
    assert_eq!(models(&ranking["data"]), ["published"]);
    let reasons: Vec<(&str, &str)> = ["none", "noise"]
        .into_iter()
        .zip(["not_named", "license"])
        .collect();
    let found: Vec<(&str, &str)> = ranking["excluded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["model"].as_str().unwrap(),
                one["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, reasons);

    let list = service.get(&format!("{PATH}?order=asc")).await.ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
    let path = format!("{PATH}/{}", ranking["id"].as_str().unwrap());
    assert_eq!(service.delete(&path).await.ok()["deleted"], true);
    service.get(&path).await.error(404, "not_found");
    service.delete(&path).await.error(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_takes_the_first_of_the_ranking() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    published_and_noise(&service).await;
    let archive = clipart_subset(&["animals", "food", "people", "transportation"], 16);
    // The data set is still being validated.
    let file = service.upload("data.zip", "fine-tune", archive).await.ok();
    let body = json!({
        "model": "auto", "training_file": file["id"], "seed": 7,
        "method": {"type": "transfer", "transfer": {"freeze": "all", "hyperparameters": {"n_epochs": 1}}},
    });
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    assert_eq!(
        (&job["model"], &job["status"]),
        (&json!("auto"), &json!("validating_files"))
    );
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(
        (&job["model"], &job["requested_model"]),
        (&json!("published"), &json!("auto"))
    );
    let model = job["fine_tuned_model"].as_str().unwrap();
    assert!(model.starts_with("ft:published:"), "{model}");
    let resolved = &job["resolved"]["model"];
    assert_eq!(resolved["value"], "published");
    let reason = resolved["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("best of 2 by ridge accuracy 0."),
        "{reason}"
    );
    let ranking = service
        .get(&format!("{PATH}/{}", job["ranking"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(models(&ranking["data"]), ["published", "noise"]);
    let phases: Vec<&Value> = job["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["phase"])
        .collect();
    assert_eq!(phases[..3], ["waiting", "choosing", "waiting"]);

    // A plan chooses by the scores that are there, and says so where they are not.
    let plan = service.post("/v1/fine_tuning/jobs/plan", &body).await.ok();
    assert_eq!(
        (&plan["model"], &plan["resolved"]["model"]),
        (&job["model"], resolved)
    );
    let other = service
        .dataset(clipart_subset(&["animals", "food"], 20))
        .await;
    let mut unranked = body.clone();
    unranked["training_file"] = other["id"].clone();
    let message = service
        .post("/v1/fine_tuning/jobs/plan", &unranked)
        .await
        .error(422, "not_ranked");
    assert!(message.contains("2 base models"), "{message}");

    // One candidate needs no ranking; options that none fits are refused with the reasons.
    let mut only = unranked.clone();
    only["candidates"] = json!({"models": ["noise"]});
    let plan = service.post("/v1/fine_tuning/jobs/plan", &only).await.ok();
    assert_eq!(plan["resolved"]["model"]["reason"], "the only candidate");
    let mut none = unranked;
    none["method"]["transfer"]["cut"] = json!("nowhere");
    let message = service
        .post("/v1/fine_tuning/jobs", &none)
        .await
        .error(422, "no_candidate");
    assert!(
        message.contains("`noise`") && message.contains("nowhere"),
        "{message}"
    );
}

#[tokio::test]
async fn bad_rankings_are_refused_before_any_work() {
    let service = Service::start_with(&["--max-rankings", "1"]).await;
    // A validated data set, and one base model, `net`.
    let job = queued_job(&service).await;
    let none = json!({"training_file": format!("file-{}", "0".repeat(32))});
    service.post(PATH, &none).await.error(422, "unknown_file");
    let waiting = service.upload("a.zip", "fine-tune", vec![1]).await.ok();
    let waiting = json!({"training_file": waiting["id"]});
    service.post(PATH, &waiting).await.error(422, "not_ready");
    let weights = service.upload("w.pth", "weights", vec![1]).await.ok();
    let weights = json!({"training_file": weights["id"]});
    service
        .post(PATH, &weights)
        .await
        .error(422, "unusable_file");

    let ranking = |candidates: Value| json!({"training_file": job["training_file"], "candidates": candidates});
    let message = service
        .post(PATH, &ranking(json!({"max_parameters": 1})))
        .await
        .error(422, "no_candidate");
    assert!(message.contains("`net`: it has"), "{message}");
    service
        .post(PATH, &ranking(json!({"models": []})))
        .await
        .error(422, "out_of_range");
    let beside = json!({"model": "net", "training_file": job["training_file"], "candidates": {}});
    service
        .post("/v1/fine_tuning/jobs", &beside)
        .await
        .error(422, "contradiction");
    let reserved = json!({"id": "auto", "architecture": "resnet18", "weights": {"file": weights["training_file"]}});
    service
        .post("/v1/base_models", &reserved)
        .await
        .error(422, "invalid_value");

    // A job that fits in no worker waits for none: its model is no candidate.
    let pool = service.pool().await;
    let worker = NewWorker {
        id: WorkerId::new(),
        host: "small".to_owned(),
        pid: 1,
        version: "1".to_owned(),
        device: "cpu".to_owned(),
        slots: 1,
    };
    workers::register(&pool, &worker).await.unwrap();
    let offer = async |mb: u32| {
        let sizes = (mb, mb);
        workers::offer(&pool, worker.id, "cpu", sizes, Duration::from_secs(600))
            .await
            .unwrap();
    };
    let auto = json!({"model": "auto", "training_file": job["training_file"]});
    let path = "/v1/fine_tuning/jobs";
    offer(1).await;
    let message = service.post(path, &auto).await.error(422, "no_candidate");
    let (_, needed) = message.split_once("`net`: its training needs ").unwrap();
    let (needed, rest) = needed.split_once(' ').unwrap();
    let needed: u32 = needed.parse().unwrap();
    assert!(
        rest.starts_with("MiB of memory, and the largest worker has 1 MiB"),
        "{message}"
    );
    offer(needed - 1).await;
    service.post(path, &auto).await.error(422, "no_candidate");
    offer(needed).await;
    service.post(path, &auto).await.ok();

    // Another tenant has neither the file nor the ranking.
    let body = ranking(json!({}));
    let ranking = service.post(PATH, &body).await.ok();
    service.post(PATH, &body).await.error(429, "queue_full");
    assert_eq!(
        (&ranking["status"], &ranking["candidates"]),
        (&json!("queued"), &json!(1))
    );
    let path = format!("{PATH}/{}", ranking["id"].as_str().unwrap());
    let key = service
        .new_key("other", rehead_domain::role::Role::User)
        .await;
    let foreign = service
        .send(reqwest::Method::GET, &path, |request| {
            request.bearer_auth(&key)
        })
        .await;
    foreign.error(404, "not_found");
}

#[tokio::test]
async fn a_job_whose_ranked_models_are_gone_fails() {
    let service = Service::start().await;
    let other = queued_job(&service).await;
    let pool = service.pool().await;
    // A second base model like the first.
    let copy = "insert into models
        select (jsonb_populate_record(one, '{\"id\": \"twin\"}')).* from models one where id = 'net'";
    sqlx::query(copy).execute(&pool).await.unwrap();
    let body = json!({"model": "auto", "training_file": other["training_file"]});
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    resolve_waiting(&pool).await.unwrap();
    let lease = work::claim(
        &pool,
        WorkerId::new(),
        &[Kind::Rank],
        Duration::from_secs(60),
    )
    .await;
    let lease = lease.unwrap().unwrap();
    let asked = to_rank(&pool, &lease).await.unwrap().unwrap();
    let scored = asked
        .candidates
        .iter()
        .enumerate()
        .map(|(candidate, _)| Ranked {
            candidate,
            scores: Scores {
                samples: 80,
                features: 8,
                score: 0.5,
                resampled: Vec::new(),
                knn_accuracy: None,
                log_me: None,
                h_score: None,
                seconds: 1.0,
            },
            tied: false,
        });
    let order = Order {
        ranked: scored.collect(),
        failed: Vec::new(),
    };
    let ranked = order.models(&asked.candidates);
    assert_eq!(ranked.len(), 2);
    assert!(succeed(&pool, &lease, &ranked, &[]).await.unwrap());
    service.ask(&other, "cancel").await.ok();
    for model in ["net", "twin"] {
        service.delete(&format!("/v1/models/{model}")).await.ok();
    }
    resolve_waiting(&pool).await.unwrap();
    let job = service.get(&service.path(&job)).await.ok();
    assert_eq!(
        (&job["status"], &job["error"]["code"]),
        (&json!("failed"), &json!("no_candidate")),
        "{job}"
    );
}

/// Numbers of samples in the files of cached features.
fn cached_rows(worker: &Path) -> Vec<usize> {
    let files = fs::read_dir(worker.join("cache/features")).unwrap();
    let rows = files.map(|file| {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("features").unwrap().shape()[0]
    });
    rows.collect()
}

/// T24, in part: a race computes the features of a sample once, however many rounds score it, and
/// ends with the scores that it has without rounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_computes_features_once() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let weights = service.upload("w", "weights", lite0_weights()).await.ok();
    for side in [32, 36, 40, 44, 48, 52, 56, 60, 64] {
        let body = json!({
            "id": format!("at-{side}"), "architecture": "tf_efficientnet_lite0", "weights": {"file": weights["id"]},
            "source_task": {"name": "image classification"}, "preprocessing": {"input_size": side},
        });
        service.post("/v1/base_models", &body).await.ok();
    }
    let classes = ["animals", "food", "people", "transportation"];
    let file = service.dataset(clipart_subset(&classes, 90)).await;
    let train = file["dataset"]["splits"]["train"].as_u64().unwrap();
    assert!(train > 256, "{file}");
    let raced = ranked(&service, &json!({"training_file": file["id"]})).await;
    let raced = raced["data"].as_array().unwrap();
    let samples = |model: &Value| model["samples"].as_u64().unwrap();
    assert_eq!((raced.len(), samples(&raced[0])), (9, train));
    let cached: usize = cached_rows(&service.dir.path().join("worker")).iter().sum();
    assert_eq!(cached as u64, raced.iter().map(samples).sum::<u64>());

    // Forget the scores, and rank those of the last round without a race.
    let pool = service.pool().await;
    sqlx::query("delete from scores")
        .execute(&pool)
        .await
        .unwrap();
    let mut last: Vec<&Value> = raced
        .iter()
        .filter(|model| samples(model) == train)
        .collect();
    last.truncate(2);
    let body = json!({"training_file": file["id"], "candidates": {"models": last.iter().map(|one| &one["model"]).collect::<Vec<_>>()}});
    let whole = ranked(&service, &body).await;
    let scores = |models: Vec<&Value>| -> BTreeMap<String, f64> {
        let named = |one: &Value| {
            (
                one["model"].as_str().unwrap().to_owned(),
                one["score"].as_f64().unwrap(),
            )
        };
        models.into_iter().map(named).collect()
    };
    let whole = scores(whole["data"].as_array().unwrap().iter().collect());
    for (model, score) in scores(last) {
        let apart = (score - whole[&model]).abs();
        assert!(
            apart < 2.5 / train as f64,
            "{model}: {score}, {}",
            whole[&model]
        );
    }
}

/// T22: a worker that dies after a score leaves the rest to the next one, and its scores stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_ranking_goes_on_with_the_next_model() {
    let service = Service::start_with(&["--lease-ms", "2000", "--reap-ms", "200"]).await;
    let worker = |name: &str| service.worker(name, &["--lease-ms", "2000", "--reap-ms", "200"]);
    let first = worker("first");
    published_and_noise(&service).await;
    let file = dataset(&service).await;
    // The same weights at other sides are other models.
    for side in [64, 96] {
        let file = service
            .upload("weights", "weights", lite0_weights())
            .await
            .ok();
        let body = json!({
            "id": format!("at-{side}"), "architecture": "tf_efficientnet_lite0", "weights": {"file": file["id"]},
            "source_task": {"name": "image classification"}, "preprocessing": {"input_size": side},
        });
        service.post("/v1/base_models", &body).await.ok();
    }
    let ranking = service
        .post(PATH, &json!({"training_file": file["id"]}))
        .await
        .ok();
    let pool = service.pool().await;
    let kept = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from scores");
        count.fetch_one(&pool).await.unwrap()
    };
    let mut workers = vec![first];
    for scores in 1..=3 {
        while kept().await < scores {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let last = workers.last().unwrap();
        kill(Pid::from_raw(last.pid()), Signal::SIGKILL).unwrap();
        workers.push(worker(&format!("after {scores}")));
    }
    let path = format!("{PATH}/{}?wait=60", ranking["id"].as_str().unwrap());
    let ended = service.get(&path).await.ok();
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(models(&ended["data"]).len(), 4);
    assert_eq!(models(&ended["data"])[3], "noise");
    assert_eq!(kept().await, 4);
}
