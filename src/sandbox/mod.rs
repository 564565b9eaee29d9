//! Isolation of child processes. They parse what users uploaded, with libraries that were not made
//! for hostile bytes, so each counts as taken over from its first upload on. In layers, each of
//! which holds without the others:
//!
//! - a user of its own, if root starts it (`users`);
//! - Landlock: it reads its home and its libraries, writes to the work folder in its home, and
//!   executes nothing but itself (`landlock`);
//! - seccomp: system calls that a training needs, and no network, signals, processes or kernel
//!   interfaces (`seccomp`);
//! - limits on memory and processes, where the service may make control groups (`child_groups`), on
//!   threads and on the size of files.
//!
//! Everything is made here, before the fork; between fork and exec there are only system calls
//! (`entry`), because a process of many threads may not allocate then. Nothing is added after the
//! exec: layers bind the thread that adds them, and libtorch starts threads early.

mod child_groups;
mod entry;
mod grants;
mod home;
mod landlock;
mod program;
mod seccomp;
mod users;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    child_groups::{Amounts, ChildGroups},
    landlock::Landlock,
    program::Program,
    seccomp::Filters,
    users::Users,
};
use crate::{
    cgroup,
    config::{SandboxArgs, SandboxLayer},
    proc,
};

pub use self::{
    child_groups::ChildGroup,
    entry::Entry,
    grants::Grants,
    home::{Home, INPUTS, WORK},
};

/// How a process is started.
#[derive(Debug)]
pub struct Launch {
    /// The path of the executable.
    pub executable: PathBuf,
    /// The path by which the child can reach it, if that is another.
    pub reached: Option<PathBuf>,
    /// `LD_LIBRARY_PATH`, for libraries that the child cannot reach by their paths.
    pub library_path: Option<OsString>,
    pub current_dir: PathBuf,
    pub(crate) entry: Entry,
    /// To be kept until the child has ended.
    pub(crate) group: Option<ChildGroup>,
}

impl Launch {
    /// A process without a sandbox: it must not be given a user's bytes.
    pub fn trusted(executable: &Path) -> Self {
        Self {
            executable: executable.to_owned(),
            reached: None,
            library_path: None,
            current_dir: PathBuf::from("/"),
            entry: Entry::default(),
            group: None,
        }
    }
}

/// How the trainer's processes are isolated on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Layers>);

#[derive(Debug)]
struct Layers {
    program: Program,
    landlock: Option<Landlock>,
    filters: Option<Filters>,
    users: Option<Users>,
    limits: entry::Limits,
    groups: Option<Arc<ChildGroups>>,
    /// Names of the layers that are enforced.
    enforced: Vec<String>,
    /// Layers that are not, and why.
    missing: Vec<String>,
    /// Limits that no control group can hold, and why.
    unlimited: Vec<String>,
}

impl Sandbox {
    /// The sandbox of `executable`, with every layer that the settings ask for and this machine
    /// has.
    ///
    /// # Errors
    /// The executable cannot be read; a layer is missing although all are required; the memory was
    /// to be limited, and cannot be.
    pub fn open(args: &SandboxArgs, executable: &Path) -> anyhow::Result<Self> {
        let (mut enforced, mut missing) = (Vec::new(), Vec::new());
        let mut layer = |layer: SandboxLayer, state: Result<String, String>| {
            let name = layer.as_str();
            let state = if args.sandbox.has(layer) {
                state
            } else {
                Err("switched off by --sandbox".to_owned())
            };
            match state {
                Ok(detail) => enforced.push(format!("{name} ({detail})")),
                Err(why) => missing.push(format!("{name}: {why}")),
            }
            args.sandbox.has(layer)
        };
        let landlock = Landlock::probe();
        let landlock_on = layer(SandboxLayer::Landlock, landlock.state());
        let filters = Filters::compile();
        let seccomp_state = filters.as_ref().map(|_| "system calls".to_owned());
        let seccomp_on = layer(SandboxLayer::Seccomp, seccomp_state.map_err(Clone::clone));
        let users = Users::probe(args.sandbox_uid);
        let users_on = layer(SandboxLayer::User, users::state(&users));
        if args.require_sandbox && !missing.is_empty() {
            anyhow::bail!(
                "--require-sandbox: children would run without {}; use a kernel and rights that have it, or start without \
                 --require-sandbox",
                missing.join("; without ")
            );
        }
        let (groups, unlimited) = ChildGroups::probe(Amounts {
            memory_bytes: args.sandbox_memory_bytes.unwrap_or_else(most_memory),
            threads: args.sandbox_threads,
        });
        let limited = groups
            .as_ref()
            .map_or(Vec::new(), |groups| groups.limited());
        if args.sandbox_memory_bytes.is_some() && !limited.contains(&"memory") {
            anyhow::bail!(
                "--sandbox-memory-bytes cannot be held: {}; make it possible (docs/security.md), or leave the option out",
                unlimited.join("; ")
            );
        }
        if !limited.is_empty() {
            enforced.push(format!("control groups ({})", limited.join(", ")));
        }
        let users = users.ok().flatten().filter(|_| users_on);
        let program = Program::read(executable, users.is_some())?;
        Ok(Self(Arc::new(Layers {
            program,
            landlock: landlock.available().filter(|_| landlock_on),
            filters: filters.ok().filter(|_| seccomp_on),
            limits: entry::Limits {
                threads: users.is_some().then_some(args.sandbox_threads),
                file_bytes: args.sandbox_file_bytes,
            },
            users,
            groups,
            enforced,
            missing,
            unlimited,
        })))
    }

