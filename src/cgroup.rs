//! Control groups of this process: what memory they leave it, and where groups for its children may
//! be made. Versions 1 and 2, and both at once. Source: cgroups(7), and the kernel's
//! `admin-guide/cgroup-v2`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::proc;

/// Limits above it stand for "none": version 1 writes the largest multiple of a page.
const UNLIMITED: u64 = 1 << 62;

/// The version of a hierarchy: its files have other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The group that this process is in, of the hierarchy that has one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's folder.
    pub folder: PathBuf,
    /// The folder of the highest group that is visible here.
    top: PathBuf,
    pub version: Version,
}

/// The memory of one group, in bytes.
struct Memory {
    limit: u64,
    /// Without what the kernel takes back first: pages of files that were not used lately.
    used: u64,
}

impl Group {
    /// The group that has the controller `name` (`memory`, `pids`).
    ///
    /// # Errors
    /// No hierarchy of this machine has it, or none is visible.
    pub fn of(name: &str) -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let found = find(&groups, &mounts, name).filter(|group| {
            let listed = || fs::read_to_string(group.folder.join("cgroup.controllers"));
            group.version == Version::V1
                || listed().is_ok_and(|names| names.split_whitespace().any(|listed| listed == name))
        });
        found.ok_or_else(|| io::Error::other(format!("no control group has `{name}` here")))
    }

    /// This group and those above it that are visible.
    fn levels(&self) -> impl Iterator<Item = &Path> {
        let ancestors = self.folder.ancestors();
        ancestors.take_while(|folder| folder.starts_with(&self.top))
    }

    fn memories(&self) -> impl Iterator<Item = Memory> {
        let version = self.version;
        self.levels()
            .filter_map(move |folder| Memory::read(folder, version))
    }
}

impl Memory {
    /// `None` for a group without a limit.
    fn read(folder: &Path, version: Version) -> Option<Self> {
        let (limit, used, inactive) = match version {
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ),
            Version::V2 => ("memory.max", "memory.current", "inactive_file "),
        };
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
        let limit = number(limit).filter(|&limit| limit < UNLIMITED)?;
        let inactive = text("memory.stat").and_then(|text| proc::field(&text, inactive));
        Some(Self {
            limit,
            used: number(used)?.saturating_sub(inactive.unwrap_or(0)),
        })
    }
}

/// The smallest limit of memory that holds for this process, in bytes; `None` without one.
pub fn memory_limit() -> Option<u64> {
    let group = Group::of("memory").ok()?;
    group.memories().map(|memory| memory.limit).min()
}

/// The memory that the groups of this process leave it, in bytes; `None` without a limit.
pub fn free_memory() -> Option<u64> {
    let group = Group::of("memory").ok()?;
    let free = |memory: Memory| memory.limit.saturating_sub(memory.used);
    group.memories().map(free).min()
}

/// The group of a process, from its files `cgroup` and `mountinfo`.
fn find(groups: &str, mounts: &str, controller: &str) -> Option<Group> {
    let lists = |text: &str| text.split(',').any(|one| one == controller);
    // `4:memory:/path` of version 1, or `0::/path` of version 2.
    let path = |version| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let found = match version {
                Version::V1 => lists(controllers),
                Version::V2 => controllers.is_empty(),
            };
            found.then_some(path)
        })
    };
    // `32 31 0:29 /root /mount/point options - type source options`: proc_pid_mountinfo(5).
    let mount = |version| {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let found = match version {
                Version::V1 => kind == "cgroup" && lists(options),
                Version::V2 => kind == "cgroup2",
            };
            found.then_some((root, PathBuf::from(point)))
        })
    };
    [Version::V1, Version::V2].into_iter().find_map(|version| {
        let (path, (root, top)) = (path(version)?, mount(version)?);
        // A path outside the mounted part is that of a group which is not visible.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(Group {
            folder: top.components().chain(below.components()).collect(),
            top,
            version,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn group(folder: &str, top: &str, version: Version) -> Option<Group> {
        Some(Group {
            folder: folder.into(),
            top: top.into(),
            version,
        })
    }

    #[test]
    fn groups_are_found_in_each_version_and_where_both_are_mounted() {
        let groups = "4:memory:/slurm/uid_0/job_7\n2:cpu,cpuacct:/\n0::/\n";
        let memory = "/sys/fs/cgroup/memory";
        assert_eq!(
            find(groups, V1_MOUNTS, "memory"),
            group(
                "/sys/fs/cgroup/memory/slurm/uid_0/job_7",
                memory,
                Version::V1
            )
        );
        let cpu = "/sys/fs/cgroup/cpu,cpuacct";
        assert_eq!(
            find(groups, V1_MOUNTS, "cpuacct"),
            group(cpu, cpu, Version::V1)
        );
        let unified = "/sys/fs/cgroup/unified";
        assert_eq!(
            find(groups, V1_MOUNTS, "pids"),
            group(unified, unified, Version::V2)
        );
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            find("0::/system.slice/rehead.service\n", v2, "memory"),
            group(
                "/sys/fs/cgroup/system.slice/rehead.service",
                "/sys/fs/cgroup",
                Version::V2
            )
        );
        assert_eq!(find("", v2, "memory"), None);
        assert_eq!(find("0::/\n", "", "memory"), None);
    }

    /// A container of Docker sees its own group as the top, under version 1 by the mount's root.
    #[test]
    fn a_container_sees_its_own_group() {
        let mounts = "35 31 0:33 /docker/5a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let memory = "/sys/fs/cgroup/memory";
        let own = find("4:memory:/docker/5a\n", mounts, "memory");
        assert_eq!(own, group(memory, memory, Version::V1));
        let other = find("4:memory:/\n", mounts, "memory");
        assert_eq!(other, group(memory, memory, Version::V1));
    }

    /// Files of a group have the form that the kernel writes; a folder holds them as well.
    #[test]
    fn the_smallest_group_above_decides() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        let write = |below: &str, limit: &str, used: u64, inactive: u64| {
            let at = dir.path().join(below);
            fs::write(at.join("memory.max"), format!("{limit}\n")).unwrap();
            fs::write(at.join("memory.current"), format!("{used}\n")).unwrap();
            let stat = format!("anon 5\ninactive_anon 9\ninactive_file {inactive}\n");
            fs::write(at.join("memory.stat"), stat).unwrap();
        };
        write("a/b", "max", 10, 0);
        write("a", "1000", 900, 500);
        let group = Group {
            folder,
            top: dir.path().to_owned(),
            version: Version::V2,
        };
        let free: Vec<u64> = group.memories().map(|one| one.limit - one.used).collect();
        assert_eq!(free, [600]);
        write("a/b", "300", 10, 0);
        let limits: Vec<u64> = group.memories().map(|one| one.limit).collect();
        assert_eq!(limits, [300, 1000]);
    }

    #[test]
    fn no_limit_of_version_1_is_a_large_number() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.usage_in_bytes", "4096\n");
        assert!(Memory::read(dir.path(), Version::V1).is_none());
        write("memory.limit_in_bytes", "8192\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 1024\n");
        let memory = Memory::read(dir.path(), Version::V1).unwrap();
        assert_eq!((memory.limit, memory.used), (8192, 3072));
    }
}
