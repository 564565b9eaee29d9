//! A child that was taken over reaches nothing that is not its own. The probe is this test
//! executable, started as a trainer is; it tries what an attacker would.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rehead::{
    child::{Child, Exit, LineError},
    config::SandboxArgs,
    sandbox::{Grants, Home, Sandbox},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cli::said,
    support::{
        attempts::{long_job, material},
        data::files_below,
        process::Process,
        service::Service,
    },
};

/// The world outside, as the probe is told.
#[derive(Serialize, Deserialize)]
struct Targets {
    parent: i32,
    sibling: i32,
    /// A port on which the test listens.
    port: u16,
    /// A folder with `object`, `secret`, `socket`, and room for more.
    outside: PathBuf,
    /// Name of an abstract socket.
    name: String,
    /// The actions to try, if not all.
    only: Vec<String>,
}

/// A line of the probe.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    action: String,
    /// The error number; `None` where it was done.
    error: Option<i32>,
}

type Action = (&'static str, fn(&Targets) -> io::Result<()>);

/// Actions that every sandbox denies, with Landlock or without.
const DENIED: &[Action] = &[
    ("read the environment of the parent", |at| {
        fs::read(format!("/proc/{}/environ", at.parent)).map(drop)
    }),
    ("open the memory of the parent", |at| {
        File::open(format!("/proc/{}/mem", at.parent)).map(drop)
    }),
    ("open the memory of a sibling", |at| {
        File::open(format!("/proc/{}/mem", at.sibling)).map(drop)
    }),
    ("trace the parent", |at| {
        call(libc::SYS_ptrace, [0x4206, at.parent.into(), 0, 0, 0])
    }),
    ("read the parent's memory by a call", |at| {
        call(libc::SYS_process_vm_readv, [at.parent.into(), 0, 0, 0, 0])
    }),
    ("open a handle of the parent", |at| {
        call(libc::SYS_pidfd_open, [at.parent.into(), 0, 0, 0, 0])
    }),
    ("signal the parent", |at| {
        call(libc::SYS_kill, [at.parent.into(), 0, 0, 0, 0])
    }),
    ("signal a sibling", |at| {
        call(libc::SYS_kill, [at.sibling.into(), 0, 0, 0, 0])
    }),
    ("signal a thread of a sibling", |at| {
        let sibling = at.sibling.into();
        call(libc::SYS_tgkill, [sibling, sibling, 0, 0, 0])
    }),
    ("connect to a port", |at| {
        TcpStream::connect(("127.0.0.1", at.port)).map(drop)
    }),
    ("send datagrams", |_| {
        UdpSocket::bind("127.0.0.1:0").map(drop)
    }),
    ("connect to a socket", |at| {
        UnixStream::connect(at.outside.join("socket")).map(drop)
    }),
    ("connect to an abstract socket", |at| {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&at.name)?).map(drop)
    }),
    ("write outside", |at| {
        fs::write(at.outside.join("planted"), "x")
    }),
    ("overwrite an object", |at| {
        File::options()
            .write(true)
            .open(at.outside.join("object"))
            .map(drop)
    }),
    ("cut an object off", |at| {
        File::options()
            .write(true)
            .truncate(true)
            .open(at.outside.join("object"))
            .map(drop)
    }),
    ("read another tenant's file", |at| {
        fs::read(at.outside.join("secret")).map(drop)
    }),
    ("change its input", |_| {
        File::options()
            .write(true)
            .open("inputs/targets.json")
            .map(drop)
    }),
    ("change the mode of its input", |_| {
        fs::set_permissions("inputs/targets.json", Permissions::from_mode(0o666))
    }),
    ("remove its input", |_| {
        fs::remove_file("inputs/targets.json")
    }),
    ("replace its inputs", |_| {
        fs::rename("inputs", "work/inputs")
    }),
    ("link its input", |_| {
        fs::hard_link("inputs/targets.json", "work/link")
    }),
    ("leave a link for the service", |_| {
        symlink("/etc/passwd", "work/report.json")
    }),
    ("leave a pipe for the service", |_| {
        let path = c"work/pipe".as_ptr() as i64;
        let mode = i64::from(libc::S_IFIFO | 0o600);
        call(libc::SYS_mknodat, [libc::AT_FDCWD.into(), path, mode, 0, 0])
    }),
    ("fork", |_| {
        call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0])
    }),
    ("fork as the C library does", |_| {
        Command::new("/bin/true").status().map(drop)
    }),
    ("become root", |_| call(libc::SYS_setuid, [0; 5])),
    ("mount a file system", |_| {
        let [kind, target] = [c"tmpfs", c"work"].map(|text| text.as_ptr() as i64);
        call(libc::SYS_mount, [kind, target, kind, 0, 0])
    }),
    ("make a user namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0])
    }),
    ("load a program into the kernel", |_| {
        call(libc::SYS_bpf, [0; 5])
    }),
    ("use the kernel's keys", |_| {
        call(libc::SYS_keyctl, [0, -3, 0, 0, 0])
    }),
    ("use io_uring", |_| {
        call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0])
    }),
    ("watch events of the processor", |_| {
        call(libc::SYS_perf_event_open, [0; 5])
    }),
    ("handle page faults", |_| {
        call(libc::SYS_userfaultfd, [0; 5])
    }),
    ("make a file in memory, to execute it", |_| {
        call(libc::SYS_memfd_create, [c"x".as_ptr() as i64, 0, 0, 0, 0])
    }),
    ("outlive the parent", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0])
    }),
    ("lower the limits of the parent", |at| {
        call(libc::SYS_prlimit64, [at.parent.into(), 7, 0, 0, 0])
    }),
];