    /// The path of the trainer.
    pub fn executable(&self) -> &Path {
        &self.0.program.executable
    }

    /// Logs what is enforced and what is missing. To be called once, at the start.
    pub fn report(&self) {
        let Layers {
            enforced,
            missing,
            unlimited,
            ..
        } = &*self.0;
        if !enforced.is_empty() {
            tracing::info!("sandbox of child processes: {}", enforced.join(", "));
        }
        for missing in missing {
            tracing::warn!("child processes run without a layer of the sandbox: {missing}");
        }
        if !unlimited.is_empty() {
            let unlimited = unlimited.join(", ");
            tracing::info!("child processes run without a limit on {unlimited}");
        }
    }

    /// Makes an existing folder the home of one child, or of several in turn.
    ///
    /// # Errors
    /// Its owner cannot be changed.
    pub fn home(&self, folder: &Path) -> io::Result<Home> {
        let user = self.0.users.as_ref().map(Users::next);
        Home::open(folder, user)
    }

    /// Lets children read a file or a folder with all that is in it, once it lies in a home. A hard
    /// link is replaced by a copy, so that its other names keep their owner.
    ///
    /// # Errors
    /// It cannot be changed or copied.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match &self.0.users {
            Some(users) => home::give(path, users.group()),
            None => Ok(()),
        }
    }

    /// Creates a folder in a home, and its parents there, whose files children can read once they
    /// are given.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        match &self.0.users {
            Some(users) => home::share(folder, users.group()),
            None => Ok(()),
        }
    }

    /// As `give` for a file that a child has written: it may not change it any more.
    ///
    /// # Errors
    /// It cannot be changed.
    pub fn seal(&self, file: &Path) -> io::Result<()> {
        home::seal(file, self.0.users.as_ref().map(Users::group))
    }

    /// Prepares a process of the trainer.
    ///
    /// # Errors
    /// The rules cannot be made: a folder is missing, or the process has too many open files.
    pub fn launch(&self, home: &Home, grants: Grants) -> io::Result<Launch> {
        let Layers {
            program,
            landlock,
            filters,
            limits,
            groups,
            ..
        } = &*self.0;
        let landlock = landlock.as_ref();
        let group = groups.as_ref().map(ChildGroups::create).transpose()?;
        let (group, groups) = group.unzip();
        Ok(Launch {
            executable: program.executable.clone(),
            reached: program.reached.clone(),
            library_path: program.library_path.clone(),
            current_dir: home.path().to_owned(),
            entry: Entry {
                user: home.user(),
                ruleset: landlock
                    .map(|landlock| landlock.ruleset(program, home, grants))
                    .transpose()?,
                filters: filters.clone(),
                limits: Some(*limits),
                groups: groups.unwrap_or_default(),
                inherited: program.inherited(),
            },
            group,
        })
    }
}

/// The memory that one child may take unless the operator says otherwise: nine tenths of what the
/// service has, so that the kernel ends a child before it ends anything else.
fn most_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = proc::field(&machine, "MemTotal:").map_or(u64::MAX, |kib| kib << 10);
    machine.min(cgroup::memory_limit().unwrap_or(u64::MAX)) / 10 * 9
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The sandbox of the test executable, with all layers that this machine has.
    pub(crate) fn own() -> Sandbox {
        let args = SandboxArgs {
            sandbox: Default::default(),
            require_sandbox: false,
            sandbox_uid: 60_800,
            sandbox_memory_bytes: None,
            sandbox_threads: 4_096,
            sandbox_file_bytes: 1 << 30,
        };
        Sandbox::open(&args, Path::new("/proc/self/exe")).unwrap()
    }
}
