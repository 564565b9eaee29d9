//! Child processes (`rehead-trainer …`) and their protocol: one JSON message a line. A child has
//! its own process group and no terminal, and of the environment only the choice of GPUs; it enters
//! its sandbox (`sandbox`) before its executable runs, and is killed when this process ends,
//! however it ends. Shared by the server (one inference process) and
//! the worker (one trainer for each attempt, one validation process for each file).

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

use crate::{
    config,
    domain::progress::{Line, WorkReport, exit},
    liveness::Liveness,
    sandbox::{ChildGroup, Entry, Launch},
    telemetry::metrics::{CHILD_STARTS, Label},
};

/// Longest line of a child, in bytes; a prediction of 64 images over 10,000 classes fits.
const LINE_BYTES: usize = 16 << 20;
/// Last lines of standard error that are kept.
const LOG_LINES: usize = 100;
/// Bytes kept of each line.
const LOG_LINE_BYTES: usize = 1_000;
/// `PATH` of a child. Children start no other program.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How Rust's runtime begins to say that it aborts because an allocation failed.
const ALLOCATION_FAILED: &str = "memory allocation of ";
/// Makes the kernel's out-of-memory killer choose a child before its parent.
const OOM_SCORE: &str = "500";

/// How a child exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The work is done, or refused with a reason.
    Done,
    /// A permanent failure; its reason was a message.
    Permanent,
    /// It saved its state and stopped on request.
    Yielded,
    /// It needed more memory than it may have; described in words.
    OutOfMemory(String),
    /// Anything else: a signal, an abort, an unknown code; described in words.
    Crashed(String),
}

/// A line of a child could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("a line is longer than {LINE_BYTES} bytes")]
    TooLong,
    #[error("a line is not the expected JSON: {0}")]
    Unexpected(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A child that was to answer once gave no answer. Another try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("{0}")]
    NotStarted(#[from] io::Error),
    #[error("no answer, and nothing computed, for {} s", .0.as_secs_f64())]
    Late(Duration),
    #[error("{0}")]
    Invalid(#[from] LineError),
    /// How it exited, and the end of its log.
    #[error("the process {0}")]
    Exited(String),
}

/// A running child, with its input. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    input: Option<ChildStdin>,
    log: Arc<Mutex<VecDeque<String>>>,
    log_reader: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
    pid: u32,
    group: Option<ChildGroup>,
}

/// The standard output of a child.
#[derive(Debug)]
pub struct Output {
    reader: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Child {
    /// Starts a process. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The executable is missing, a layer of the sandbox cannot be entered, or the system is out of
    /// processes.
    pub async fn spawn(launch: Launch, arguments: &[&OsStr]) -> io::Result<(Self, Output)> {
        let Launch {
            executable,
            reached,
            library_path,
            current_dir,
            entry,
            group,
        } = launch;
        let mut command = Command::new(reached.as_ref().unwrap_or(&executable));
        command
            .arg0(&executable)
            .args(arguments)
            .env_clear()
            .envs(library_path.map(|path| ("LD_LIBRARY_PATH", path)))
            .env("PATH", PATH)
            // `cuda:N` is then the N-th GPU of nvidia-smi, too.
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .envs(config::visible_gpus().map(|gpus| ("CUDA_VISIBLE_DEVICES", gpus)))
            .current_dir(current_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        before_exec(&mut command, entry);
        CHILD_STARTS.add([role(arguments)], 1);
        let mut process = spawn_on_lasting_thread(command).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot start `{}`: {error}", executable.display()),
            )
        })?;
        let pid = process
            .id()
            .expect("a child that was not waited for has an id: this is a bug");
        // Works without the permission, too.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);

        let piped = "a stream that was piped is there: this is a bug";
        let input = process.stdin.take().expect(piped);
        let output = process.stdout.take().expect(piped);
        let stderr = process.stderr.take().expect(piped);
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let log_reader = tokio::spawn(keep_log(stderr, pid, Arc::clone(&log)));
        let child = Self {
            process,
            input: Some(input),
            log,
            log_reader: Some(log_reader),
            status: None,
            pid,
            group,
        };
        let output = Output {
            reader: BufReader::with_capacity(64 << 10, output),
            line: Vec::new(),
        };
        Ok((child, output))
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `BrokenPipe` when the child has exited or its input was closed.
    pub async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(&line).await?;
        input.flush().await
    }

    /// Closes the input: a trainer then saves its state and exits, an idle child exits.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// SIGKILLs the child and its process group. Does nothing to a child that was waited for.
    pub fn kill(&self) {
        // Once the child was waited for, its id is gone, and the group's number may be reused.
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Waits until it exits. Safe to drop and call again.
    ///
    /// # Errors
    /// The system does not report the status.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        let status = self.process.wait().await?;
        self.status = Some(status);
        if let Some(mut reader) = self.log_reader.take() {
            // The last lines matter most; a process that inherited the pipe must not delay this.
            let patience = Duration::from_secs(1);
            if tokio::time::timeout(patience, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        if status.signal() == Some(libc::SIGABRT) && self.log_tail().contains(ALLOCATION_FAILED) {
            let how = "needed more memory than the system gives it".to_owned();
            return Ok(Exit::OutOfMemory(how));
        }
        if status.signal() == Some(libc::SIGKILL)
            && let Some(limit) = self.group.as_ref().and_then(ChildGroup::exceeded_memory)
        {
            return Ok(Exit::OutOfMemory(format!(
                "needed more memory than a process may take here, {limit} bytes (--sandbox-memory-bytes)"
            )));
        }
        Ok(classify(status))
    }

    /// True while it has not exited.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits for the child to exit, and kills it after `patience`.
    pub async fn end_within(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.wait()).await;
        self.end().await;
    }

    /// Its exit code, once it was waited for and unless a signal killed it.
    pub fn exit_code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// The name of the signal that killed it.
    pub fn exit_signal(&self) -> Option<String> {
        let number = self.status?.signal()?;
        Some(signal_name(number))
    }

    /// Kills the process group and waits until the child has exited.
    pub async fn end(&mut self) {
        self.kill();
        let _ = self.wait().await;
    }

    /// The last lines that the child wrote to standard error.
    pub fn log_tail(&self) -> String {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.make_contiguous().join("\n")
    }
}

