//! Refreshes the gauges of a worker: its slots, devices, cache, disk and connections.

use std::collections::BTreeMap;

use super::{context::Worker, slot::Slot};
use crate::telemetry::{
    Refresh,
    metrics::{CACHE, CACHE_MAX, SLOTS, SLOTS_BUSY},
    process,
};

/// Refreshes between two measurements of devices: those of a GPU start a program.
const DEVICE_EVERY: u64 = 6;

/// Measures at intervals. Never returns.
pub(super) async fn run(worker: &Worker, slots: &[Slot]) {
    let mut of_device: BTreeMap<&str, (u32, &Slot)> = BTreeMap::new();
    for slot in slots {
        of_device.entry(&slot.device).or_insert((0, slot)).0 += 1;
        // A series that is there from the start shows that nothing trains.
        drop(SLOTS_BUSY.hold([slot.label()]));
    }
    CACHE_MAX.set([], worker.args.cache_bytes as f64);
    let mut refresh = Refresh::new();
    for round in 0_u64.. {
        refresh.due().await;
        for (count, slot) in of_device.values() {
            SLOTS.set([slot.label()], f64::from(*count));
            if round % DEVICE_EVERY == 0 {
                slot.measure(worker).await;
            }
        }
        process::measure_pool("main", &worker.pool);
        process::measure_pool("heartbeats", &worker.heartbeats);
        tokio::task::block_in_place(|| {
            process::measure();
            process::measure_disk("work", &worker.work_dir);
            process::measure_disk("objects", worker.objects.root());
            if let Ok(bytes) = worker.cache.bytes() {
                CACHE.set([], bytes as f64);
            }
        });
    }
}
