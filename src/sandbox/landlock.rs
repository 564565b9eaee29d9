//! The rules of Landlock: which files a child reaches, and that it reaches no port, no abstract
//! socket and no process outside. See landlock(7).

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope, make_bitflags,
};

use super::{grants::Grants, home::Home, program::Program};

/// The first version that protects files from being cut off; older ones count as missing.
const LEAST: i32 = 3;
/// The newest version whose rights are asked for. Older kernels enforce those that they know.
const NEWEST: ABI = ABI::V6;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const EXECUTE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | Execute});
const DEVICE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});
/// No links, sockets, pipes or devices, and nothing to execute.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});

/// Files that torch and the C library read about the machine.
const MACHINE: [&str; 8] = [
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/urandom",
    "/dev/zero",
];
/// Files that NVIDIA's driver reads.
const GPU_FILES: [&str; 5] = [
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/version",
    "/sys",
];
/// Beginnings of the names of GPU devices in /dev.
const GPU_DEVICES: [&str; 2] = ["nvidia", "dxg"];

/// Rights of a child on its own folder in /proc.
pub(super) const OWN_PROCESS: BitFlags<AccessFs> = READ;

/// The version of this kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Landlock {
    version: i32,
}

impl Landlock {
    #[expect(unsafe_code, reason = "a system call that takes no memory")]
    pub(super) fn probe() -> Self {
        /// `LANDLOCK_CREATE_RULESET_VERSION`
        const VERSION: libc::c_uint = 1;
        let (nothing, size) = (std::ptr::null::<libc::c_void>(), 0_usize);
        // SAFETY: with this flag the kernel reads nothing.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, size, VERSION) };
        Self {
            version: i32::try_from(version).unwrap_or(0),
        }
    }

    /// The layer as the start reports it.
    pub(super) fn state(self) -> Result<String, String> {
        match self.version {
            version if version >= LEAST => Ok(format!("ABI {version}")),
            version if version > 0 => Err(format!(
                "this kernel has ABI {version} of Landlock, and {LEAST} is needed (Linux 6.2)"
            )),
            _ => Err(
                "this kernel has no Landlock, or it is not among its security modules (`lsm=`)"
                    .to_owned(),
            ),
        }
    }

    /// None for a kernel without Landlock. Old versions are used for what they are worth.
    pub(super) fn available(self) -> Option<Self> {
        (self.version > 0).then_some(self)
    }

    /// The rules of one child. `Entry` adds the child's own folder in /proc.
    pub(super) fn ruleset(
        self,
        program: &Program,
        home: &Home,
        grants: Grants,
    ) -> io::Result<OwnedFd> {
        self.rules(program, home, grants)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the kernel has lost its Landlock"))
    }

    fn rules(
        self,
        program: &Program,
        home: &Home,
        grants: Grants,
    ) -> Result<Option<OwnedFd>, Box<dyn std::error::Error + Send + Sync>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let mut allow = |path: &Path, access| add(&mut rules, path, access);
        allow(&program.executable, EXECUTE)?;
        if let Some(loader) = &program.loader {
            allow(loader, EXECUTE)?;
        }
        for folder in &program.libraries {
            allow(folder, READ)?;
        }
        allow(home.path(), READ)?;
        if grants.writes {
            allow(&home.work(), WRITE)?;
        }
        allow(Path::new("/dev/null"), DEVICE)?;
        let machine = MACHINE.iter().map(Path::new);
        let gpu_files = GPU_FILES.iter().filter(|_| grants.gpus).map(Path::new);
        for path in machine.chain(gpu_files).filter(|path| path.exists()) {
            allow(path, READ)?;
        }
        if grants.gpus {
            for device in gpu_devices()? {
                allow(&device, DEVICE | AccessFs::ReadDir)?;
            }
        }
        Ok(rules.into())
    }
}

/// Allows access to a file, or to a folder and all below it.
fn add(
    rules: &mut RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    Ok(())
}

fn gpu_devices() -> io::Result<Vec<PathBuf>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if GPU_DEVICES.iter().any(|begin| name.starts_with(begin)) {
            devices.push(entry.path());
        }
    }
    Ok(devices)
}
