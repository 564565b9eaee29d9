//! Metrics and log of a process. `metrics` declares each metric once, `recorder` renders them,
//! `listener` serves them to Prometheus, `process` measures the process and its disks.
//!
//! Counters and histograms change where the thing happens. Gauges that must be measured are
//! refreshed at intervals, not by a scrape, so that whoever reads metrics cannot load the database.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

pub mod listener;
pub mod log;
pub mod metrics;
pub mod process;
pub mod recorder;
pub mod traces;

/// Interval between two measurements of gauges.
const REFRESH: Duration = Duration::from_secs(5);

/// The times at which gauges are refreshed: now, and at intervals.
#[derive(Debug)]
pub struct Refresh(Interval);

impl Refresh {
    #[expect(clippy::new_without_default, reason = "its intervals begin now")]
    pub fn new() -> Self {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }

    /// Returns when gauges are to be refreshed.
    pub async fn due(&mut self) {
        self.0.tick().await;
        recorder::compact();
    }
}
