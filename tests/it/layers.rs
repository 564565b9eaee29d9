//! The import rules of docs/ARCHITECTURE.md, read from the sources: what a layer must not know, it
//! does not name.

use std::{path::PathBuf, process::Command};

use regex::Regex;

use crate::support::{
    process::trainer,
    sources::{self, Imports, layer},
};

/// The layers that each layer may import from, beside itself and `domain`. `main` and `commands`
/// wire the service together, and may import from every layer.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("exit", &[]),
    ("proc", &[]),
    ("cgroup", &["proc"]),
    ("telemetry", &["cgroup", "config", "proc"]),
    ("db", &[]),
    ("private_folder", &[]),
    ("objects", &["private_folder"]),
    ("liveness", &[]),
    ("sandbox", &["cgroup", "config", "proc"]),
    ("child", &["config", "telemetry", "liveness", "sandbox"]),
    ("postgres", &["config"]),
    ("garbage_collection", &["db", "objects"]),
    ("reaper", &["config", "telemetry", "db"]),
    ("jobs", &["db", "objects"]),
    ("keys", &["db"]),
    ("outgoing", &["config"]),
    ("webhooks", &["config", "telemetry", "db", "outgoing"]),
    ("serving", &["config", "objects", "child", "sandbox"]),
    (
        "http",
        &[
            "config",
            "telemetry",
            "db",
            "objects",
            "child",
            "jobs",
            "keys",
            "garbage_collection",
            "reaper",
            "serving",
            "outgoing",
            "webhooks",
        ],
    ),
    (
        "worker",
        &[
            "cgroup",
            "config",
            "telemetry",
            "db",
            "objects",
            "child",
            "liveness",
            "sandbox",
            "jobs",
            "garbage_collection",
            "reaper",
            "outgoing",
            "proc",
        ],
    ),
    ("client", &["config", "exit"]),
    ("ticks", &[]),
    ("data", &["ticks"]),
    ("models", &["data", "ticks"]),
    ("process", &["data", "models", "ticks"]),
    ("train", &["data", "models", "process", "ticks"]),
    ("serve", &["data", "models", "process", "train", "ticks"]),
];
const WIRING: &[&str] = &["main", "commands", "admin"];

/// Asserts that no file outside `allowed` holds one of the `words`.
fn only_in(allowed: &[&str], words: &[&str]) {
    for source in sources::read() {
        if !allowed.contains(&source.layer()) {
            for word in words {
                let named = Regex::new(&format!(r"\b{}", regex::escape(word))).unwrap();
                assert!(
                    !named.is_match(&source.code),
                    "{} names `{word}`, which belongs to {allowed:?} only",
                    source.path
                );
            }
        }
    }
}

#[test]
fn sql_is_in_db_only() {
    only_in(
        &["db"],
        &["sqlx::query", "query_as!", "query_scalar!", "query!("],
    );
}

#[test]
fn environment_is_read_in_config_only() {
    only_in(
        &["config"],
        &["std::env::var", "env::var(", "env::vars", "var_os("],
    );
}

#[test]
fn layers_import_only_what_is_below_them() {
    let sources = sources::read();
    let mut wrong = Vec::new();
    for (start, end) in Imports::read(&sources).arrows() {
        let (from, to) = (layer(start), layer(end));
        if from == to || to == "domain" || WIRING.contains(&from) || from == "domain" {
            continue;
        }
        let row = MAY_IMPORT.iter().find(|(layer, _)| *layer == from);
        let (_, allowed) = row.unwrap_or_else(|| panic!("`{from}` has no row in MAY_IMPORT"));
        if !allowed.contains(&to) {
            wrong.push(format!("{start} imports from {end}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (row, _) in MAY_IMPORT {
        let exists = sources.iter().any(|source| source.layer() == *row);
        assert!(
            exists,
            "MAY_IMPORT has a row for `{row}`, which is not there"
        );
    }
}

#[test]
fn files_form_no_circles() {
    let sources = sources::read();
    let imports = Imports::read(&sources);
    let circles = imports.circles();
    assert!(circles.is_empty(), "{circles:#?}");
    let upward = imports.upward();
    assert!(upward.is_empty(), "{upward:#?}");
}

/// The reader of imports itself, which would let everything pass if it found nothing.
#[test]
fn imports_are_found() {
    let sources = sources::read();
    let imports = Imports::read(&sources);
    let arrows: Vec<_> = imports.arrows().collect();
    assert!(arrows.len() > sources.len(), "{} imports", arrows.len());
    for expected in [
        ("src/main.rs", "src/commands.rs"),
        (
            "crates/trainer/src/data/codes.rs",
            "crates/domain/src/problem.rs",
        ),
    ] {
        assert!(arrows.contains(&expected), "{expected:?} is not found");
    }
}

#[test]
fn the_trainer_opens_no_socket() {
    for source in sources::read() {
        if source.path.starts_with("crates/trainer/") {
            for word in ["std::net", "TcpStream", "UnixStream"] {
                assert!(
                    !source.code.contains(word),
                    "{} names `{word}`",
                    source.path
                );
            }
        }
    }
}

/// ADR 0001: what serves and what trains are two executables, and only one of them knows torch.
#[test]
fn the_service_does_not_link_torch() {
    let needs_torch = |executable: PathBuf| {
        let output = Command::new("ldd").arg(&executable).output().unwrap();
        assert!(output.status.success(), "ldd {}", executable.display());
        String::from_utf8_lossy(&output.stdout).contains("libtorch")
    };
    assert!(!needs_torch(env!("CARGO_BIN_EXE_rehead").into()));
    assert!(needs_torch(trainer()));
}

/// Loading code of libtorch that would parse a user's pickle or script is never called. One file
/// loads a script: to check what it wrote itself.
#[test]
fn libtorchs_own_loaders_see_no_user_bytes() {
    for source in sources::read() {
        for word in [
            "VarStore::load",
            ".load_partial(",
            "Tensor::load(",
            "loadz",
            "load_multi",
            "vision::image",
        ] {
            assert!(
                !source.code.contains(word),
                "{} names `{word}`",
                source.path
            );
        }
        let scripts = source.code.contains("CModule") || source.code.contains("tch::jit");
        assert!(
            !scripts || source.path == "crates/trainer/src/serve/torchscript.rs",
            "{} works with TorchScript",
            source.path
        );
    }
}
