//! Reports the state of this worker's devices as one row of `workers`.

use std::sync::{Mutex, PoisonError};

use sqlx::PgPool;

use super::memory::Room;
use crate::{
    config::AdmissionArgs,
    db::{self, workers::State},
    domain::id::WorkerId,
};

/// The state of every device, and what the row was last set to.
#[derive(Debug)]
pub(super) struct Status {
    worker: WorkerId,
    record: Mutex<Record>,
}

/// State, number of slots that work, and why the others do not.
type Summary = (State, u32, Option<String>);

#[derive(Debug)]
struct Record {
    devices: Vec<Device>,
    /// The slots of one device.
    slots: u32,
    reported: Option<Summary>,
}

#[derive(Debug)]
struct Device {
    name: String,
    state: State,
    reason: Option<String>,
    room: Option<Room>,
}

impl Status {
    /// Every device counts as active until its first self-test.
    pub(super) fn new(worker: WorkerId, devices: &[String], slots: u32) -> Self {
        let active = |name: &String| Device {
            name: name.clone(),
            state: State::Active,
            reason: None,
            room: None,
        };
        let record = Record {
            devices: devices.iter().map(active).collect(),
            slots,
            reported: None,
        };
        Self {
            worker,
            record: Mutex::new(record),
        }
    }

    /// Sets the state of the device at `index`, and writes the worker's state if it changed.
    pub(super) async fn report(
        &self,
        pool: &PgPool,
        index: usize,
        (state, reason): (State, Option<String>),
    ) {
        let changed = self.with(|record| {
            let device = &mut record.devices[index];
            (device.state, device.reason) = (state, reason);
            let now = summary(&record.devices, record.slots);
            (record.reported.replace(now.clone()).as_ref() != Some(&now)).then_some(now)
        });
        let Some((state, slots, reason)) = changed else {
            return;
        };
        match &reason {
            Some(reason) => tracing::warn!("this worker is {}: {reason}", state.as_str()),
            None => tracing::info!("this worker is {}", state.as_str()),
        }
        let written = db::workers::tell(pool, self.worker, (state, slots), reason.as_deref()).await;
        if let Err(error) = written {
            tracing::warn!("cannot write the state of this worker: {error}");
            self.with(|record| record.reported = None);
        }
    }

    /// Writes what the device at `index`, now known by `name`, has to offer: of several devices,
    /// the row has the most that one of them has.
    pub(super) async fn offer(
        &self,
        pool: &PgPool,
        index: usize,
        (name, room): (&str, Room),
        admission: &AdmissionArgs,
    ) -> sqlx::Result<()> {
        let (names, most) = self.with(|Record { devices, .. }| {
            name.clone_into(&mut devices[index].name);
            devices[index].room = Some(room);
            let rooms = || devices.iter().filter_map(|device| device.room);
            let free_mb = rooms().map(|room| room.free_mb).max();
            let capacity_mb = rooms().map(|room| room.capacity_mb).max();
            let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            let most = (free_mb.unwrap_or(0), capacity_mb.unwrap_or(0));
            (names.join(","), most)
        });
        db::workers::offer(pool, self.worker, &names, most, admission.reserve).await
    }

    fn with<T>(&self, act: impl FnOnce(&mut Record) -> T) -> T {
        act(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The worker's state: active while one device is. Slots are those of the devices in that state.
/// The reason names the devices that are not active.
fn summary(devices: &[Device], slots: u32) -> Summary {
    let reasons: Vec<String> = devices
        .iter()
        .filter_map(|device| {
            let reason = device.reason.as_ref()?;
            Some(match devices.len() {
                1 => reason.clone(),
                _ => format!("{} is {}: {reason}", device.name, device.state.as_str()),
            })
        })
        .collect();
    let any = |state| devices.iter().any(|device| device.state == state);
    let state = [State::Active, State::Quarantined, State::Unfit]
        .into_iter()
        .find(|state| any(*state))
        .unwrap_or(State::Active);
    let in_state = devices.iter().filter(|device| device.state == state);
    let slots = u32::try_from(in_state.count()).unwrap_or(u32::MAX) * slots;
    let reason = Some(reasons.join("; ")).filter(|all| !all.is_empty());
    (state, slots, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, state: State, reason: Option<&str>) -> Device {
        Device {
            name: name.to_owned(),
            state,
            reason: reason.map(str::to_owned),
            room: None,
        }
    }

    #[test]
    fn worker_is_active_while_one_device_is_and_names_the_others() {
        let fit = || device("cuda:0", State::Active, None);
        let unfit = || device("cuda:1", State::Unfit, Some("failed its self-test"));
        let quarantined = || device("cuda:2", State::Quarantined, Some("4 jobs failed"));
        assert_eq!(summary(&[fit(), fit()], 2), (State::Active, 4, None));
        let reason = "cuda:1 is unfit: failed its self-test";
        assert_eq!(
            summary(&[fit(), unfit()], 2),
            (State::Active, 2, Some(reason.to_owned()))
        );
        let both = format!("{reason}; cuda:2 is quarantined: 4 jobs failed");
        assert_eq!(
            summary(&[unfit(), quarantined()], 1),
            (State::Quarantined, 1, Some(both))
        );
        assert_eq!(
            summary(&[unfit()], 1),
            (State::Unfit, 1, Some("failed its self-test".to_owned()))
        );
    }
}