/// Actions that only Landlock denies: on files that every user may read.
const DENIED_BY_LANDLOCK: &[Action] = &[
    ("read a file of the system", |_| {
        fs::read("/etc/passwd").map(drop)
    }),
    ("list the folders of the machine", |_| {
        fs::read_dir("/").map(drop)
    }),
    ("see another process", |at| {
        fs::read(format!("/proc/{}/status", at.sibling)).map(drop)
    }),
    // The last one: where it is allowed, the probe ends.
    ("execute a shell", |_| {
        let path = c"/bin/sh".as_ptr() as i64;
        call(libc::SYS_execve, [path, 0, 0, 0, 0])
    }),
];

/// Actions that a training needs.
const ALLOWED: &[Action] = &[
    ("read an input", |_| {
        fs::read("inputs/targets.json").map(drop)
    }),
    ("write, flush and rename a file", |_| {
        fs::create_dir_all("work/a/b")?;
        let mut file = File::create("work/a/x.part")?;
        io::Write::write_all(&mut file, b"text")?;
        file.sync_all()?;
        fs::rename("work/a/x.part", "work/a/x")?;
        fs::rename("work/a/x", "work/a/b/x")?;
        File::open("work/a")?.sync_all()
    }),
    ("remove a folder", |_| fs::remove_dir_all("work/a")),
    ("use a file without a name", |_| {
        tempfile::tempfile_in("work").and_then(|file| file.set_len(1 << 20))
    }),
    ("start threads", |_| {
        let threads = (0..8).map(|_| std::thread::Builder::new().spawn(|| ()));
        let threads: io::Result<Vec<_>> = threads.collect();
        threads?.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))
        })
    }),
    ("read its own memory use", |_| {
        fs::read("/proc/self/status").map(drop)
    }),
    ("read the processors", |_| {
        fs::read("/proc/cpuinfo").map(drop)
    }),
    ("discard output", |_| fs::write("/dev/null", "x")),
];

