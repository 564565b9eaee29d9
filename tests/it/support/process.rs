//! Real processes of the service: started, signalled and ended by their own id.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
pub(crate) use rehead_test_support::process::{
    descendants, eventually, is_alive, limit_memory, open_descriptors, peak_memory_kib,
    resident_memory,
};

/// The path of `rehead-trainer`, which lies beside `rehead`.
pub(crate) fn trainer() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_rehead")).with_file_name("rehead-trainer");
    assert!(
        path.exists(),
        "no {}; build it with: cargo build --release -p rehead-trainer",
        path.display()
    );
    path
}

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
            .env_remove("HF_HOME")
            .env_remove("HF_HUB_CACHE")
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
        peak_memory_kib(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
