//! Jobs in short: the list agrees with the jobs, filters, sorts, searches and counts them, stays
//! short, and is kept current by what has changed.

use std::time::{Duration, Instant};

use rehead::domain::role::Role;
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::service::{Answer, Service},
};

const PATH: &str = "/v1/fine_tuning/job_summaries";

fn data(answer: Answer) -> Vec<Value> {
    let page = answer.ok();
    page["data"].as_array().unwrap().clone()
}

/// Each field of a summary that the job has too has the job's value.
#[track_caller]
pub(crate) fn assert_agrees(summary: &Value, job: &Value) {
    let same = [
        "id",
        "created_at",
        "started_at",
        "finished_at",
        "status",
        "phase",
        "model",
        "fine_tuned_model",
        "suffix",
        "training_file",
        "validation_file",
        "stop_requested_at",
        "cancel_requested_at",
    ];
    for name in same {
        assert_eq!(summary[name], job[name], "{name} of {summary}");
    }
    let has_ended = job["is_terminal"] == true;
    for name in ["fraction", "step", "n_steps"] {
        let expected = match name {
            "step" | "n_steps" if has_ended => &Value::Null,
            _ => &job["progress"][name],
        };
        assert_eq!(summary[name], *expected, "{name} of {summary}");
    }
    let attempts = job["attempts"].as_array().unwrap();
    let last = attempts.last().filter(|_| !has_ended);
    let last = last.unwrap_or(&Value::Null);
    for name in ["number", "worker", "started_at", "ended_at", "outcome"] {
        assert_eq!(summary["last_attempt"][name], last[name], "{summary}");
    }
    if let Some(metric) = summary["metric"]["name"].as_str() {
        let value = job["metrics"][metric].as_f64().unwrap();
        let shown = summary["metric"]["value"].as_f64().unwrap();
        assert!((shown - value).abs() <= 5.1e-7, "{summary}");
    }
    assert_eq!(summary["metric"].is_null(), job["metrics"].is_null());
}

/// A job of the same model and data set.
async fn queued_beside(service: &Service, job: &Value) -> Value {
    let body = json!({"model": job["model"], "training_file": job["training_file"]});
    service.post("/v1/fine_tuning/jobs", &body).await.ok()
}

#[tokio::test]
async fn job_summaries_agree_with_their_jobs() {
    let service = Service::start().await;
    let first = queued_job(&service).await;
    let second = queued_beside(&service, &first).await;
    let path = service.path(&first);
    service
        .post(&format!("{path}/cancel"), &json!({}))
        .await
        .ok();
    let summaries = data(service.get(PATH).await);
    let ids: Vec<&Value> = summaries.iter().map(|summary| &summary["id"]).collect();
    assert_eq!(ids, [&second["id"], &first["id"]]);
    for summary in &summaries {
        assert_eq!(summary["object"], "fine_tuning.job.summary");
        let job = format!("/v1/fine_tuning/jobs/{}", summary["id"].as_str().unwrap());
        assert_agrees(summary, &service.get(&job).await.ok());
        assert!(summary.to_string().len() <= 600, "{summary}");
    }
    // The queue was read at most a second ago, when the first job may still have been ahead.
    let waiting = &summaries[0]["queue"];
    assert_eq!(waiting["reason"], "no_worker");
    assert!(waiting["ahead"].as_u64().unwrap() <= 1, "{waiting}");

    for (query, expected) in [
        ("is_terminal=true", vec![&first["id"]]),
        ("is_terminal=false", vec![&second["id"]]),
        ("status=cancelled", vec![&first["id"]]),
        ("order=asc", vec![&first["id"], &second["id"]]),
        ("model=none", vec![]),
        ("metadata[team]=none", vec![]),
    ] {
        let found = data(service.get(&format!("{PATH}?{query}")).await);
        let ids: Vec<&Value> = found.iter().map(|summary| &summary["id"]).collect();
        assert_eq!(ids, expected, "{query}");
        // The list of jobs has the same conditions.
        let jobs = data(service.get(&format!("/v1/fine_tuning/jobs?{query}")).await);
        assert_eq!(jobs.len(), expected.len(), "{query}");
    }
}