#[expect(unsafe_code, reason = "what it tries has no safe form")]
fn call(number: libc::c_long, [a, b, c, d, e]: [i64; 5]) -> io::Result<()> {
    // SAFETY: pointers among the arguments are null or to constants; a process that was forked all
    // the same ends at once.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e) };
    if answer == 0 && number == libc::SYS_clone {
        std::process::exit(0);
    }
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Not a test by itself: what the tests start in a sandbox.
#[test]
#[ignore = "run by the other tests, in a sandbox"]
fn probe() {
    println!();
    let text = fs::read("inputs/targets.json").unwrap();
    let targets: Targets = serde_json::from_slice(&text).unwrap();
    let all = ALLOWED.iter().chain(DENIED).chain(DENIED_BY_LANDLOCK);
    let is_asked =
        |name: &str| targets.only.is_empty() || targets.only.iter().any(|only| only == name);
    for (action, act) in all.filter(|(name, _)| is_asked(name)) {
        let error = act(&targets).err();
        let tried = Tried {
            action: (*action).to_owned(),
            error: error.map(|error| error.raw_os_error().unwrap_or(0)),
        };
        println!("{}", serde_json::to_string(&tried).unwrap());
    }
}

/// Likewise: a sibling that waits to be attacked, until its input is closed.
#[test]
#[ignore = "run by the other tests, in a sandbox"]
fn sibling() {
    println!("\n{}", serde_json::json!({"action": "wait", "error": null}));
    io::Read::read(&mut io::stdin(), &mut [0]).unwrap();
}

/// Likewise: takes memory without end.
#[test]
#[ignore = "run by the other tests, in a sandbox"]
fn hog() {
    let mut taken = Vec::new();
    loop {
        // Written, or the system would not count it.
        taken.push(vec![1_u8; 16 << 20]);
        println!("\n{}", json!({"action": "take 16 MiB", "error": null}));
    }
}

/// A world for the probe, which the test's own process is the parent of.
struct World {
    dir: tempfile::TempDir,
    sandbox: Sandbox,
    home: Home,
    port: TcpListener,
    _sockets: [UnixListener; 2],
    name: String,
}

fn open_sandbox(layers: &str, memory_bytes: Option<u64>) -> anyhow::Result<Sandbox> {
    let args = SandboxArgs {
        sandbox: layers.parse().unwrap(),
        require_sandbox: false,
        sandbox_uid: 60_800,
        sandbox_memory_bytes: memory_bytes,
        sandbox_threads: 1_024,
        sandbox_file_bytes: 1 << 30,
    };
    Sandbox::open(&args, &std::env::current_exe().unwrap())
}

impl World {
    fn new(layers: &str) -> Self {
        Self::of(open_sandbox(layers, None).unwrap())
    }

    fn of(sandbox: Sandbox) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        // As open as a careless operator's: the layers alone protect what is in it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&home).unwrap();
        for name in ["object", "secret"] {
            let mut file = File::options();
            let file = file.write(true).create_new(true).mode(0o600);
            drop(file.open(dir.path().join(name)).unwrap());
        }
        let home = sandbox.home(&home).unwrap();
        let name = format!("rehead-it-{}", dir.path().display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            UnixListener::bind(dir.path().join("socket")).unwrap(),
            UnixListener::bind_addr(&address).unwrap(),
        ];
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            dir,
            sandbox,
            home,
            port,
            _sockets: sockets,
            name,
        }
    }

    async fn start(&self, home: &Home, test: &str) -> (Child, rehead::child::Output) {
        let test = format!("sandbox::{test}");
        let arguments = [
            "--ignored",
            "--exact",
            &test,
            "--nocapture",
            "--test-threads=1",
        ];
        let launch = self.sandbox.launch(home, Grants::WRITE).unwrap();
        Child::spawn(launch, &arguments.map(OsStr::new))
            .await
            .unwrap()
    }

    /// Starts a sibling in a home of its own, and waits until it runs.
    async fn start_sibling(&self) -> (Home, Child) {
        let beside = self.dir.path().join("beside");
        fs::create_dir(&beside).unwrap();
        let beside = self.sandbox.home(&beside).unwrap();
        let (sibling, mut output) = self.start(&beside, "sibling").await;
        assert!(next(&mut output).await.is_some(), "{}", sibling.log_tail());
        (beside, sibling)
    }

    /// Runs the probe to its end, with these actions or, if there are none, with all.
    async fn probe(&self, only: &[&str]) -> Vec<Tried> {
        let (_beside, mut sibling) = self.start_sibling().await;
        let targets = Targets {
            parent: std::process::id().cast_signed(),
            sibling: sibling.pid().cast_signed(),
            port: self.port.local_addr().unwrap().port(),
            outside: self.dir.path().to_owned(),
            name: self.name.clone(),
            only: only.iter().map(|&action| action.to_owned()).collect(),
        };
        let text = serde_json::to_vec(&targets).unwrap();
        fs::write(self.home.inputs().join("targets.json"), text).unwrap();
        self.sandbox.give(&self.home.inputs()).unwrap();
        let (mut child, mut output) = self.start(&self.home, "probe").await;
        // A shell that it may have become ends.
        child.close_input();
        let mut tried = Vec::new();
        while let Some(one) = next(&mut output).await {
            tried.push(one);
        }
        child.wait().await.unwrap();
        println!("{}", child.log_tail());
        assert!(sibling.is_running(), "the sibling was ended");
        sibling.end().await;
        tried
    }
}

