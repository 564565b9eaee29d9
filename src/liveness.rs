//! Tells a child that computes from one that hangs. Children report units of finished work and the
//! CPU time that they used (`Working`). A child hangs when for its patience it neither finishes
//! anything nor computes; or when a single unit takes more CPU time than its patience, as in an
//! endless loop. The machine may be slow, or busy with other processes: what counts is the child's
//! own time.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::progress::Working;

/// A child computes while it uses at least this share of one core.
const COMPUTING: u32 = 100;

/// Watches one child.
#[derive(Debug)]
pub struct Liveness {
    /// When it last finished something.
    pub progressed: Instant,
    /// When it was last seen to compute on the unit under way.
    computed: Instant,
    /// The last report, when it came, and the CPU time when something was last finished.
    last: Working,
    heard: Instant,
    cpu_at_progress: Duration,
}

impl Liveness {
    /// Watches a child that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            progressed: now,
            computed: now,
            last: Working::default(),
            heard: now,
            cpu_at_progress: Duration::ZERO,
        }
    }

    /// Something was finished.
    pub fn progress(&mut self, now: Instant) {
        self.progressed = now;
        self.cpu_at_progress = cpu(self.last);
    }

    /// Takes note of a report, under `patience` with a unit of work.
    pub fn observe(&mut self, working: Working, patience: Duration, now: Instant) {
        let (used, since) = (
            cpu(working).saturating_sub(cpu(self.last)),
            now - self.heard,
        );
        let finished = working.units != self.last.units;
        self.last = working;
        self.heard = now;
        if finished {
            self.progress(now);
        } else if used * COMPUTING >= since && cpu(working) - self.cpu_at_progress < patience {
            self.computed = now;
        }
    }

    /// Leaves out time in which nothing was heard because nobody listened.
    pub fn exclude(&mut self, unheard: Duration) {
        self.progressed += unheard;
        self.computed += unheard;
        self.heard += unheard;
    }

    /// When it counts as hanging, unless it is heard of before.
    pub fn deadline(&self, patience: Duration) -> Instant {
        self.progressed.max(self.computed) + patience
    }
}

fn cpu(working: Working) -> Duration {
    Duration::from_millis(working.cpu_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(300);

    fn working(units: u64, cpu: Duration) -> Working {
        Working {
            units,
            cpu_ms: cpu.as_millis() as u64,
        }
    }

    #[test]
    fn a_child_on_a_busy_machine_computes() {
        let start = Instant::now();
        let mut child = Liveness::new(start);
        // A hundredth of a core, for hours.
        for second in (10..20_000).step_by(10) {
            let used = SECOND * second / 100;
            child.observe(working(1, used), PATIENCE, start + SECOND * second);
        }
        let last = start + SECOND * 19_990;
        assert_eq!(child.deadline(PATIENCE), last + PATIENCE);
    }

    #[test]
    fn a_child_that_waits_hangs() {
        let start = Instant::now();
        let mut child = Liveness::new(start);
        child.observe(working(1, SECOND), PATIENCE, start + SECOND);
        for second in 2..200 {
            let used = SECOND + Duration::from_millis(second.into());
            child.observe(working(1, used), PATIENCE, start + SECOND * second);
        }
        assert_eq!(child.deadline(PATIENCE), start + SECOND + PATIENCE);
    }

    #[test]
    fn an_endless_loop_hangs_and_short_units_do_not() {
        let start = Instant::now();
        let (mut endless, mut busy) = (Liveness::new(start), Liveness::new(start));
        for second in 1..1_000 {
            let (now, used) = (start + SECOND * second, SECOND * second);
            endless.observe(working(0, used), PATIENCE, now);
            busy.observe(working(u64::from(second / 200), used), PATIENCE, now);
        }
        assert_eq!(endless.deadline(PATIENCE), start + SECOND * 299 + PATIENCE);
        assert_eq!(busy.deadline(PATIENCE), start + SECOND * 999 + PATIENCE);
    }
}
