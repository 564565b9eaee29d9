//! The private Postgres: starts anywhere, keeps what it holds, dies with its owner, and says what
//! is wrong.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rehead::{
    db,
    postgres::{Postgres, StartOptions},
};

use crate::support::postgres;

fn home() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

#[tokio::test]
async fn what_it_holds_outlives_stops_and_kills() {
    let dir = home();
    let server = postgres::start(dir.path());
    let pool = db::connect(&server.url(), 1).await.unwrap();
    sqlx::query("create table kept as select 42 as answer")
        .execute(&pool)
        .await
        .unwrap();
    drop(server);

    let server = postgres::start(dir.path());
    kill(Pid::from_raw(server.pid().cast_signed()), Signal::SIGKILL).unwrap();
    // Its owner notices no more than that it is gone, and starts it again.
    drop(server);
    let server = postgres::start(dir.path());
    let pool = db::connect(&server.url(), 1).await.unwrap();
    let answer: i32 = sqlx::query_scalar("select answer from kept")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(answer, 42);
}

#[tokio::test]
async fn it_listens_on_no_network() {
    let dir = home();
    let server = postgres::start(dir.path());
    let pool = db::connect(&server.url(), 1).await.unwrap();
    let addresses: String = sqlx::query_scalar("show listen_addresses")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(addresses, "");
    let owner: String = sqlx::query_scalar("show unix_socket_permissions")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(owner, "0700");
}

#[test]
fn a_folder_without_programs_is_named() {
    let dir = home();
    let nowhere = dir.path().join("nowhere");
    let error = Postgres::start(&StartOptions {
        bin: Some(nowhere.clone()),
        dir: dir.path().join("postgres"),
        fsync: false,
    })
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(nowhere.to_str().unwrap()), "{text}");
}
