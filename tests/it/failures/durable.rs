//! The order of system calls, as strace sees it; only a power cut would show it, no kill. Bytes are
//! on disk before anything names them: a checkpoint's files before its folder has its name, that
//! before the trainer says so, objects before the row.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use nix::sys::signal::Signal;
use regex::Regex;

use crate::support::{
    attempts::{QUICK, long_job, material, signal_all},
    process::Process,
    service::Service,
};

/// The files of a checkpoint, and the names under which they are written.
const FILES: [(&str, &str); 4] = [
    ("model.safetensors", "model.partial"),
    ("optimizer.safetensors", "optimizer.partial"),
    ("state.json", "state.json"),
    ("manifest.json", "manifest.json"),
];

/// A system call that succeeded; calls of several threads overlap.
#[derive(Debug)]
struct Call {
    begins: usize,
    ends: usize,
    text: String,
}

/// A trainer names its home by a link in /proc; strace shows where it leads beside each handle.
fn with_absolute_paths(log: &str) -> String {
    let home = Regex::new(r"</([^>]*/jobs/warm-\w+)/work/checkpoints/").unwrap();
    let home = &home.captures(log).expect("a checkpoint is saved")[1];
    log.replace("\"/proc/self/cwd/", &format!("\"/{home}/"))
}

/// Reads strace's log: a call that another thread's interrupts comes in two lines.
fn calls(log: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (place, line) in log.lines().enumerate() {
        let Some((pid, text)) = line.split_once(' ') else {
            continue;
        };
        let text = text.trim_start();
        if let Some(head) = text.strip_suffix("<unfinished ...>") {
            begun.insert(pid, (place, head.trim_end()));
            continue;
        }
        let (begins, text) = match text
            .strip_prefix("<... ")
            .and_then(|text| text.split_once(" resumed>"))
        {
            Some((_, tail)) => {
                let (begins, head) = begun.remove(pid).expect("it was begun");
                (begins, format!("{head}{tail}"))
            }
            None => (place, text.to_owned()),
        };
        if !text.contains(") = -1 ") {
            calls.push(Call {
                begins,
                ends: place,
                text,
            });
        }
    }
    calls
}

struct Traced<'a>(&'a [Call]);

impl Traced<'_> {
    /// Asserts that there is an fsync of a file or folder, under one of its names, between two
    /// places of the log.
    fn synced(&self, names: &[&str], from: usize, to: usize) {
        let is_sync = |call: &&Call| {
            (call.text.starts_with("fsync(") || call.text.starts_with("fdatasync("))
                && names
                    .iter()
                    .any(|name| call.text.contains(&format!("<{name}>)")))
        };
        let synced = self.0.iter().filter(is_sync);
        let places: Vec<(usize, usize)> = synced.map(|call| (call.begins, call.ends)).collect();
        assert!(
            places
                .iter()
                .any(|&(begins, ends)| begins > from && ends < to),
            "{names:?} is not synced between lines {from} and {to}, but at {places:?}"
        );
    }

    /// The end of the last write to `path` before a place of the log.
    fn written(&self, path: &str, before: usize) -> usize {
        let of_path = format!("<{path}>");
        let is_write = |call: &&Call| {
            ["write(", "pwrite64(", "writev("]
                .iter()
                .any(|name| call.text.starts_with(name))
                && call.text.contains(&of_path)
                && call.begins < before
        };
        let last = self.0.iter().filter(is_write).map(|call| call.ends).max();
        last.unwrap_or_else(|| panic!("nothing writes `{path}` before line {before}"))
    }

    /// The first call whose text is like `pattern`.
    fn first(&self, pattern: &str) -> usize {
        let like = Regex::new(pattern).unwrap();
        let call = self.0.iter().find(|call| like.is_match(&call.text));
        call.unwrap_or_else(|| panic!("no call like `{pattern}`"))
            .begins
    }

    /// Every rename whose target is like `pattern`: its place, from and to.
    fn renames(&self, pattern: &str) -> Vec<(&Call, String, String)> {
        let names = Regex::new(r#"^rename[^(]*\(.*?"([^"]+)",.*?"([^"]+)""#).unwrap();
        let wanted = Regex::new(pattern).unwrap();
        let found = self.0.iter().filter_map(|call| {
            let (_, [from, to]) = names.captures(&call.text)?.extract();
            wanted
                .is_match(to)
                .then(|| (call, from.to_owned(), to.to_owned()))
        });
        found.collect()
    }
}

