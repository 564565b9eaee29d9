//! Gauges of this process, its machine, and the disks and connections that it uses.

use std::path::Path;

use sqlx::PgPool;

use crate::{cgroup, proc};

use super::metrics::{
    DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_MAX, DISK_FREE, DISK_SIZE, HOST_MEMORY_AVAILABLE,
    PROCESS_CPU, PROCESS_FDS, PROCESS_FDS_MAX, PROCESS_RESIDENT, PROCESS_START,
};

/// Measures this process and its machine. What the system does not report is left out.
pub fn measure() {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = text("/proc/self/stat");
    // The name of the process, in parentheses, may contain spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    // Numbers of proc(5), which counts from 1 and has two fields before these.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let set = |gauge: &super::metrics::Gauge<0>, value: Option<f64>| {
        if let Some(value) = value {
            gauge.set([], value);
        }
    };
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let ticks = ticks.ok().flatten().unwrap_or(100) as f64;
    let booted = number(&text("/proc/stat"), "btime");
    set(
        &PROCESS_START,
        booted
            .zip(field(22))
            .map(|(booted, start)| booted + start / ticks),
    );
    let cpu = field(14)
        .zip(field(15))
        .map(|(user, system)| (user + system) / ticks);
    set(&PROCESS_CPU, cpu);
    set(
        &PROCESS_RESIDENT,
        number(&text("/proc/self/status"), "VmRSS:").map(kib),
    );
    let open = std::fs::read_dir("/proc/self/fd").ok();
    // One of them reads the folder.
    set(
        &PROCESS_FDS,
        open.map(|entries| entries.count().saturating_sub(1) as f64),
    );
    set(
        &PROCESS_FDS_MAX,
        number(&text("/proc/self/limits"), "Max open files"),
    );
    let available = number(&text("/proc/meminfo"), "MemAvailable:").map(kib);
    let left = cgroup::free_memory().map_or(f64::INFINITY, |bytes| bytes as f64);
    set(
        &HOST_MEMORY_AVAILABLE,
        available.map(|bytes| bytes.min(left)),
    );
}

/// Measures the disk that this folder is on, under the name that metrics have for it.
pub fn measure_disk(name: &'static str, folder: &Path) {
    // Before its first use a folder may not exist: its disk is that of its parent.
    let existing = folder.ancestors().find(|folder| folder.exists());
    let Some(Ok(disk)) = existing.map(nix::sys::statvfs::statvfs) else {
        return;
    };
    let block = disk.fragment_size() as f64;
    DISK_FREE.set([name.into()], disk.blocks_available() as f64 * block);
    DISK_SIZE.set([name.into()], disk.blocks() as f64 * block);
}

/// Counts the connections of a pool.
pub fn measure_pool(name: &'static str, pool: &PgPool) {
    let idle = pool.num_idle() as f64;
    let used = (f64::from(pool.size()) - idle).max(0.0);
    DATABASE_CONNECTIONS.set([name.into(), "used".into()], used);
    DATABASE_CONNECTIONS.set([name.into(), "idle".into()], idle);
    let limit = pool.options().get_max_connections();
    DATABASE_CONNECTIONS_MAX.set([name.into()], limit.into());
}

fn number(text: &str, name: &str) -> Option<f64> {
    proc::field(text, name).map(|number| number as f64)
}

fn kib(value: f64) -> f64 {
    value * 1024.0
}