#[tokio::test]
async fn job_summaries_come_in_pages_up_to_a_limit() {
    let service = Service::start_with(&["--max-long-page", "3"]).await;
    let first = queued_job(&service).await;
    let mut made = vec![first["id"].clone()];
    for _ in 0..3 {
        made.push(queued_beside(&service, &first).await["id"].clone());
    }
    let page = service.get(&format!("{PATH}?order=asc&limit=3")).await.ok();
    assert_eq!(
        (&page["last_id"], &page["has_more"]),
        (&made[2], &json!(true))
    );
    let last = made[2].as_str().unwrap();
    let rest = data(
        service
            .get(&format!("{PATH}?order=asc&limit=3&after={last}"))
            .await,
    );
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0]["id"], made[3]);
    let problem = service.get(&format!("{PATH}?limit=4")).await;
    problem.error(422, "out_of_range");
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Makes a queued job, and gives its row what a worker would.
async fn job_with(service: &Service, like: &Value, more: Value, set: &str) -> String {
    let mut body = json!({"model": like["model"], "training_file": like["training_file"]});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let id = job["id"].as_str().unwrap().to_owned();
    if !set.is_empty() {
        let row: uuid::Uuid = id.strip_prefix("ftjob-").unwrap().parse().unwrap();
        let statement = format!("update jobs set {set} where id = $1");
        let update = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(row);
        update.execute(&service.pool().await).await.unwrap();
    }
    id
}

/// Each order, page by page: no job twice, none left out, those without a value last.
#[tokio::test]
async fn job_summaries_are_sorted_page_by_page() {
    let service = Service::start().await;
    let first = queued_job(&service).await;
    let metrics = |accuracy: f64| {
        format!(
            r#"metrics = '{{"step": 1, "epoch": 1, "train_loss": null, "valid_loss": 1, "valid_accuracy": {accuracy}}}'"#
        )
    };
    let rmse = r#"metrics = '{"step": 1, "epoch": 1, "train_loss": null, "valid_loss": 1, "valid_rmse": 3.5}'"#;
    let started = |seconds: u32| format!("started_at = now() - interval '{seconds} s'");
    let of = async |set: &str| job_with(&service, &first, json!({}), set).await;
    let none = first["id"].as_str().unwrap().to_owned();
    let low = of(&format!("{}, {}", metrics(0.1), started(9_000))).await;
    let high = of(&format!("{}, {}", metrics(0.9), started(100))).await;
    let error = of(&format!("{rmse}, {}", started(500))).await;
    let same = of(&metrics(0.9)).await;
    let cancelled = of("").await;
    let path = format!("/v1/fine_tuning/jobs/{cancelled}/cancel");
    service.post(&path, &json!({})).await.ok();

    let all = async |sort: &str, limit: usize| -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = format!("{PATH}?sort={sort}&limit={limit}{after}");
            let page = service.get(&page).await.ok();
            assert_eq!(page["count"], 6);
            found.extend(ids(&page));
            if page["has_more"] == false {
                return found;
            }
            after = format!("&after={}", page["last_id"].as_str().unwrap());
        }
    };
    let by_age = [&cancelled, &same, &error, &high, &low, &none];
    let mut oldest = by_age;
    oldest.reverse();
    let expected = [
        ("-created_at", by_age),
        ("created_at", oldest),
        // Equal values: the newest first.
        ("-metric", [&same, &high, &low, &error, &cancelled, &none]),
        ("metric", [&error, &low, &same, &high, &cancelled, &none]),
        ("-duration", [&low, &error, &high, &cancelled, &same, &none]),
        ("duration", [&high, &error, &low, &cancelled, &same, &none]),
        ("-model", by_age),
        ("model", by_age),
        ("status", by_age),
        ("-status", [&same, &error, &high, &low, &none, &cancelled]),
    ];
    for (sort, expected) in expected {
        let expected: Vec<&str> = expected.into_iter().map(String::as_str).collect();
        for limit in [1, 2, 100] {
            assert_eq!(all(sort, limit).await, expected, "{sort} by {limit}");
        }
    }
    for (query, code) in [
        ("sort=size", "invalid_value"),
        ("sort=-metric&order=asc", "contradiction"),
        ("wait=1", "contradiction"),
        (
            "changed_since=1-0000000000000000&sort=status",
            "contradiction",
        ),
        ("changed_since=yesterday", "invalid_value"),
        ("sort=metric&after=ftjob-x", "invalid_value"),
        (&format!("sort=metric&after={low}"), "invalid_value"),
        (&format!("after={low}:0.5"), "invalid_value"),
        (&format!("q={}", "x".repeat(256)), "out_of_range"),
    ] {
        let answer = service.get(&format!("{PATH}?{query}")).await;
        answer.error(422, code);
    }
    let found = data(service.get(&format!("{PATH}?sort=-metric&limit=1")).await);
    let metric = &found[0]["metric"];
    assert_eq!(
        (&metric["name"], &metric["value"]),
        (&json!("valid_accuracy"), &json!(0.9))
    );
    // 18 of the 20 samples that validate.
    assert_eq!(metric["interval"], json!([0.699, 0.9721]));
}