fn folder_of(path: &str) -> &str {
    Path::new(path).parent().unwrap().to_str().unwrap()
}

/// A worker under strace; killed with its children when dropped.
struct TracedWorker(Process);

impl Drop for TracedWorker {
    fn drop(&mut self) {
        // They would outlive strace.
        signal_all(&self.0.descendants(), Signal::SIGKILL);
    }
}

fn worker(service: &Service, log: &Path) -> TracedWorker {
    let script = service.dir.path().join("traced");
    let rehead = env!("CARGO_BIN_EXE_rehead");
    let calls = "write,writev,pwrite64,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2";
    let text = format!(
        "#!/bin/sh\nexec strace --seccomp-bpf -f -y -qq -s 2000 -e signal=none -e trace={calls} -o {} {rehead} \"$@\"\n",
        log.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    TracedWorker(service.worker_of(&script, "worker", &QUICK))
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_bytes_are_on_disk_before_anything_names_them() {
    let service = Service::start().await;
    let log = service.dir.path().join("calls");
    let mut worker = worker(&service, &log);
    let file = material(&service).await;
    let job = long_job(&service, &file, 6).await;
    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "succeeded", "{}", worker.0.log());
    signal_all(&worker.0.descendants(), Signal::SIGTERM);
    worker.0.wait(Duration::from_secs(30));

    let calls = calls(&with_absolute_paths(&fs::read_to_string(&log).unwrap()));
    let traced = Traced(&calls);
    // What the trainer saves.
    let saved = traced.renames(r"/jobs/warm-\w+/work/checkpoints/\d+$");
    for (named, from, to) in &saved {
        for (name, written) in FILES {
            let [name, written] = [name, written].map(|name| format!("{from}/{name}"));
            let written_at = traced.written(&written, named.begins);
            traced.synced(&[&name, &written], written_at, named.begins);
            traced.synced(&[from], written_at, named.begins);
        }
        let step = to.rsplit('/').next().unwrap();
        let said = traced.first(&format!(
            r#"^write\(1<.*"event\\":\\"saved\\",\\"step\\":{step},"#
        ));
        traced.synced(&[folder_of(to)], named.ends, said);
    }

    // What the worker stores.
    let stored = traced.renames(r"/objects/checkpoints/.*/manifest\.json$");
    for (_, _, manifest) in &stored {
        let folder = folder_of(manifest);
        let (_, prefix) = folder.split_once("/objects/").unwrap();
        let row = traced.first(&format!(
            r"^(?:sendto|sendmsg|write|writev)\(\d+<[^/].*{prefix}/"
        ));
        let objects = traced.renames(&format!("^{}/", regex::escape(folder)));
        let names: BTreeSet<&str> = objects
            .iter()
            .map(|(.., to)| to.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(names, FILES.map(|(name, _)| name).into());
        for (named, from, to) in &objects {
            let written_at = traced.written(from, named.begins);
            traced.synced(&[from], written_at, named.begins);
            traced.synced(&[folder_of(to)], named.ends, row);
        }
        // The folder itself is new in the job's, and that in `checkpoints`.
        traced.synced(&[folder_of(folder)], 0, row);
    }
    println!("{} checkpoints saved, {} stored", saved.len(), stored.len());
    assert!(saved.len() >= 2 && stored.len() >= 2);
}
