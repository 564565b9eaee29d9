//! A private Postgres for `rehead up` and the tests: a child of this process, on a Unix socket only.
//!
//! It runs as an unprivileged user when we are root (Postgres refuses root), outlives no death of ours (the kernel sends
//! it SIGINT, its fast shutdown), and a leftover of an earlier run is waited for. Blocking: start it before tokio.

mod home;
mod programs;
mod supervised;

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub use self::supervised::Supervised;
use home::{Home, User};
use programs::Programs;

/// How long a server that another process left behind may take to stop.
const LEFTOVER: Duration = Duration::from_secs(30);
/// How long a server may take to start; recovery after a crash of the machine included.
const START: Duration = Duration::from_secs(300);
/// How long a server may take for a fast shutdown before it is told to drop everything.
const STOP: Duration = Duration::from_secs(30);

/// How to start one.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// Folder of `initdb` and `postgres`; looked for in the usual places when left out.
    pub bin: Option<PathBuf>,
    /// Its folder; made when absent.
    pub dir: PathBuf,
    /// `false` only for tests: a crash of the machine may then lose data.
    pub fsync: bool,
}

/// A running server. Stopped when dropped.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    socket: PathBuf,
}

impl Postgres {
    /// Starts a server and waits until it answers. Blocks. It stops when the calling thread ends.
    ///
    /// # Errors
    /// No programs found, a data folder of another major version, or what `initdb` or `postgres` said.
    pub fn start(options: &StartOptions) -> anyhow::Result<Self> {
        let StartOptions { bin, dir, fsync } = options;
        let fsync = *fsync;
        let home = Home::open(dir)?;
        let data = home.folder.join("data");
        let programs = Programs::find(bin.as_deref(), &data, home.user.as_ref())?;
        if !data.join("PG_VERSION").exists() {
            initialize(&programs, &home, &data, fsync)?;
        }
        // Why the one before ended.
        let _ = fs::rename(&home.log, home.log.with_extension("log.1"));
        let deadline = Instant::now() + LEFTOVER;
        loop {
            let mut child = spawn(&programs, &home, &data, fsync)?;
            if wait_until_ready(&mut child, &data)? {
                return Ok(Self {
                    child,
                    socket: home.socket,
                });
            }
            let said = tail(&home.log);
            // Left by a process that was killed, and on its way out: the kernel told it to stop.
            let leftover = said.contains("postmaster.pid\" already exists")
                || said.contains("shared memory block");
            ensure!(
                leftover,
                "postgres ended while starting; {} ends with:\n{said}",
                home.log.display()
            );
            ensure!(
                Instant::now() < deadline,
                "another postgres runs on {} (its process id is the first line of postmaster.pid there); stop the \
                process that started it, or take another data folder",
                data.display()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// Such as `postgres://rehead@localhost/postgres?host=/run/folder`.
    pub fn url(&self) -> String {
        let mut host = String::new();
        for byte in self.socket.as_os_str().as_encoded_bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'/' | b'-' | b'_' | b'.' => {
                    host.push(char::from(*byte))
                }
                other => host.push_str(&format!("%{other:02X}")),
            }
        }
        format!("postgres://rehead@localhost/postgres?host={host}")
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends its connections, and waits until it has stopped. Dropping does the same.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for (signal, patience) in [
            (Signal::SIGINT, STOP),
            (Signal::SIGQUIT, STOP),
            (Signal::SIGKILL, STOP),
        ] {
            if !self.is_running() {
                return;
            }
            // Not reaped yet, so the id is still its own.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if !self.is_running() {
                    return;
                }
                sleep(Duration::from_millis(10));
            }
            tracing::warn!(%signal, "postgres takes long to stop");
        }
    }
}

/// Makes the data folder, under another name until it is whole.
fn initialize(programs: &Programs, home: &Home, data: &Path, fsync: bool) -> anyhow::Result<()> {
    let unfinished = data.with_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    home::private_folder(&unfinished, home.user.as_ref())?;
    let mut initdb = program(&programs.folder.join("initdb"), home.user.as_ref());
    initdb.args([
        "-U",
        "rehead",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]);
    if !fsync {
        initdb.arg("--no-sync");
    }
    let output = initdb
        .arg("-D")
        .arg(&unfinished)
        .stdin(Stdio::null())
        .output()
        .context("cannot run initdb")?;
    ensure!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::rename(&unfinished, data).with_context(|| format!("cannot make {}", data.display()))
}

fn spawn(programs: &Programs, home: &Home, data: &Path, fsync: bool) -> anyhow::Result<Child> {
    let log =
        File::create(&home.log).with_context(|| format!("cannot write {}", home.log.display()))?;
    let mut command = program(&programs.folder.join("postgres"), home.user.as_ref());
    command.arg("-D").arg(data).arg("-k").arg(&home.socket);
    let mut settings = vec![
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "max_connections=200",
        // Containers give 64 MB of /dev/shm.
        "dynamic_shared_memory_type=mmap",
        // Its compiler costs more than our short statements take.
        "jit=off",
    ];
    if !fsync {
        // Commits are still written before they are answered: a server that is killed, on a machine that is not, loses none.
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    die_with_us(&mut command);
    command.spawn().context("cannot run postgres")
}

/// A program of Postgres, as the unprivileged user, with nothing of our environment.
fn program(path: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

#[expect(
    unsafe_code,
    reason = "between fork and exec, by system calls that are safe there"
)]
fn die_with_us(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: no allocation, no lock; runs after setuid, which would clear the signal.
    unsafe {
        command.pre_exec(move || {
            // Its own session, so that Ctrl-C reaches it through us only.
            if libc::setsid() == -1 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) == -1 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// `false`: it ended instead.
fn wait_until_ready(child: &mut Child, data: &Path) -> anyhow::Result<bool> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        // Line 1 is its process id, line 8 its state (miscinit.h of Postgres 10 and later).
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines();
        let own = lines
            .next()
            .is_some_and(|pid| pid.trim() == child.id().to_string());
        if own && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
            return Ok(true);
        }
        sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    bail!("postgres was not ready after {} s", START.as_secs())
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