/// A23: a search is literal, and finds what belongs to the tenant.
#[tokio::test]
async fn job_summaries_are_searched_literally() {
    let mut service = Service::start().await;
    let first = queued_job(&service).await;
    let plain = job_with(&service, &first, json!({"suffix": "Garbage-100"}), "").await;
    let metadata = json!({"metadata": {"team": "50%_off", "note": "Größe '; drop table jobs; --"}});
    let marked = job_with(&service, &first, metadata, "").await;
    let first = first["id"].as_str().unwrap();
    for (q, expected) in [
        ("garbage", vec![&*plain]),
        ("GARBAGE-1", vec![&*plain]),
        ("garbage_100", vec![]),
        ("%25", vec![&*marked]),
        ("50%25_o", vec![&*marked]),
        ("5%250", vec![]),
        ("team%3D50", vec![&*marked]),
        ("gr%C3%B6sse", vec![]),
        ("gr%C3%B6%C3%9Fe", vec![&*marked]),
        ("%27%3B%20drop", vec![&*marked]),
        (&first[6..], vec![first]),
        ("_", vec![&*marked, &*plain, first]),
        ("", vec![&*marked, &*plain, first]),
        ("resnet", vec![]),
    ] {
        let page = service.get(&format!("{PATH}?q={q}")).await.ok();
        let found = ids(&page);
        // The base model's name has an underscore, too.
        let expected = if q == "_" && found.len() == 1 {
            vec![&*marked]
        } else {
            expected
        };
        assert_eq!(found, expected, "{q}");
        assert_eq!(page["count"], found.len(), "{q}");
    }
    service.key = Some(service.new_key("stranger", Role::User).await);
    let page = service.get(&format!("{PATH}?q=garbage")).await.ok();
    assert_eq!((&page["data"], &page["count"]), (&json!([]), &json!(0)));
    let since = format!("{PATH}?changed_since=0-0000000000000000");
    let page = service.get(&since).await.ok();
    assert_eq!(page["data"], json!([]));
}