/// The role of a child, from its arguments.
fn role(arguments: &[&OsStr]) -> Label {
    let role = arguments.first().and_then(|role| role.to_str());
    const ROLES: [&str; 7] = [
        "warm-trainer",
        "validate",
        "verify",
        "export",
        "score",
        "serve",
        "devices",
    ];
    let known = ROLES.into_iter().find(|known| role == Some(known));
    known.unwrap_or("other").into()
}

/// Starts a child, waits for its one message for as long as it is alive (`liveness`), and ends it.
///
/// # Errors
/// It cannot be started, hangs for `patience`, or exits without a message.
pub async fn answer_of<T: DeserializeOwned>(
    launch: io::Result<Launch>,
    arguments: &[&OsStr],
    patience: Duration,
) -> Result<T, Unanswered> {
    let (mut child, mut output) = Child::spawn(launch?, arguments).await?;
    let mut liveness = Liveness::new(Instant::now());
    loop {
        let line = tokio::time::timeout_at(liveness.deadline(patience), output.receive());
        match line.await.map_err(|_| Unanswered::Late(patience))?? {
            Some(Line::Report(WorkReport::Working(working))) => {
                liveness.observe(working, patience, Instant::now());
            }
            Some(Line::Answer(answer)) => {
                child.end().await;
                return Ok(answer);
            }
            None => break,
        }
    }
    let how = match child.wait().await? {
        Exit::Crashed(how) | Exit::OutOfMemory(how) => how,
        Exit::Done | Exit::Permanent | Exit::Yielded => "exited without an answer".to_owned(),
    };
    Err(Unanswered::Exited(format!("{how}: {}", child.log_tail())))
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    /// Receives the next message; `None` when there will be no more. Safe to drop and call again.
    ///
    /// # Errors
    /// `TooLong` and `Unexpected`, which a correct child never causes; `Io`.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        if !next_line(&mut self.reader, &mut self.line, LINE_BYTES).await? {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&self.line);
        self.line.clear();
        Ok(Some(parsed?))
    }
}

/// Appends to `line` up to the next newline, which is left out. `false` at the end of input, where
/// a line without a newline is dropped: its writer died in the middle of it. When this is
/// cancelled, `line` keeps what was read.
async fn next_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, LineError> {
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            line.clear();
            return Ok(false);
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = newline.unwrap_or(buffer.len());
        line.extend_from_slice(&buffer[..taken]);
        reader.consume(taken + usize::from(newline.is_some()));
        if line.len() > limit {
            return Err(LineError::TooLong);
        }
        if newline.is_some() {
            return Ok(true);
        }
    }
}

/// Keeps the last lines of standard error, each shortened, until the child closes it.
async fn keep_log(stderr: ChildStderr, pid: u32, log: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line is split.
        let mut limited = (&mut reader).take(LOG_LINE_BYTES as u64);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::debug!(child.pid = pid, "{text}");
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(text);
    }
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}

fn classify(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(exit::DONE), _) => Exit::Done,
        (Some(exit::PERMANENT), _) => Exit::Permanent,
        (Some(exit::YIELDED), _) => Exit::Yielded,
        (Some(code), _) => Exit::Crashed(format!("exited with code {code}")),
        (None, Some(number)) => {
            let name = signal_name(number);
            Exit::Crashed(format!("was killed by signal {number} ({name})"))
        }
        (None, None) => Exit::Crashed("exited with an unknown status".to_owned()),
    }
}

