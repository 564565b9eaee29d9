//! A child enters its sandbox between fork and exec. System calls only: another thread
//! of the parent may have held any lock at the fork, that of the allocator too.
#![expect(
    unsafe_code,
    reason = "system calls between fork and exec, for which nothing safe exists"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use libc::{c_int, c_long};

use super::{
    landlock::OWN_PROCESS,
    seccomp::{Filters, OWN_PID},
    users::User,
};

/// Open files of one child.
const FILES: u64 = 4_096;

/// Limits on a child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Threads, where it has a user of its own: the system counts those of a user.
    pub(super) threads: Option<u64>,
    /// Size of a file, in bytes.
    pub(super) file_bytes: u64,
}

/// A child's way into its sandbox. The default is none.
#[derive(Debug, Default)]
pub struct Entry {
    pub(super) user: Option<User>,
    pub(super) ruleset: Option<OwnedFd>,
    pub(super) filters: Option<Filters>,
    pub(super) limits: Option<Limits>,
    /// The control groups that it enters (`cgroup.procs`).
    pub(super) groups: Vec<OwnedFd>,
    /// Handles that the child keeps.
    pub(super) inherited: Vec<RawFd>,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

impl Entry {
    /// Changes to the child's user and sets its limits. What is lost with the old user has to be
    /// set after it: the signal at the parent's death.
    ///
    /// # Errors
    /// A system call failed.
    pub fn become_user(&self) -> io::Result<()> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        self.enter_groups()?;
        self.allow_own_process()?;
        set_limit(libc::RLIMIT_FSIZE, limits.file_bytes)?;
        set_limit(libc::RLIMIT_NOFILE, FILES)?;
        // SAFETY: these calls take numbers, and one pointer to a number that is alive.
        unsafe {
            libc::umask(0o077);
            for &handle in &self.inherited {
                check(libc::fcntl(handle, libc::F_SETFD, 0).into())?;
            }
            if let Some(User { id, group }) = self.user {
                // Not those of the C library, which would ask all threads of the parent.
                check(libc::syscall(libc::SYS_setgroups, 1, &raw const group))?;
                check(libc::syscall(libc::SYS_setresgid, group, group, group))?;
                check(libc::syscall(libc::SYS_setresuid, id, id, id))?;
            }
        }
        limits
            .threads
            .map_or(Ok(()), |threads| set_limit(libc::RLIMIT_NPROC, threads))
    }

    /// Gives up what is left: privileges, files, system calls.
    ///
    /// # Errors
    /// A system call failed.
    pub fn restrict(&mut self) -> io::Result<()> {
        if self.limits.is_none() {
            return Ok(());
        }
        // SAFETY: as above; each pointer is to memory that is alive.
        unsafe {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            if let Some(ruleset) = &self.ruleset {
                let ruleset = ruleset.as_raw_fd();
                check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0))?;
            }
            let own = libc::getpid().unsigned_abs();
            for program in self.filters.iter_mut().flat_map(|filters| &mut filters.0) {
                for step in program.iter_mut().filter(|step| step.k == OWN_PID) {
                    step.k = own;
                }
                seccompiler::apply_filter(program).map_err(|_| io::Error::last_os_error())?;
            }
        }
        Ok(())
    }

    /// Enters the control groups, by the rights of the service.
    fn enter_groups(&self) -> io::Result<()> {
        for group in &self.groups {
            // SAFETY: the text is a constant, and the handle is open.
            let written = unsafe { libc::write(group.as_raw_fd(), b"0".as_ptr().cast(), 1) };
            check(written as c_long)?;
        }
        Ok(())
    }

    /// Adds the child's folder in /proc to its rules; nobody but the child knows it.
    fn allow_own_process(&self) -> io::Result<()> {
        /// `LANDLOCK_RULE_PATH_BENEATH`
        const PATH_BENEATH: c_int = 1;
        let Some(ruleset) = &self.ruleset else {
            return Ok(());
        };
        // SAFETY: the path is a constant C string, and the rule lives until the call returns.
        unsafe {
            let folder = libc::open(c"/proc/self".as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            check(folder.into())?;
            let rule = PathBeneath {
                allowed_access: OWN_PROCESS.bits(),
                parent_fd: folder,
            };
            check(libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0,
            ))?;
            check(libc::close(folder).into())
        }
    }
}

/// Lowers a limit; one that is lower already stays.
fn set_limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is alive.
    unsafe {
        check(libc::getrlimit(resource, &raw mut limit).into())?;
        limit.rlim_max = limit.rlim_max.min(value);
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(resource, &raw const limit).into())
    }
}

/// The error of a system call that answered -1.
fn check(answer: c_long) -> io::Result<()> {
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
