//! Detects stalled trainers: alive, but making no progress. Heartbeats come from the worker, and a
//! stalled trainer may still send messages. Progress is a new step, a larger fraction of a phase,
//! an evaluation, a checkpoint, a new phase, or any other unit of work that the trainer counts. One
//! that computes is not stalled, however slow its machine is (`liveness`).

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Timing,
    domain::{
        job::{Failure, Outcome, Phase},
        progress::Progress,
    },
    liveness::Liveness,
};

/// A step may take this many times the median of the last ones: it may have a larger batch, follow
/// an evaluation, or share its processor for a while.
const STALL_FACTOR: u32 = 20;
/// Number of last steps of which the median is taken.
const STEP_TIMES: usize = 31;

/// Watches one trainer.
#[derive(Debug)]
pub(super) struct Watchdog {
    start: Duration,
    /// The shortest time without progress after which a trainer that was ready counts as stalled.
    floor: Duration,
    pub(super) is_ready: bool,
    liveness: Liveness,
    phase: Option<Phase>,
    /// The highest so far: step, amount done of the phase, evaluated step, saved step.
    furthest: [u64; 4],
    /// Time of the last message about steps, and how long each step took.
    stepped: Instant,
    step_times: VecDeque<Duration>,
}

impl Watchdog {
    /// Watches a trainer that was just given its assignment.
    pub(super) fn new(timing: &Timing, now: Instant) -> Self {
        Self {
            start: timing.start,
            floor: timing.stall,
            is_ready: false,
            liveness: Liveness::new(now),
            phase: None,
            furthest: [0; 4],
            stepped: now,
            step_times: VecDeque::with_capacity(STEP_TIMES),
        }
    }

    /// Takes note of a message.
    pub(super) fn observe(&mut self, message: &Progress, now: Instant) {
        let (kind, value) = match message {
            Progress::Ready { .. } => {
                self.is_ready = true;
                self.liveness.progress(now);
                return;
            }
            Progress::Phase { phase } => {
                if self.phase.replace(*phase) != Some(*phase) {
                    self.furthest[1] = 0;
                    self.liveness.progress(now);
                }
                return;
            }
            Progress::Steps { steps, .. } => {
                let Some(last) = steps.last() else { return };
                if last.step > self.furthest[0] {
                    self.remember((now - self.stepped) / u32::try_from(steps.len()).unwrap_or(1));
                    self.stepped = now;
                }
                (0, last.step)
            }
            Progress::Fraction { done, .. } => (1, *done),
            Progress::Evaluated { metrics, .. } => (2, metrics.step + 1),
            Progress::Saved { step, .. } => (3, step + 1),
            // The same work starts again in less memory.
            Progress::Recomputes | Progress::BatchSizeReduced { .. } => {
                self.liveness.progress(now);
                return;
            }
            Progress::Working(working) => {
                let patience = self.patience();
                self.liveness.observe(*working, patience, now);
                return;
            }
            Progress::FeaturesInFloat32
            | Progress::Used(_)
            | Progress::Interrupted { .. }
            | Progress::Finished { .. }
            | Progress::Failed(_) => return,
        };
        if value > self.furthest[kind] {
            self.furthest[kind] = value;
            self.liveness.progress(now);
        }
    }

    fn remember(&mut self, step_time: Duration) {
        if self.step_times.len() == STEP_TIMES {
            self.step_times.pop_front();
        }
        self.step_times.push_back(step_time);
    }

    /// Leaves out time in which no message was read: the database was unreachable.
    pub(super) fn exclude(&mut self, unread: Duration) {
        self.liveness.exclude(unread);
        self.stepped += unread;
    }

    fn patience(&self) -> Duration {
        if !self.is_ready {
            return self.start;
        }
        let mut times: Vec<Duration> = self.step_times.iter().copied().collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        self.floor.max(median * STALL_FACTOR)
    }

