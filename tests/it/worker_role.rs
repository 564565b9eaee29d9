//! A worker whose database role has only the rights that workers need.

use std::collections::BTreeSet;

use rehead::db::{
    self,
    grants::{NOT_OF_WORKERS, WORKER},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    cli::said,
    support::{data::clipart_subset, process::Process, service::Service},
};

const ROLE: &str = "rehead \"worker";

/// The URL of a role in the database of this service, which it creates and grants by the command.
async fn role_url(service: &Service) -> String {
    let pool = service.pool().await;
    let create = r#"create role "rehead ""worker" login password 'secret'"#;
    sqlx::query(create).execute(&pool).await.unwrap();
    let grant = [
        "database",
        "grant-worker",
        ROLE,
        "--database-url",
        &service.database_url,
    ];
    said(service.dir.path(), &grant);
    let role = "rehead%20%22worker:secret@";
    service.database_url.replacen("rehead@", role, 1)
}

/// Fails where the worker lacked a right.
#[track_caller]
fn assert_permitted(worker: &Process) {
    let log = worker.log();
    let lacks: BTreeSet<&str> = log
        .lines()
        .filter_map(|line| line.split_once(": permission denied"))
        .map(|(_, what)| what)
        .collect();
    assert!(
        lacks.is_empty(),
        "the role of workers lacks a right: add it to `db::grants::WORKER`\npermission denied\n{}",
        lacks.into_iter().collect::<Vec<_>>().join("\n")
    );
}

/// Validation, import, training with checkpoints, export and garbage collection, by a real worker
/// under its role.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_with_the_rights_of_its_role() {
    let mut service = Service::start().await;
    let owner = service.database_url.clone();
    service.database_url = role_url(&service).await;
    let arguments = [
        "--sweep-ms",
        "1000",
        "--orphan-ms",
        "1000",
        "--reap-ms",
        "500",
    ];
    let worker = service.worker("worker", &arguments);
    service.database_url = owner;
    let file = service
        .upload(
            "data.zip",
            "fine-tune",
            clipart_subset(&["animals", "food"], 8),
        )
        .await
        .ok();
    service.lite0().await;
    let path = "/v1/models/efficientnet_lite0?wait=60&until=imported";
    if service.get(path).await.ok()["status"] != "ready" {
        assert_permitted(&worker);
    }
    let id = file["id"].as_str().unwrap();
    let path = format!("/v1/files/{id}?wait=60&until=processed");
    let file = service.get(&path).await.ok();
    if file["status"] != "processed" {
        assert_permitted(&worker);
    }
    // A job that is queued once its files are validated is resolved by the worker.
    let second = clipart_subset(&["animals", "food"], 9);
    let second = service.upload("more.zip", "fine-tune", second).await.ok();
    let transfer = json!({"freeze": "all", "hyperparameters": {"n_epochs": 2}});
    let job = service.job(&second, &transfer).await;
    let path = format!("{}?wait=60&until=terminal", service.path(&job));
    let job = service.get(&path).await.ok();
    assert_permitted(&worker);
    assert_eq!(job["status"], "succeeded", "{job}");
    let model = job["fine_tuned_model"].as_str().unwrap();
    let path = format!("/v1/models/{model}/export?format=torchscript");
    let export = service.get(&path).await;
    assert_permitted(&worker);
    assert_eq!(export.status, 200, "{}", export.text());
    // A job whose trainer is killed has its attempt ended under the role as well.
    let job = service.job(&file, &transfer).await;
    service.runs_attempt(&job, 1).await;
    service.ask(&job, "cancel").await.ok();
    service.ended(&job).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_permitted(&worker);
}

/// A worker that was taken over cannot do these with its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_workers_role_cannot_read_keys_or_delete_rows() {
    let service = Service::start().await;
    let url = role_url(&service).await;
    let pool = db::connect(&url, 1).await.unwrap();
    for statement in [
        "select * from api_keys",
        "insert into api_keys select * from api_keys",
        "delete from tenants",
        "insert into tenants (name) values ('mine')",
        "update tenants set max_running = 1000",
        "update tenants set paused = true",
        "delete from jobs",
        "insert into jobs (id) values (gen_random_uuid())",
        "delete from files",
        "insert into files select * from files",
        "delete from models",
        "delete from exports",
        "update exports set format = 'onnx'",
        "update uploads set bytes = 1",
        "select * from upload_parts",
        "update job_events set message = 'x'",
        "delete from job_events",
        "delete from attempts",
        "truncate work",
        "alter table jobs disable trigger guard_job",
        "drop table jobs",
        "create table mine ()",
        "create function mine() returns int language sql as 'select 1'",
        "set role rehead",
        "copy jobs to program 'true'",
    ] {
        let denied = sqlx::query(statement).execute(&pool).await.unwrap_err();
        let code = denied.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {denied}");
    }
    // The functions that run with their owner's rights look at no table of their caller.
    sqlx::query("create temporary table job_step_weeks (name text, ends_at timestamptz)")
        .execute(&pool)
        .await
        .unwrap();
    let planted = "insert into job_step_weeks values ('jobs', '2000-01-01'), ('x', '2001-01-01')";
    sqlx::query(planted).execute(&pool).await.unwrap();
    sqlx::query("select drop_job_step_weeks(interval '1 day')")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("select id from jobs")
        .execute(&pool)
        .await
        .unwrap();
}

/// Each table is decided on: a new one is granted to workers, or said not to be theirs.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_granted_to_workers_or_not() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace
            and relkind in ('r', 'p', 'v') and not relispartition",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let listed: BTreeSet<&str> = WORKER
        .map(|(table, _)| table)
        .into_iter()
        .chain(NOT_OF_WORKERS)
        .collect();
    let tables: BTreeSet<&str> = tables.iter().map(String::as_str).collect();
    assert_eq!(tables, listed, "`db::grants` and the tables of the schema");
}

/// Rights that a role had before are taken.
#[tokio::test(flavor = "multi_thread")]
async fn granting_takes_all_other_rights() {
    let service = Service::start().await;
    let pool = service.pool().await;
    sqlx::query("create role wide")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("grant all on all tables in schema public to wide")
        .execute(&pool)
        .await
        .unwrap();
    db::grants::grant_worker(&pool, "wide").await.unwrap();
    assert!(!may(&pool, "delete", "jobs").await);
    assert!(!may(&pool, "select", "api_keys").await);
    assert!(may(&pool, "update", "jobs").await);
}

async fn may(pool: &PgPool, right: &str, table: &str) -> bool {
    let question = format!("select has_table_privilege('wide', '{table}', '{right}')");
    let answer = sqlx::query_scalar(AssertSqlSafe(question));
    answer.fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_not_there_is_named() {
    let service = Service::start().await;
    let grant = [
        "database",
        "grant-worker",
        "nobody-here",
        "--database-url",
        &service.database_url,
    ];
    let output = crate::cli::run(service.dir.path(), &grant);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("nobody-here"),
        "{text}"
    );
    let printed = said(
        service.dir.path(),
        &[
            "database",
            "grant-worker",
            "r",
            "--print",
            "--database-url",
            "x",
        ],
    );
    assert!(
        printed.contains("grant select, update on jobs to \"r\";"),
        "{printed}"
    );
}
