//! How much memory one more trainer may take: measured before each claim, less a margin, less what running trainers were
//! promised and have not taken yet. Never counted from an assumed total: other processes live on the machine too.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::process::Command;

use crate::domain::id::JobId;

/// Memory of a device, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What a further job may take now.
    pub(super) free_mb: u32,
    /// What one job could have if no other ran here.
    pub(super) capacity_mb: u32,
}

/// What running trainers were promised.
#[derive(Debug, Clone, Default)]
pub(super) struct Promises(Arc<Mutex<HashMap<JobId, Promise>>>);

#[derive(Debug, Clone, Copy)]
struct Promise {
    mb: u64,
    /// Once the trainer is there.
    pid: Option<i32>,
    peak_mb: u64,
}

/// What one attempt was promised; ends when dropped.
#[derive(Debug)]
pub(super) struct Promised {
    promises: Promises,
    job: JobId,
}

/// As measured, in MiB.
struct Measured {
    free_mb: u64,
    /// Of our trainers, by process.
    taken_mb: HashMap<i32, u64>,
}

impl Promises {
    /// Promises memory to the attempt of this job.
    pub(super) fn make(&self, job: JobId, mb: u32) -> Promised {
        let promise = Promise {
            mb: mb.into(),
            pid: None,
            peak_mb: 0,
        };
        self.with(|promises| promises.insert(job, promise));
        Promised {
            promises: self.clone(),
            job,
        }
    }

    /// Measures what a device has left.
    ///
    /// # Errors
    /// The system does not say.
    pub(super) async fn room(&self, device: &str, margin_mb: u32) -> io::Result<Room> {
        let promises = self.with(|promises| promises.clone());
        let pids: Vec<i32> = promises
            .values()
            .filter_map(|promise| promise.pid)
            .collect();
        let measured = match device.strip_prefix("cuda") {
            None => cpu_memory(&pids)?,
            Some(index) => cuda_memory(index.trim_start_matches(':')).await?,
        };
        Ok(room(promises.values(), &measured, margin_mb.into()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<JobId, Promise>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Promised {
    /// The promise is this process's from now on.
    pub(super) fn bind(&self, pid: u32) {
        self.with(|promise| promise.pid = Some(pid.cast_signed()));
    }

    /// Looks how much the trainer has taken at the most of the machine's memory.
    pub(super) fn look(&self) {
        self.with(|promise| {
            let peak_mb = promise.pid.and_then(|pid| status_mb(pid, "VmHWM:"));
            promise.peak_mb = promise.peak_mb.max(peak_mb.unwrap_or(0));
        });
    }

    /// The most that it was seen to take, in MiB.
    pub(super) fn peak_mb(&self) -> Option<u32> {
        let peak_mb = self.with(|promise| promise.peak_mb)?;
        (peak_mb > 0).then(|| small(peak_mb))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Promise) -> T) -> Option<T> {
        self.promises
            .with(|promises| promises.get_mut(&self.job).map(act))
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        self.promises.with(|promises| promises.remove(&self.job));
    }
}

fn room<'a>(
    promises: impl Iterator<Item = &'a Promise>,
    measured: &Measured,
    margin_mb: u64,
) -> Room {
    let (mut owed, mut ours) = (0, 0);
    for promise in promises {
        let taken = promise.pid.and_then(|pid| measured.taken_mb.get(&pid));
        let taken = taken.copied().unwrap_or(0);
        owed += promise.mb.saturating_sub(taken);
        ours += taken;
    }
    Room {
        free_mb: small(measured.free_mb.saturating_sub(margin_mb + owed)),
        capacity_mb: small((measured.free_mb + ours).saturating_sub(margin_mb)),
    }
}

fn small(mb: u64) -> u32 {
    // Postgres' integers end there.
    u32::try_from(mb.min(i32::MAX.unsigned_abs().into())).expect("bounded above: this is a bug")
}

/// Of the machine, or of this container where that has less.
fn cpu_memory(pids: &[i32]) -> io::Result<Measured> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let available = field_mb(&meminfo, "MemAvailable:")
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
    let taken_mb = pids
        .iter()
        .filter_map(|&pid| Some((pid, status_mb(pid, "VmRSS:")?)));
    Ok(Measured {
        free_mb: available.min(cgroup_free_mb().unwrap_or(u64::MAX)),
        taken_mb: taken_mb.collect(),
    })
}

/// What the control group of this process allows it still to take; `None` without a limit.
fn cgroup_free_mb() -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?) >> 20)
}

/// What the driver says of one GPU. Not run on a GPU yet.
async fn cuda_memory(index: &str) -> io::Result<Measured> {
    let index = if index.is_empty() { "0" } else { index };
    let ask = async |query: &str| -> io::Result<String> {
        let output = Command::new("nvidia-smi")
            .args(["-i", index, query, "--format=csv,noheader,nounits"])
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let free = ask("--query-gpu=memory.free").await?;
    let apps = ask("--query-compute-apps=pid,used_memory").await?;
    let taken_mb = apps.lines().filter_map(|line| {
        let (pid, used) = line.split_once(',')?;
        Some((pid.trim().parse().ok()?, used.trim().parse().ok()?))
    });
    Ok(Measured {
        free_mb: free
            .trim()
            .parse()
            .map_err(|_| io::Error::other("nvidia-smi does not say what is free"))?,
        taken_mb: taken_mb.collect(),
    })
}

fn status_mb(pid: i32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field_mb(&status, field)
}

/// A field of `/proc/meminfo` and the like, which hold KiB.
fn field_mb(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_count_until_they_are_taken() {
        let promise = |mb, pid| Promise {
            mb,
            pid,
            peak_mb: 0,
        };
        let promises = [
            promise(1_000, Some(1)),
            promise(500, Some(2)),
            promise(100, None),
        ];
        let measured = Measured {
            free_mb: 4_000,
            taken_mb: HashMap::from([(1, 300), (2, 700)]),
        };
        // Still owed: 700 and 100; the second took more than it was promised.
        let expected = Room {
            free_mb: 4_000 - 256 - 800,
            capacity_mb: 5_000 - 256,
        };
        assert_eq!(room(promises.iter(), &measured, 256), expected);
        assert_eq!(room(promises.iter(), &measured, 9_000).free_mb, 0);
    }

    #[tokio::test]
    async fn a_promise_lives_as_long_as_its_trainer() {
        let promises = Promises::default();
        let before = promises.room("cpu", 0).await.unwrap();
        assert!(before.free_mb > 0 && before.capacity_mb >= before.free_mb);
        let promised = promises.make(JobId::new(), before.free_mb);
        assert_eq!(promised.peak_mb(), None);
        promised.bind(std::process::id());
        promised.look();
        assert!(promised.peak_mb().unwrap() > 0);
        let meanwhile = promises.room("cpu", 0).await.unwrap();
        assert!(meanwhile.free_mb < before.free_mb / 2, "{meanwhile:?}");
        drop(promised);
        assert!(promises.0.lock().unwrap().is_empty());
    }

    #[test]
    fn fields_are_read_in_mib() {
        let text = "MemTotal:       24642116 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(field_mb(text, "MemAvailable:"), Some(2));
        assert_eq!(field_mb(text, "Swap:"), None);
    }
}
