//! Users of children, which no account has: a child cannot signal, trace or open what belongs to
//! the service or to another child. Only root can start a process as another user; where another
//! user runs the service, children run as that user.

use std::{
    fs, process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::unistd::geteuid;

/// Users that are taken in turn. The number of children at a time is far below.
const USERS: u32 = 256;
/// Numbers of capabilities that changing the user of a child, its folder and its signals needs.
const CAPABILITIES: [(u32, &str); 6] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
];

/// The user and the group of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

/// A range of users: the first number is the group of all, the others are users.
#[derive(Debug)]
pub(super) struct Users {
    first: u32,
    next: AtomicU32,
}

impl Users {
    /// The users from `first` on; `None` if this process is not root, and so needs none.
    ///
    /// # Errors
    /// Root lacks a capability, or the numbers do not exist in this user namespace.
    pub(super) fn probe(first: u32) -> Result<Option<Self>, String> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
        let held = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        if let Some((_, name)) = CAPABILITIES
            .iter()
            .find(|(number, _)| held >> number & 1 == 0)
        {
            return Err(format!("root lacks {name} here"));
        }
        for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
            let map = fs::read_to_string(map).map_err(|error| error.to_string())?;
            if !maps(&map, first) {
                return Err(format!(
                    "the ids from {first} to {} do not exist in this user namespace; choose others with --sandbox-uid",
                    first + USERS
                ));
            }
        }
        let next = AtomicU32::new(process::id());
        Ok(Some(Self { first, next }))
    }

    /// The group of all children.
    pub(super) fn group(&self) -> u32 {
        self.first
    }

    pub(super) fn next(&self) -> User {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % USERS;
        User {
            id: self.first + 1 + turn,
            group: self.first,
        }
    }
}

/// The layer as the start reports it.
pub(super) fn state(users: &Result<Option<Users>, String>) -> Result<String, String> {
    match users {
        Ok(Some(users)) => Ok(format!("{} to {}", users.first + 1, users.first + USERS)),
        Ok(None) => Ok("that of the service, which is not root".to_owned()),
        Err(why) => Err(why.clone()),
    }
}

/// True when a map of a user namespace has all ids from `first` on.
fn maps(map: &str, first: u32) -> bool {
    map.lines().any(|line| {
        let numbers = line.split_whitespace().map(str::parse::<u64>);
        let numbers: Vec<u64> = numbers.map_while(Result::ok).collect();
        let [inside, _, count] = numbers[..] else {
            return false;
        };
        (inside..inside + count).contains(&u64::from(first))
            && u64::from(first + USERS) < inside + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_must_be_mapped_to_the_last() {
        assert!(maps("         0          0 4294967295\n", 60_800));
        assert!(maps("0 100000 65536\n", 65_536 - USERS - 1));
        assert!(!maps("0 100000 65536\n", 65_536 - USERS));
        assert!(!maps("0 0 1\n", 60_800) && !maps("", 1));
    }

    #[test]
    fn users_are_taken_in_turn_and_never_the_group() {
        let users = Users {
            first: 1_000,
            next: AtomicU32::new(0),
        };
        let taken: Vec<u32> = (0..=USERS).map(|_| users.next().id).collect();
        assert_eq!((taken[0], taken[255], taken[256]), (1_001, 1_256, 1_001));
    }
}
