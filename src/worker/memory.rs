//! Memory of one device: measured before each claim, less a margin, less what running trainers have
//! reserved and not taken yet. Never counted from an assumed total: other processes use it too.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::process::Command;

use crate::{cgroup, config, domain::id::JobId, proc};

/// Memory of a device, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Memory that a further job may take now.
    pub(super) free_mb: u32,
    /// Memory that one job could have if no other ran here.
    pub(super) capacity_mb: u32,
}

/// The memory of one device, shared by its slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reservations: Mutex<HashMap<JobId, Reservation>>,
    claiming: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Reservation {
    mb: u64,
    /// The trainer's process, once it has started.
    pid: Option<i32>,
    peak_mb: u64,
}

/// The reservation of one attempt; released when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: Memory,
    job: JobId,
}

/// Measured memory, in MiB.
struct Measured {
    free_mb: u64,
    /// Memory of our trainers, by process.
    taken_mb: HashMap<i32, u64>,
}

impl Memory {
    /// Waits for the right to claim, to be held from measuring until the claim has its reservation:
    /// what one slot is about to take is not free for the next.
    pub(super) async fn claiming(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.claiming.lock().await
    }

    /// Reserves memory for an attempt of this job.
    pub(super) fn reserve(&self, job: JobId, mb: u32) -> Reserved {
        let reservation = Reservation {
            mb: mb.into(),
            pid: None,
            peak_mb: 0,
        };
        self.with(|reservations| reservations.insert(job, reservation));
        Reserved {
            memory: self.clone(),
            job,
        }
    }

    /// Measures how much memory a device has left.
    ///
    /// # Errors
    /// The system or the GPU's driver does not answer.
    pub(super) async fn room(&self, device: &str, margin_mb: u32) -> io::Result<Room> {
        let reservations = self.with(|reservations| reservations.clone());
        let pids: Vec<i32> = reservations
            .values()
            .filter_map(|reservation| reservation.pid)
            .collect();
        let measured = match device.strip_prefix("cuda") {
            None => cpu_memory(&pids)?,
            Some(index) => cuda_memory(index.trim_start_matches(':')).await?,
        };
        Ok(room(reservations.values(), &measured, margin_mb.into()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<JobId, Reservation>) -> T) -> T {
        let mut reservations = self
            .0
            .reservations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(&mut reservations)
    }
}

impl Reserved {
    /// Counts what this process takes against the reservation.
    pub(super) fn bind(&self, pid: u32) {
        self.with(|reservation| reservation.pid = Some(pid.cast_signed()));
    }

    /// Updates the peak of the trainer's memory, in the machine's memory.
    pub(super) fn measure_peak(&self) {
        self.with(|reservation| {
            let peak_mb = reservation.pid.and_then(|pid| status_mb(pid, "VmHWM:"));
            reservation.peak_mb = reservation.peak_mb.max(peak_mb.unwrap_or(0));
        });
    }

    /// The highest measured memory, in MiB.
    pub(super) fn peak_mb(&self) -> Option<u32> {
        let peak_mb = self.with(|reservation| reservation.peak_mb)?;
        (peak_mb > 0).then(|| small(peak_mb))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Reservation) -> T) -> Option<T> {
        self.memory
            .with(|reservations| reservations.get_mut(&self.job).map(act))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory
            .with(|reservations| reservations.remove(&self.job));
    }
}