/// The next line of a probe, without those of the test harness.
async fn next(output: &mut rehead::child::Output) -> Option<Tried> {
    loop {
        match output.receive().await {
            Err(LineError::Unexpected(_)) => {}
            received => return received.unwrap(),
        }
    }
}

/// Asserts that `tried` has these actions, and which of them were done.
fn check(tried: &[Tried], actions: &[Action], done: bool) {
    for (action, _) in actions {
        let found = tried.iter().find(|tried| tried.action == *action);
        let found = found.unwrap_or_else(|| panic!("the probe ended before `{action}`: {tried:?}"));
        let denied = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EXDEV].map(Some);
        let as_expected = if done {
            found.error.is_none()
        } else {
            denied.contains(&found.error)
        };
        assert!(as_expected, "{action}: {:?}", found.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_taken_over_reaches_nothing() {
    let tried = World::new("on").probe(&[]).await;
    check(&tried, ALLOWED, true);
    check(&tried, DENIED, false);
    check(&tried, DENIED_BY_LANDLOCK, false);
}

/// Layers hold without each other: on a kernel without Landlock, a child of root reads what every
/// user may read, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn without_landlock_the_other_layers_hold() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let tried = World::new("seccomp,user").probe(&[]).await;
    check(&tried, ALLOWED, true);
    check(&tried, DENIED, false);
    assert!(
        tried
            .iter()
            .any(|tried| tried.error.is_none() && tried.action == "read a file of the system")
    );
}

/// The probe finds what a missing sandbox leaves open, or it would pass everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_sandbox_the_probe_reaches_the_service() {
    let open = [
        "read the environment of the parent",
        "connect to a port",
        "write outside",
        "change its input",
    ];
    let tried = World::new("off").probe(&open).await;
    assert_eq!(tried.len(), open.len());
    assert!(tried.iter().all(|tried| tried.error.is_none()), "{tried:?}");
}

/// Where no control group can be made, the limit is refused rather than forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_takes_too_much_memory_is_ended_alone() {
    let limit = 128 << 20;
    let sandbox = match open_sandbox("on", Some(limit)) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.contains("--sandbox-memory-bytes cannot be held: memory: "),
                "{error}"
            );
            return;
        }
    };
    let world = World::of(sandbox);
    let (beside, mut sibling) = world.start_sibling().await;
    let (mut hog, mut output) = world.start(&world.home, "hog").await;
    let group = cgroup(hog.pid(), "memory");
    let mut steps = 0;
    while next(&mut output).await.is_some() {
        steps += 1;
    }
    let end = hog.wait().await.unwrap();
    assert!(
        matches!(&end, Exit::OutOfMemory(how) if how.contains("134217728 bytes")),
        "{end:?}"
    );
    assert!((1..8).contains(&steps), "{steps} times 16 MiB of 128");
    assert!(sibling.is_running());

    // Its group is gone with the next child's start at the latest.
    let of_sibling = cgroup(sibling.pid(), "memory");
    drop(hog);
    sibling.end().await;
    drop(sibling);
    let launch = world.sandbox.launch(&beside, Grants::WRITE).unwrap();
    assert!(group != of_sibling && !group.exists() && !of_sibling.exists());
    drop(launch);
}

/// The folder of a process's control group with this controller.
fn cgroup(pid: u32, controller: &str) -> PathBuf {
    let own = rehead::cgroup::Group::of(controller).unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let name = text
        .lines()
        .filter_map(|line| line.rsplit_once('/'))
        .map(|(_, name)| name)
        .find(|name| name.starts_with("rehead-child-"));
    own.folder
        .join(name.unwrap_or_else(|| panic!("no group of its own: {text}")))
}

