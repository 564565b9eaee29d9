//! A control group for each child: the memory and the processes that it may take. Groups need a
//! folder that the service may write to: root has it on a machine, systemd gives it by `Delegate=`,
//! and some containers have a writable `/sys/fs/cgroup`. Source: cgroups(7), "no internal
//! processes".

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    cgroup::{Group, Version},
    proc,
};

/// Name of the group that the service moves itself to: in version 2, a group with controllers for
/// its children holds no process. Also for `DelegateSubgroup=` of systemd.
const OWN: &str = "rehead-service";
/// Names of children's groups begin with it; the id of the service's process and a number follow.
const PREFIX: &str = "rehead-child";

/// Limits on one child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amounts {
    /// Memory with what it swaps out, in bytes.
    pub(super) memory_bytes: u64,
    /// Processes and threads.
    pub(super) threads: u64,
}

/// Makes groups for children.
#[derive(Debug)]
pub(super) struct ChildGroups {
    places: Vec<Place>,
    amounts: Amounts,
    /// Groups of children that were still ending.
    left: Mutex<Vec<PathBuf>>,
}

/// A folder in which groups are made, and the controllers that they have there.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
}

/// The group of one child. Removed when it is dropped, which has to be after the child's end.
#[derive(Debug)]
pub struct ChildGroup {
    groups: Arc<ChildGroups>,
    folders: Vec<PathBuf>,
}

impl Controller {
    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The amount that it limits, in words.
    fn limited(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "threads",
        }
    }

    /// Limits a group. What only some kernels have is set where it is there.
    fn limit(self, folder: &Path, version: Version, amounts: &Amounts) -> io::Result<()> {
        let set = |name: &str, value: u64| fs::write(folder.join(name), value.to_string());
        match (self, version) {
            (Self::Pids, _) => set("pids.max", amounts.threads),
            (Self::Memory, Version::V1) => {
                set("memory.limit_in_bytes", amounts.memory_bytes)?;
                optional(set("memory.memsw.limit_in_bytes", amounts.memory_bytes))
            }
            (Self::Memory, Version::V2) => {
                set("memory.max", amounts.memory_bytes)?;
                optional(set("memory.swap.max", 0))?;
                optional(set("memory.oom.group", 1))
            }
        }
    }
}

impl ChildGroups {
    /// The groups that can be made here, `None` if there are none, and what they cannot limit, with
    /// the reason.
    pub(super) fn probe(amounts: Amounts) -> (Option<Arc<Self>>, Vec<String>) {
        let (mut places, mut missing) = (Vec::<Place>::new(), Vec::new());
        for controller in [Controller::Memory, Controller::Pids] {
            match open(controller, &amounts) {
                Ok((folder, version)) => {
                    match places.iter_mut().find(|place| place.folder == folder) {
                        Some(place) => place.controllers.push(controller),
                        None => places.push(Place {
                            folder,
                            version,
                            controllers: vec![controller],
                        }),
                    }
                }
                Err(error) => missing.push(format!("{}: {error}", controller.limited())),
            }
        }
        for place in &places {
            remove_abandoned(&place.folder);
        }
        let groups = (!places.is_empty()).then(|| {
            Arc::new(Self {
                places,
                amounts,
                left: Mutex::default(),
            })
        });
        (groups, missing)
    }

    /// The amounts that are limited.
    pub(super) fn limited(&self) -> Vec<&'static str> {
        let controllers = self.places.iter().flat_map(|place| &place.controllers);
        controllers.map(|controller| controller.limited()).collect()
    }

    /// Makes a group, and the handles by which a process enters it: it writes `0` to each.
    ///
    /// # Errors
    /// The system does not make it.
    pub(super) fn create(self: &Arc<Self>) -> io::Result<(ChildGroup, Vec<OwnedFd>)> {
        self.remove(Vec::new());
        let name = next_name();
        let mut group = ChildGroup {
            groups: Arc::clone(self),
            folders: Vec::new(),
        };
        let mut entrances = Vec::new();
        for place in &self.places {
            let folder = place.folder.join(&name);
            fs::create_dir(&folder)?;
            group.folders.push(folder.clone());
            for controller in &place.controllers {
                controller.limit(&folder, place.version, &self.amounts)?;
            }
            let entrance = File::options()
                .write(true)
                .open(folder.join("cgroup.procs"))?;
            entrances.push(entrance.into());
        }
        Ok((group, entrances))
    }

    /// Removes groups, now or later: while a process is ending, its group stays.
    fn remove(&self, folders: Vec<PathBuf>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(folders);
        left.retain(|folder| {
            fs::remove_dir(folder).is_err_and(|error| error.kind() != ErrorKind::NotFound)
        });
    }
}

impl ChildGroup {
    /// The limit in bytes, if the kernel ended a process of the group because it took more memory.
    pub(crate) fn exceeded_memory(&self) -> Option<u64> {
        let ended = |folder: &PathBuf| {
            ["memory.events", "memory.oom_control"].iter().any(|name| {
                let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
                proc::field(&text, "oom_kill ").is_some_and(|ended| ended > 0)
            })
        };
        let limit = self.groups.amounts.memory_bytes;
        self.folders.iter().any(ended).then_some(limit)
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        self.groups.remove(std::mem::take(&mut self.folders));
    }
}

