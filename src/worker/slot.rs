//! A slot: a place for one training at a time, on one device. A claim offers the slot: what its
//! device has free, while its trainer and its last attempts show that it works.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::{
    context::Worker,
    folder::Folders,
    health::Health,
    lease,
    memory::{Memory, Reserved},
    warm_trainer::WarmTrainer,
};
use crate::{
    config::WorkArgs,
    db::{self, workers::State},
    sandbox::Sandbox,
    telemetry::metrics::{DEVICE_CAPACITY, DEVICE_FREE, Label},
};

/// Slots of one device share its warm trainer, its health and its memory.
#[derive(Clone)]
pub(super) struct Slot {
    /// The device's place in the worker's list.
    index: usize,
    /// The device as a plan names it: `cpu` or `cuda:1`; `auto` where it could not be resolved.
    pub(super) device: String,
    pub(super) warm_trainer: Arc<WarmTrainer>,
    pub(super) health: Arc<Health>,
    memory: Memory,
}

/// A claimed job.
pub(super) struct Taken {
    pub(super) claimed: db::queue::Claimed,
    /// The boot time at which the claim was sent.
    pub(super) asked: Duration,
    /// The memory that the job may take.
    pub(super) reserved: Reserved,
}

impl Slot {
    /// The slots of these devices: `--slots` for each. A device that is listed twice has two warm
    /// trainers and healths, but only one memory.
    pub(super) fn of_devices(
        devices: &[String],
        args: &WorkArgs,
        (sandbox, folders): (&Sandbox, &Arc<Folders>),
    ) -> Vec<Self> {
        let mut memories: HashMap<&str, Memory> = HashMap::new();
        let slots = devices.iter().enumerate().flat_map(|(index, device)| {
            let start = args.timing.start;
            let warm_trainer = WarmTrainer::new(sandbox, folders, device, start);
            let slot = Self {
                index,
                device: device.clone(),
                warm_trainer: Arc::new(warm_trainer),
                health: Arc::default(),
                memory: memories.entry(device).or_default().clone(),
            };
            std::iter::repeat_n(slot, args.admission.slots as usize)
        });
        slots.collect()
    }

    /// The label of this device in metrics.
    pub(super) fn label(&self) -> Label {
        Label::bounded(&self.device)
    }

    /// Measures the memory of the device for metrics.
    pub(super) async fn measure(&self, worker: &Worker) {
        let margin_mb = worker.args.admission.memory_margin_mb;
        // A device that does not answer is what the next claim reports.
        if let Ok(room) = self.memory.room(&self.device, margin_mb).await {
            let bytes = |mb: u32| f64::from(mb) * f64::from(1 << 20);
            DEVICE_FREE.set([self.label()], bytes(room.free_mb));
            DEVICE_CAPACITY.set([self.label()], bytes(room.capacity_mb));
        }
    }

    /// Claims the next job for this slot. `None`: there is none that fits, or this device is unfit
    /// or quarantined, or the worker stops.
    pub(super) async fn next(
        &self,
        worker: &Worker,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Taken>> {
        let report = |state, reason| {
            worker
                .status
                .report(&worker.pool, self.index, (state, reason))
        };
        if let Some(reason) = self.health.quarantine() {
            report(State::Quarantined, Some(reason)).await;
            return Ok(None);
        }
        // A device whose trainer does not work claims nothing, or it would fail every job in turn.
        let ready = self.warm_trainer.ready();
        let device = match shutdown.run_until_cancelled(ready).await {
            None => return Ok(None),
            Some(Ok(device)) => device,
            Some(Err(error)) => {
                report(State::Unfit, Some(error.to_string())).await;
                return Ok(None);
            }
        };
        report(State::Active, None).await;
        let _claiming = self.memory.claiming().await;
        if shutdown.is_cancelled() {
            return Ok(None);
        }
        self.claim(worker, &device).await
    }

    async fn claim(&self, worker: &Worker, device: &str) -> anyhow::Result<Option<Taken>> {
        let admission = &worker.args.admission;
        let room = self
            .memory
            .room(device, admission.memory_margin_mb)
            .await
            .with_context(|| format!("cannot measure the free memory of `{device}`"))?;
        let offered = worker
            .status
            .offer(&worker.pool, self.index, (device, room), admission);
        offered.await?;
        let offer = db::queue::Offer {
            worker: worker.id,
            class: db::queue::DEFAULT_CLASS,
            device_mb: room.free_mb,
            capacity_mb: room.capacity_mb,
            reserve: admission.reserve,
            ttl: worker.args.timing.leases.lease,
        };
        let asked = lease::since_boot();
        let claimed = db::queue::claim(&worker.pool, offer).await?;
        Ok(claimed.map(|claimed| Taken {
            reserved: self.memory.reserve(claimed.job, claimed.device_mb),
            claimed,
            asked,
        }))
    }
}