fn room<'a>(
    reservations: impl Iterator<Item = &'a Reservation>,
    measured: &Measured,
    margin_mb: u64,
) -> Room {
    let (mut owed, mut ours) = (0, 0);
    for reservation in reservations {
        let taken = reservation.pid.and_then(|pid| measured.taken_mb.get(&pid));
        let taken = taken.copied().unwrap_or(0);
        owed += reservation.mb.saturating_sub(taken);
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

/// Memory of the machine, or of this container where that has less.
fn cpu_memory(pids: &[i32]) -> io::Result<Measured> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let available = field_mb(&meminfo, "MemAvailable:")
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
    let taken_mb = pids
        .iter()
        .filter_map(|&pid| Some((pid, status_mb(pid, "VmRSS:")?)));
    Ok(Measured {
        free_mb: cgroup::free_memory().map_or(available, |bytes| available.min(bytes >> 20)),
        taken_mb: taken_mb.collect(),
    })
}

/// Memory of one GPU, as its driver reports it.
async fn cuda_memory(index: &str) -> io::Result<Measured> {
    let gpu = physical_gpu(config::visible_gpus().as_deref(), index);
    let ask = async |query: &str| -> io::Result<String> {
        let output = Command::new("nvidia-smi")
            .args(["-i", &gpu, query, "--format=csv,noheader,nounits"])
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
        free_mb: free.trim().parse().map_err(|_| {
            io::Error::other(format!("nvidia-smi reports no free memory of GPU {gpu}"))
        })?,
        taken_mb: taken_mb.collect(),
    })
}

/// The GPU behind `cuda:<index>`, as nvidia-smi knows it: it ignores `CUDA_VISIBLE_DEVICES`, of
/// which `index` counts the entries.
fn physical_gpu(visible: Option<&str>, index: &str) -> String {
    let index = if index.is_empty() { "0" } else { index };
    let entry = index
        .parse()
        .ok()
        .and_then(|n: usize| visible?.split(',').nth(n));
    entry.map_or(index, str::trim).to_owned()
}

fn status_mb(pid: i32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field_mb(&status, field)
}

/// A field of `/proc/meminfo` and the like, which hold KiB.
fn field_mb(text: &str, field: &str) -> Option<u64> {
    Some(proc::field(text, field)? >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_count_until_they_are_taken() {
        let reservation = |mb, pid| Reservation {
            mb,
            pid,
            peak_mb: 0,
        };
        let reservations = [
            reservation(1_000, Some(1)),
            reservation(500, Some(2)),
            reservation(100, None),
        ];
        let measured = Measured {
            free_mb: 4_000,
            taken_mb: HashMap::from([(1, 300), (2, 700)]),
        };
        // Not taken yet: 700 and 100; the second took more than it had reserved.
        let expected = Room {
            free_mb: 4_000 - 256 - 800,
            capacity_mb: 5_000 - 256,
        };
        assert_eq!(room(reservations.iter(), &measured, 256), expected);
        assert_eq!(room(reservations.iter(), &measured, 9_000).free_mb, 0);
    }

    #[tokio::test]
    async fn reservation_lives_as_long_as_its_trainer() {
        let memory = Memory::default();
        let before = memory.room("cpu", 0).await.unwrap();
        assert!(before.free_mb > 0 && before.capacity_mb >= before.free_mb);
        let reserved = memory.reserve(JobId::new(), before.free_mb);
        assert_eq!(reserved.peak_mb(), None);
        reserved.bind(std::process::id());
        reserved.measure_peak();
        assert!(reserved.peak_mb().unwrap() > 0);
        let meanwhile = memory.room("cpu", 0).await.unwrap();
        assert!(meanwhile.free_mb < before.free_mb / 2, "{meanwhile:?}");
        drop(reserved);
        assert!(memory.0.reservations.lock().unwrap().is_empty());
    }

    #[test]
    fn gpu_index_counts_the_visible_gpus() {
        assert_eq!(physical_gpu(None, ""), "0");
        assert_eq!(physical_gpu(None, "2"), "2");
        assert_eq!(physical_gpu(Some("3, GPU-5a"), "0"), "3");
        assert_eq!(physical_gpu(Some("3, GPU-5a"), "1"), "GPU-5a");
    }

    #[test]
    fn fields_are_read_in_mib() {
        let text = "MemTotal:       24642116 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(field_mb(text, "MemAvailable:"), Some(2));
        assert_eq!(field_mb(text, "Swap:"), None);
    }
}
