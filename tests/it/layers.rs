//! The import rules of docs/ARCHITECTURE.md, read from the sources: what a layer must not know, it does not name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;

use crate::support::{data, process::trainer};

/// Every Rust file of the product, as its path below its package's `src` and its text without comments. The nouns are in
/// a package of their own, which both others know as `domain`.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for (package, prefix) in [
        ("src", ""),
        ("crates/trainer/src", ""),
        ("crates/domain/src", "domain/"),
    ] {
        let package = root.join(package);
        for path in data::files_below(&package) {
            let name = path
                .strip_prefix(package.to_str().unwrap())
                .unwrap()
                .trim_start_matches('/');
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            sources.push((
                format!("{prefix}{name}"),
                code.collect::<Vec<_>>().join("\n"),
            ));
        }
    }
    assert!(sources.len() > 100, "found only {} sources", sources.len());
    sources
}

/// The layer a file belongs to: its folder, or its own name at the top.
fn layer(name: &str) -> &str {
    name.split_once('/')
        .map_or(name.trim_end_matches(".rs"), |(folder, _)| folder)
}

/// Asserts that no file outside `allowed` holds one of the `words`.
fn only_in(allowed: &[&str], words: &[&str]) {
    for (name, code) in sources() {
        if !allowed.contains(&layer(&name)) {
            for word in words {
                let named = Regex::new(&format!(r"\b{}", regex::escape(word))).unwrap();
                assert!(
                    !named.is_match(&code),
                    "{name} names `{word}`, which belongs to {allowed:?} only"
                );
            }
        }
    }
}

/// Asserts that no file of `layer_name` imports one of our other layers but `allowed`.
fn imports_only(layer_name: &str, allowed: &[&str]) {
    let ours: Vec<String> = sources()
        .iter()
        .map(|(name, _)| layer(name).to_owned())
        .collect();
    for (name, code) in sources() {
        if layer(&name) != layer_name {
            continue;
        }
        for other in ours
            .iter()
            .filter(|other| *other != layer_name && !allowed.contains(&other.as_str()))
        {
            let named = code.contains(&format!("crate::{other}::"))
                || code.contains(&format!("crate::{other};"));
            assert!(
                !named && !grouped_import(&code, other),
                "{name} imports `{other}`; {layer_name} may use {allowed:?} only"
            );
        }
    }
}

/// Whether `use crate::{…}` names a layer at its first level.
fn grouped_import(code: &str, layer: &str) -> bool {
    code.split("use crate::{").skip(1).any(|rest| {
        let mut depth = 1;
        let mut first_level = String::new();
        for character in rest.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                other if depth == 1 => first_level.push(other),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        first_level
            .split(',')
            .any(|item| item.trim().split("::").next() == Some(layer))
    })
}

#[test]
fn sql_is_in_db_only() {
    only_in(
        &["db"],
        &["sqlx::query", "query_as!", "query_scalar!", "query!("],
    );
}

#[test]
fn torch_is_in_the_trainer_only() {
    only_in(&["serve", "train", "process", "models", "data"], &["tch::"]);
}

#[test]
fn only_config_reads_the_environment() {
    only_in(
        &["config"],
        &["std::env::var", "env::var(", "env::vars", "var_os("],
    );
}

#[test]
fn layers_know_only_what_is_below_them() {
    imports_only("domain", &[]);
    imports_only("config", &["domain"]);
    imports_only("db", &["domain"]);
    imports_only("objects", &["domain"]);
    imports_only("child", &["domain"]);
    imports_only("postgres", &["config"]);
    imports_only("garbage_collection", &["domain", "db", "objects"]);
    imports_only("reaper", &["domain", "config", "db"]);
    imports_only("jobs", &["domain", "db", "objects"]);
    let shared = [
        "domain",
        "config",
        "db",
        "objects",
        "jobs",
        "garbage_collection",
        "reaper",
        "child",
    ];
    imports_only("serving", &["domain", "config", "objects", "child"]);
    imports_only("http", &[&shared[..], &["serving"]].concat());
    imports_only("worker", &shared);
    imports_only("client", &["domain", "config"]);
    imports_only("data", &["domain"]);
    imports_only("models", &["domain", "data"]);
    imports_only("process", &["domain", "models"]);
    imports_only("train", &["domain", "data", "models", "process"]);
    imports_only("serve", &["domain", "data", "models", "process", "train"]);
}

#[test]
fn the_trainer_opens_no_socket() {
    for (name, code) in sources() {
        if ["serve", "train", "process", "models", "data"].contains(&layer(&name)) {
            for word in ["std::net", "tokio::", "reqwest", "TcpStream", "UnixStream"] {
                assert!(!code.contains(word), "{name} names `{word}`");
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

/// Loading code of libtorch that would parse a user's pickle or script is never called. One file loads a script: to check
/// what it wrote itself.
#[test]
fn libtorchs_own_loaders_see_no_user_bytes() {
    for (name, code) in sources() {
        for word in [
            "VarStore::load",
            ".load_partial(",
            "Tensor::load(",
            "loadz",
            "load_multi",
            "vision::image",
        ] {
            assert!(!code.contains(word), "{name} names `{word}`");
        }
        let scripts = code.contains("CModule") || code.contains("tch::jit");
        assert!(
            name == "serve/torchscript.rs" || !scripts,
            "{name} works with TorchScript"
        );
    }
}