    /// The time at which the trainer counts as stalled, unless it makes progress.
    pub(super) fn deadline(&self) -> Instant {
        self.liveness.deadline(self.patience())
    }

    /// The outcome of an attempt whose deadline has passed.
    pub(super) fn outcome(&self) -> Outcome {
        let seconds = self.patience().as_secs_f64();
        let message = if self.is_ready {
            format!("the trainer made no progress for {seconds:.1} s")
        } else {
            format!("the trainer was not ready within {seconds:.1} s")
        };
        Outcome::Failed(Failure::retryable("stalled", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::progress::{Step, Working};

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog(now: Instant) -> Watchdog {
        Watchdog {
            start: SECOND * 120,
            floor: SECOND * 300,
            is_ready: false,
            liveness: Liveness::new(now),
            phase: None,
            furthest: [0; 4],
            stepped: now,
            step_times: VecDeque::new(),
        }
    }

    fn ready() -> Progress {
        Progress::Ready {
            device: "cpu".to_owned(),
            threads: 1,
            pid: 1,
        }
    }

    fn steps(range: std::ops::RangeInclusive<u64>) -> Progress {
        let step = |step| Step {
            step,
            epoch: 1,
            train_loss: Some(1.0),
            learning_rate: 0.1,
            samples_per_second: 1.0,
        };
        Progress::Steps {
            n_steps: 1_000,
            n_epochs: 1,
            steps: range.map(step).collect(),
        }
    }

    #[test]
    fn deadline_is_the_start_time_then_the_floor() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        assert_eq!(dog.deadline(), start + SECOND * 120);
        dog.observe(&ready(), start + SECOND);
        assert_eq!(dog.deadline(), start + SECOND * 301);
    }

    #[test]
    fn messages_without_progress_do_not_count() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        dog.observe(&ready(), start);
        dog.observe(&steps(1..=10), start + SECOND * 10);
        let deadline = dog.deadline();
        let fraction = |done| Progress::Fraction {
            done,
            total: 9,
            samples_per_second: 1.0,
        };
        dog.observe(&fraction(3), start + SECOND * 11);
        assert_eq!(dog.deadline(), deadline + SECOND);
        for line in [steps(10..=10), steps(4..=9), fraction(3), fraction(2)] {
            dog.observe(&line, start + SECOND * 100);
        }
        assert_eq!(dog.deadline(), deadline + SECOND);
        dog.exclude(SECOND * 5);
        assert_eq!(dog.deadline(), deadline + SECOND * 6);
        // A new phase starts its fraction at 0.
        let phase = Progress::Phase {
            phase: Phase::Training,
        };
        dog.observe(&phase, start + SECOND * 200);
        dog.observe(&phase, start + SECOND * 210);
        assert_eq!(dog.deadline(), start + SECOND * 500);
        dog.observe(&fraction(1), start + SECOND * 220);
        assert_eq!(dog.deadline(), start + SECOND * 520);
    }

    #[test]
    fn work_between_messages_counts() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        dog.observe(&ready(), start);
        let working = |units| Progress::Working(Working { units, cpu_ms: 0 });
        dog.observe(&working(1), start + SECOND * 200);
        assert_eq!(dog.deadline(), start + SECOND * 500);
        dog.observe(&working(1), start + SECOND * 400);
        assert_eq!(dog.deadline(), start + SECOND * 500);
    }

    #[test]
    fn slow_steps_get_twenty_times_their_median() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        dog.observe(&ready(), start);
        // 40 s each, once 1 s: the patience is 800 s.
        let mut now = start;
        for (index, seconds) in [40, 1, 40, 40].into_iter().enumerate() {
            now += SECOND * seconds;
            let step = index as u64 + 1;
            dog.observe(&steps(step..=step), now);
        }
        assert_eq!(dog.deadline(), now + SECOND * 800);
        assert!(matches!(dog.outcome(), Outcome::Failed(failure) if failure.code == "stalled"));
    }
}