#[expect(
    unsafe_code,
    reason = "between fork and exec: only async-signal-safe system calls"
)]
fn before_exec(command: &mut Command, mut entry: Entry) {
    let parent = std::process::id();
    let before_exec = move || {
        entry.become_user()?;
        die_with(parent)?;
        entry.restrict()
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

#[expect(unsafe_code, reason = "see `before_exec`")]
fn die_with(parent: u32) -> io::Result<()> {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: system calls only; nothing here takes a lock that the fork may have left held.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the line above.
        if u32::try_from(libc::getppid()) != Ok(parent) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        // A service manager often signals all processes; only this one decides when a child stops.
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        // A core dump would write the user's data to disk.
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
    }
    Ok(())
}

struct SpawnRequest {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<tokio::process::Child>>,
}

/// Forks on one thread that lives as long as this process: PDEATHSIG fires when the *thread* that
/// forked ends, and a runtime's threads come and go.
async fn spawn_on_lasting_thread(command: Command) -> io::Result<tokio::process::Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts children has ended");
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        let run = move || {
            for SpawnRequest {
                mut command,
                runtime,
                reply,
            } in requests
            {
                let _entered = runtime.enter();
                // If the caller is gone, the child is killed when it is dropped here.
                let _ = reply.send(command.spawn());
            }
        };
        let started = std::thread::Builder::new()
            .name("children".to_owned())
            .spawn(run);
        drop(started.expect("a thread can be started"));
        sender
    });
    let (reply, spawned) = oneshot::channel();
    spawner
        .send(SpawnRequest {
            command,
            runtime: Handle::current(),
            reply,
        })
        .map_err(|_| gone())?;
    spawned.await.map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn shell(script: &str) -> (Child, Output) {
        Child::spawn(
            Launch::trusted(Path::new("/bin/sh")),
            &[OsStr::new("-c"), OsStr::new(script)],
        )
        .await
        .unwrap()
    }

    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[tokio::test]
    async fn messages_go_both_ways_and_closed_input_ends_a_child() {
        let (mut child, mut output) =
            shell("read x; echo \"[$x, 1]\"; echo oops >&2; cat; exit 75").await;
        child.send(&41).await.unwrap();
        assert_eq!(
            output.receive::<Vec<u32>>().await.unwrap(),
            Some(vec![41, 1])
        );
        child.close_input();
        assert_eq!(output.receive::<u32>().await.unwrap(), None);
        assert_eq!(child.wait().await.unwrap(), Exit::Yielded);
        assert_eq!(child.log_tail(), "oops");
        assert_eq!(
            child.send(&1).await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn environment_is_path_and_gpus() {
        let (_child, mut output) = shell(
            "env | cut -d= -f1 | sort | grep -v -e PWD -e '^_$' -e SHLVL -e VISIBLE | tr '\\n' ' ' | sed 's/.*/\"&\"\\n/'",
        )
        .await;
        assert_eq!(
            output.receive::<String>().await.unwrap().as_deref(),
            Some("CUDA_DEVICE_ORDER PATH ")
        );
    }

    #[tokio::test]
    async fn exits_are_classified() {
        for (script, end) in [
            ("exit 0", Exit::Done),
            ("exit 64", Exit::Permanent),
            ("exit 3", Exit::Crashed("exited with code 3".to_owned())),
            (
                "kill -ABRT $$",
                Exit::Crashed("was killed by signal 6 (SIGABRT)".to_owned()),
            ),
            (
                "echo memory allocation of 5 bytes failed >&2; kill -ABRT $$",
                Exit::OutOfMemory("needed more memory than the system gives it".to_owned()),
            ),
        ] {
            assert_eq!(shell(script).await.0.wait().await.unwrap(), end, "{script}");
        }
    }

    #[tokio::test]
    async fn kill_ends_the_whole_process_group() {
        let (mut child, mut output) = shell("sleep 600 & echo $!; wait").await;
        let grandchild = output.receive::<u32>().await.unwrap().unwrap();
        assert!(is_alive(grandchild));
        child.kill();
        assert!(matches!(child.wait().await.unwrap(), Exit::Crashed(_)));
        for _ in 0..100 {
            if !is_alive(grandchild) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the grandchild still runs");
    }

    #[tokio::test]
    async fn invalid_and_endless_lines_are_errors() {
        let (_child, mut output) = shell("echo invalid; echo 1; printf 2").await;
        assert!(matches!(
            output.receive::<u32>().await,
            Err(LineError::Unexpected(_))
        ));
        assert_eq!(output.receive::<u32>().await.unwrap(), Some(1));
        assert_eq!(output.receive::<u32>().await.unwrap(), None);

        let (_child, mut output) = shell("cat /dev/zero").await;
        assert!(matches!(
            output.receive::<u32>().await,
            Err(LineError::TooLong)
        ));
    }

    #[tokio::test]
    async fn log_keeps_its_last_lines() {
        let (mut child, _output) = shell("seq 1000 >&2; printf '%02000d' 0 >&2").await;
        child.wait().await.unwrap();
        let tail = child.log_tail();
        assert_eq!(tail.lines().count(), LOG_LINES);
        assert!(
            tail.lines().all(|line| line.len() <= LOG_LINE_BYTES) && tail.contains("\n1000\n"),
            "{tail}"
        );
    }

    #[tokio::test]
    async fn missing_executable_is_named() {
        let error = Child::spawn(Launch::trusted(Path::new("/nowhere/x")), &[])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/x"), "{error}");
    }
}