/// A table follows its jobs by one request: what changed, once, at once, and whether it still
/// belongs to the table.
#[tokio::test]
async fn job_summaries_tell_what_has_changed() {
    let service = Service::start().await;
    let first = queued_job(&service).await;
    let second = queued_beside(&service, &first).await;
    let page = service.get(PATH).await.ok();
    let mut version = page["version"].as_str().unwrap().to_owned();
    let follow = async |version: &str, more: &str| {
        let path = format!("{PATH}?changed_since={version}{more}");
        service.get(&path).await.ok()
    };
    // Nothing has changed: the request waits.
    let started = Instant::now();
    let page = follow(&version, "&wait=1").await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        (&page["data"], &page["has_more"]),
        (&json!([]), &json!(false))
    );
    assert!(page["count"].is_null());
    version = page["version"].as_str().unwrap().to_owned();

    // A change ends the wait, and is told once; within two seconds, others are told with it.
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        service.ask(&second, "cancel").await.ok();
    };
    let started = Instant::now();
    let (page, ()) = tokio::join!(follow(&version, "&wait=20&status=queued"), cancel);
    assert!(started.elapsed() < Duration::from_secs(5));
    let row = &page["data"][0];
    assert_eq!(
        (&row["id"], &row["status"], &row["matches"]),
        (&second["id"], &json!("cancelled"), &json!(false))
    );
    version = page["version"].as_str().unwrap().to_owned();
    let started = Instant::now();
    let page = follow(&version, "&wait=1").await;
    assert!(started.elapsed() >= Duration::from_secs(1), "{page}");
    assert_eq!(page["data"], json!([]));

    // A change that commits after a later one was read, as a slow transaction's does.
    let pool = service.pool().await;
    let mut slow = rehead::db::begin(&pool).await.unwrap();
    let row: uuid::Uuid = first["id"].as_str().unwrap()[6..].parse().unwrap();
    let update = "update jobs set step = step + 1 where id = $1";
    sqlx::query(update)
        .bind(row)
        .execute(&mut *slow)
        .await
        .unwrap();
    let third = queued_beside(&service, &first).await;
    let page = follow(&version, "&wait=5").await;
    assert!(ids(&page).contains(&third["id"].as_str().unwrap().to_owned()));
    version = page["version"].as_str().unwrap().to_owned();
    slow.commit().await.unwrap();
    let page = follow(&version, "&wait=5").await;
    assert!(
        ids(&page).contains(&first["id"].as_str().unwrap().to_owned()),
        "{page}"
    );

    // More than a page holds: the list is to be read again.
    let page = follow("0-0000000000000000", "&limit=2").await;
    assert_eq!((ids(&page).len(), &page["has_more"]), (2, &json!(true)));
    assert_eq!(page["data"][0]["id"], third["id"], "the last change first");
}

/// D7: with ten thousand jobs a page of each order takes a fraction of a second, and no more than
/// ten thousand are counted.
#[tokio::test]
async fn ten_thousand_job_summaries_are_listed_quickly() {
    let service = Service::start().await;
    let first = queued_job(&service).await;
    let row: uuid::Uuid = first["id"].as_str().unwrap()[6..].parse().unwrap();
    let copy = "insert into jobs (id, tenant_id, status, model, training_file, result_model, seed, timeout_seconds,
            metadata, request, recipe, metrics)
        select gen_random_uuid(), tenant_id, status, model, training_file, result_model || n, seed, timeout_seconds,
            jsonb_build_object('n', n::text), request, recipe, jsonb_build_object('step', 1, 'epoch', 1,
                'train_loss', null, 'valid_loss', 1, 'valid_accuracy', (n * 37 % 1000) / 1000.0)
        from jobs, generate_series(1, 10050) n where id = $1";
    let pool = service.pool().await;
    sqlx::query(copy).bind(row).execute(&pool).await.unwrap();
    sqlx::query("analyze jobs").execute(&pool).await.unwrap();
    for query in [
        "",
        "sort=-metric",
        "sort=-duration",
        "q=n%3D10049",
        "sort=model",
    ] {
        let started = Instant::now();
        let page = service.get(&format!("{PATH}?limit=100&{query}")).await.ok();
        let took = started.elapsed();
        let expected = match query {
            "q=n%3D10049" => json!(1),
            _ => json!("more"),
        };
        assert_eq!(page["count"], expected, "{query}");
        println!("{query:?}: {took:?}");
        assert!(took < Duration::from_millis(1_500), "{query}: {took:?}");
    }
    let page = service
        .get(&format!("{PATH}?sort=-metric&limit=3"))
        .await
        .ok();
    let best: Vec<f64> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["metric"]["value"].as_f64().unwrap())
        .collect();
    assert_eq!(best, [0.999; 3]);
}
