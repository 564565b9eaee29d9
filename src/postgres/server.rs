//! A server: created, started, awaited, stopped.

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
    unistd::{Pid, User},
};

use super::{
    home::{self, Home},
    programs,
};

/// Time for a server that another process left behind to stop.
const LEFTOVER: Duration = Duration::from_secs(30);
/// Time for a server to start, including recovery after a crash of the machine.
const START: Duration = Duration::from_secs(300);
/// Time for a server to shut down before it gets the next stronger signal.
const STOP: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// Folder of `initdb` and `postgres`; searched for if absent.
    pub bin: Option<PathBuf>,
    /// Folder of the server; created if it does not exist.
    pub dir: PathBuf,
    /// `false` only in tests: a crash of the machine may then lose data.
    pub fsync: bool,
}

/// A running server. When it is dropped, it ends its connections, and is waited for.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    socket: PathBuf,
}

impl Postgres {
    /// Starts a server and waits until it answers. Blocks. It stops when the calling thread ends.
    ///
    /// # Errors
    /// No programs are found, the data has another major version, or `initdb` or `postgres` fails.
    pub fn start(options: &StartOptions) -> anyhow::Result<Self> {
        let StartOptions { bin, dir, fsync } = options;
        let fsync = *fsync;
        let home = Home::open(dir)?;
        let data = home.folder.join("data");
        let programs = programs::find(bin.as_deref(), &data, home.user.as_ref())?;
        if !data.join("PG_VERSION").exists() {
            initialize(&programs, &home, &data, fsync)?;
        }
        // Keeps the log that shows why the previous server ended.
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
            let log = tail(&home.log);
            // Left by a process that was killed, and shutting down: the kernel has signalled it.
            let leftover = log.contains("postmaster.pid\" already exists")
                || log.contains("shared memory block");
            ensure!(
                leftover,
                "postgres exited while starting; the end of `{}`:\n{log}",
                home.log.display()
            );
            ensure!(
                Instant::now() < deadline,
                "another postgres runs on `{}` (its process id is the first line of postmaster.pid there); stop \
                 the process that started it, or choose another data folder",
                data.display()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// The URL of the server, such as `postgres://rehead@localhost/postgres?host=/run/folder`.
    pub fn url(&self) -> String {
        url_of(&self.socket)
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while its process has not exited.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
            if !self.is_running() {
                return;
            }
            // It was not waited for, so no other process has its id.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
            let deadline = Instant::now() + STOP;
            while Instant::now() < deadline {
                if !self.is_running() {
                    return;
                }
                sleep(Duration::from_millis(10));
            }
            tracing::warn!(%signal, "postgres did not stop within {} s", STOP.as_secs());
        }
    }
}

/// The URL of the server that another process runs in `dir`.
///
/// # Errors
/// The folder cannot be opened.
pub fn url_in(dir: &Path) -> anyhow::Result<String> {
    Ok(url_of(&Home::open(dir)?.socket))
}

fn url_of(socket: &Path) -> String {
    let mut host = String::new();
    for byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'/' | b'-' | b'_' | b'.' => {
                host.push(char::from(*byte))
            }
            other => host.push_str(&format!("%{other:02X}")),
        }
    }
    format!("postgres://rehead@localhost/postgres?host={host}")
}

/// Creates the data folder, under another name until it is complete.
fn initialize(programs: &Path, home: &Home, data: &Path, fsync: bool) -> anyhow::Result<()> {
    let unfinished = data.with_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .with_context(|| format!("cannot remove `{}`", unfinished.display()))?;
    }
    home::private_folder(&unfinished, home.user.as_ref())?;
    let mut initdb = program(&programs.join("initdb"), home.user.as_ref());
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
    fs::rename(&unfinished, data).with_context(|| format!("cannot create `{}`", data.display()))
}

fn spawn(programs: &Path, home: &Home, data: &Path, fsync: bool) -> anyhow::Result<Child> {
    let log = File::create(&home.log)
        .with_context(|| format!("cannot write `{}`", home.log.display()))?;
    let mut command = program(&programs.join("postgres"), home.user.as_ref());
    command.arg("-D").arg(data).arg("-k").arg(&home.socket);
    let mut settings = vec![
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "max_connections=200",
        // Containers have only 64 MB of /dev/shm.
        "dynamic_shared_memory_type=mmap",
        // Compiling takes longer than our short statements run.
        "jit=off",
    ];
    if !fsync {
        // Commits are still written before they are answered: only a crash of the machine loses
        // some.
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

/// A program of Postgres, run as the unprivileged user, without this process' environment.
fn program(path: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

#[expect(
    unsafe_code,
    reason = "between fork and exec: only async-signal-safe system calls"
)]
fn die_with_us(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: no allocation, no lock; runs after setuid, which would clear the signal.
    unsafe {
        command.pre_exec(move || {
            // Its own session, so that Ctrl-C in the terminal does not reach it.
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

/// Waits until the server answers. `false`: it exited instead.
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
    bail!(
        "postgres was not ready within {} s; see its log beside `{}`",
        START.as_secs(),
        data.display()
    )
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
