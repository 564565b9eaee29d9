//! State of a process as the kernel shows it, and waiting for a condition.

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// Asks again and again until there is an answer, at most for `limit`.
pub fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "no {what} within {limit:?}");
        sleep(Duration::from_millis(20));
    }
}

/// Peak resident memory, in KiB.
pub fn peak_memory_kib(pid: i32) -> u64 {
    kib(pid, "VmHWM:")
}

/// Resident memory now, in bytes.
pub fn resident_memory(pid: i32) -> u64 {
    kib(pid, "VmRSS:") << 10
}

/// Number of descriptors that a process has open.
pub fn open_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Lets a process have at most so many bytes of memory beyond what it has now.
pub fn limit_memory(pid: i32, more: u64) {
    let size = kib(pid, "VmSize:") << 10;
    let limited = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--as={}", size + more))
        .status();
    assert!(limited.unwrap().success());
}

/// True while a process runs; a zombie does not.
pub fn is_alive(pid: i32) -> bool {
    status_field(pid, "State:")
        .is_some_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}

/// Children of a process and theirs, by id.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if status_field(child, "PPid:").is_some_and(|parent| parent == pid.to_string()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

fn kib(pid: i32, field: &str) -> u64 {
    let size = status_field(pid, field).unwrap();
    size.trim_end_matches(" kB").trim().parse().unwrap()
}

fn status_field(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_owned())
}