/// A worker without a database: its sandbox is opened first.
fn worker(dir: &Path, arguments: &[&str]) -> Process {
    let mut all = vec!["work", "--work-dir", "work", "--objects", "objects"];
    all.extend(["--database-url", "postgres://127.0.0.1:1/none"]);
    all.extend(["--database-wait-ms", "0"]);
    all.extend(arguments);
    let mut process = Process::rehead("worker", dir, &all);
    assert!(!process.wait(Duration::from_secs(60)).success());
    process
}

#[test]
fn missing_layers_are_named_and_refused_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let without = worker(dir.path(), &["--sandbox", "seccomp,user"]);
    let missing = "landlock: switched off by --sandbox";
    assert!(without.log().contains(missing), "{}", without.log());
    assert!(
        without
            .log()
            .contains("sandbox of child processes: seccomp (")
    );
    let dir = tempfile::tempdir().unwrap();
    let required = worker(dir.path(), &["--sandbox", "off", "--require-sandbox"]);
    let log = required.log();
    let refused = "--require-sandbox: children would run without landlock";
    assert!(
        log.contains(refused) && log.contains("seccomp: switched off"),
        "{log}"
    );
    let dir = tempfile::tempdir().unwrap();
    let all = worker(dir.path(), &["--require-sandbox"]);
    let log = all.log();
    assert!(
        log.contains("landlock (ABI") && !log.contains("would run without"),
        "{log}"
    );
}

/// The value of a line of /proc/PID/status.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// The names of cached features; asserts of every cached file that only its worker may change it.
fn cached_features(worker: &Path) -> Vec<String> {
    let cache = worker.join("cache");
    for name in files_below(&cache) {
        let metadata = fs::metadata(&name).unwrap();
        let user = nix::unistd::geteuid().as_raw();
        assert_eq!(
            (metadata.uid(), metadata.mode() & 0o777),
            (user, 0o440),
            "{name}"
        );
    }
    let features = files_below(&cache.join("features"));
    let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
    features.iter().map(name).collect()
}

/// Two tenants with the same images: neither finds what the other's trainer has computed, so that
/// nobody can plant it. A second job of the same tenant does.
#[tokio::test(flavor = "multi_thread")]
async fn features_of_one_tenant_are_not_another_s() {
    let mut service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let work_dir = service.dir.path().join("worker");
    let frozen = json!({"freeze": "all", "hyperparameters": {"n_epochs": 1}});
    for (tenant, expected) in [("one", 1), ("two", 2)] {
        let url = service.database_url.clone();
        let arguments = ["keys", "create", "--database-url", &url, "--tenant", tenant];
        service.key = Some(said(service.dir.path(), &arguments));
        let file = material(&service).await;
        for _ in 0..2 {
            let job = service.ended(&service.job(&file, &frozen).await).await;
            assert_eq!(job["status"], "succeeded", "{job}");
            let names = cached_features(&work_dir);
            assert_eq!(names.len(), expected, "{names:?}");
        }
    }
    let names = cached_features(&work_dir);
    let key = |name: &str| name.split_once('.').unwrap().1.to_owned();
    assert_eq!(key(&names[0]), key(&names[1]));
}

/// As the service really starts them: trainers and the inference process.
#[tokio::test(flavor = "multi_thread")]
async fn children_of_the_service_have_no_privileges() {
    let service = Service::start().await;
    let worker = service.worker("worker", &["--require-sandbox"]);
    let file = material(&service).await;
    let job = service.ended(&long_job(&service, &file, 1).await).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let children = worker.descendants();
    assert!(!children.is_empty());
    for pid in children {
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp"), "2");
        assert_eq!(status(pid, "CapEff").trim_start_matches('0'), "");
        if nix::unistd::geteuid().is_root() {
            assert!(!status(pid, "Uid").split_whitespace().any(|id| id == "0"));
            assert_eq!(status(pid, "Groups"), "60800");
            let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            assert_eq!(score.trim(), "500");
        }
    }
    // Nobody looks into the processes that know the database.
    for pid in [worker.pid(), service.server.pid()] {
        let owner = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(owner.uid(), 0);
    }
}
