//! Real processes of the service: started, signalled and ended by their own id.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A child of the test; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `rehead` with these arguments; what it says goes to `<dir>/<name>.log`.
    pub(crate) fn rehead(name: &str, dir: &Path, arguments: &[&str]) -> Self {
        Self::start(
            name,
            dir,
            Path::new(env!("CARGO_BIN_EXE_rehead")),
            arguments,
        )
    }

    pub(crate) fn start(name: &str, dir: &Path, executable: &Path, arguments: &[&str]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(executable)
            .args(arguments)
            .current_dir(dir)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// All it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log holds `text`, and gives the rest of that line.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        eventually(
            Duration::from_secs(60),
            &format!("`{text}` in {}", self.log.display()),
            || {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("ended ({status}) before saying `{text}`:\n{}", self.log());
                }
                let log = self.log();
                // A line counts once it is whole.
                let (_, rest) = log.split_once(text)?;
                rest.split_once('\n')
                    .map(|(line, _)| line.trim().to_owned())
            },
        )
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let log = self.log.clone();
        eventually(
            limit,
            &format!("the end of the process behind {}", log.display()),
            || self.child.try_wait().unwrap(),
        )
    }

    /// Its children and theirs, by id.
    pub(crate) fn descendants(&self) -> Vec<i32> {
        descendants(self.pid())
    }

    /// Peak resident memory, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        status_field(self.pid(), "VmHWM:")
            .unwrap()
            .trim_end_matches(" kB")
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer, at most for `limit`.
pub(crate) fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "no {what} within {limit:?}");
        sleep(Duration::from_millis(20));
    }
}

/// Resident memory now, in bytes.
pub(crate) fn resident_memory(pid: i32) -> u64 {
    let size = status_field(pid, "VmRSS:").unwrap();
    let kib: u64 = size.trim_end_matches(" kB").trim().parse().unwrap();
    kib << 10
}

/// Lets a process have at most so many bytes of memory beyond what it has now.
pub(crate) fn limit_memory(pid: i32, more: u64) {
    let size = status_field(pid, "VmSize:").unwrap();
    let kib: u64 = size.trim_end_matches(" kB").trim().parse().unwrap();
    let limited = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--as={}", (kib << 10) + more))
        .status();
    assert!(limited.unwrap().success());
}

/// Whether a process runs (a zombie does not).
pub(crate) fn is_alive(pid: i32) -> bool {
    status_field(pid, "State:")
        .is_some_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}

pub(crate) fn descendants(pid: i32) -> Vec<i32> {
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

fn status_field(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_owned())
}