/// A name that no other group has.
fn next_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}-{}-{number}", process::id())
}

/// The folder in which groups with this controller can be made: one is made as a trial.
fn open(controller: Controller, amounts: &Amounts) -> io::Result<(PathBuf, Version)> {
    let group = Group::of(controller.as_str())?;
    let (version, mut folder) = (group.version, group.folder);
    if version == Version::V2 {
        if folder.ends_with(OWN) {
            folder.pop();
        }
        enable(controller.as_str(), &folder)?;
    }
    let trial = folder.join(next_name());
    let named = |error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "; systemd's `Delegate=memory pids` makes it writable"
            }
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!(
                "cannot make a control group in `{}`: {error}{hint}",
                folder.display()
            ),
        )
    };
    fs::create_dir(&trial).map_err(named)?;
    let limited = controller.limit(&trial, version, amounts);
    fs::remove_dir(&trial).map_err(named)?;
    limited.map_err(named)?;
    Ok((folder, version))
}

/// Lets groups in a folder of version 2 have a controller. The service leaves that group for one of
/// its own if it has to.
fn enable(controller: &str, folder: &Path) -> io::Result<()> {
    let control = folder.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control)?;
    if enabled.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    let enable = || fs::write(&control, format!("+{controller}"));
    match enable() {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            leave(folder)?;
            enable()
        }
        done => done,
    }
}

/// Moves this process with all that it has started to a group of its own.
fn leave(folder: &Path) -> io::Result<()> {
    let listed = fs::read_to_string(folder.join("cgroup.procs"))?;
    let pids: Vec<u32> = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
    if let Some(other) = pids.iter().find(|&&pid| !is_ours(pid)) {
        return Err(io::Error::other(format!(
            "process {other} is in the same control group, `{}`; start the service in one of its own",
            folder.display()
        )));
    }
    let own = folder.join(OWN);
    match fs::create_dir(&own) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in pids {
        fs::write(own.join("cgroup.procs"), pid.to_string())?;
    }
    Ok(())
}

/// True for this process and those below it.
fn is_ours(pid: u32) -> bool {
    let parent = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        u32::try_from(proc::field(&status, "PPid:")?).ok()
    };
    let mut line = std::iter::successors(Some(pid), |&pid| parent(pid).filter(|&pid| pid > 0));
    line.any(|pid| pid == process::id())
}

/// Removes groups that a service left when it was killed. Those with processes stay.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let service = name.to_str().and_then(|name| {
            name.strip_prefix(PREFIX)?
                .strip_prefix('-')?
                .split_once('-')
        });
        if let Some((pid, _)) = service
            && !Path::new("/proc").join(pid).exists()
        {
            // Someone else may have removed it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A limit that this kernel may lack.
fn optional(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(error)
            if matches!(
                error.kind(),
                // No such file may be created in a folder of control groups.
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a real group of version 2, with any controller that this machine has left for it.
    #[test]
    fn a_service_alone_in_its_group_leaves_it_to_the_groups_of_its_children() {
        const CONTROLLERS: [&str; 5] = ["pids", "memory", "cpu", "io", "hugetlb"];
        let v2 = CONTROLLERS.iter().find_map(|controller| {
            let group = Group::of(controller).ok()?;
            (group.version == Version::V2).then_some((*controller, group.folder))
        });
        let Some((controller, above)) = v2 else {
            println!("no controller of version 2 here");
            return;
        };
        let folder = above.join(format!("rehead-test-{}", process::id()));
        let control = above.join("cgroup.subtree_control");
        let before = fs::read_to_string(&control).unwrap_or_default();
        if enable(controller, &above).is_err() || fs::create_dir(&folder).is_err() {
            println!("no right to make groups here");
            return;
        }
        let enter = |folder: &Path, pid: u32| {
            fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        };
        enter(&folder, process::id());
        let mut started = process::Command::new("sleep").arg("60").spawn().unwrap();
        // A process that is not ours, such as the shell of a session.
        let parent = std::os::unix::process::parent_id();
        enter(&folder, parent);
        let refused = enable(controller, &folder).unwrap_err().to_string();
        enter(&above, parent);
        assert!(
            refused.contains(&format!("process {parent} is in the same")),
            "{refused}"
        );

        enable(controller, &folder).unwrap();
        let own = fs::read_to_string(folder.join(OWN).join("cgroup.procs")).unwrap();
        for pid in [process::id(), started.id()] {
            assert!(own.lines().any(|line| line == pid.to_string()), "{own}");
        }
        let child = folder.join("child");
        fs::create_dir(&child).unwrap();
        enter(&child, started.id());

        enter(&above, process::id());
        started.kill().unwrap();
        started.wait().unwrap();
        for folder in [child, folder.join(OWN), folder] {
            fs::remove_dir(folder).unwrap();
        }
        if !before.split_whitespace().any(|name| name == controller) {
            // Refused while another process still needs it.
            let _ = fs::write(control, format!("-{controller}"));
        }
    }

    #[test]
    fn processes_below_this_one_are_ours() {
        let mut started = process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_ours(process::id()) && is_ours(started.id()));
        assert!(!is_ours(std::os::unix::process::parent_id()) && !is_ours(1));
        started.kill().unwrap();
        started.wait().unwrap();
        assert!(!is_ours(started.id()));
    }
}
