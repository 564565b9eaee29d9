//! Tells a trainer that works from one that only lives: heartbeats come from the worker, and a stuck trainer may still
//! talk. What counts is getting further: a new step, a larger share of a phase, a new phase.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Timing,
    domain::{
        job::{Outcome, Phase},
        progress::Progress,
    },
};

/// A step may take this many times the median of the last ones: the next may be the first of a longer batch, or follow an
/// evaluation, or share its processor for a while.
const STEPS: u32 = 20;
/// Steps whose median is taken.
const REMEMBERED: usize = 31;

/// Watches one trainer.
#[derive(Debug)]
pub(super) struct Watchdog {
    start: Duration,
    /// The least patience with a trainer that was ready.
    floor: Duration,
    pub(super) is_ready: bool,
    /// When it last got further.
    further: Instant,
    phase: Option<Phase>,
    /// The furthest said so far, of: steps, share of the phase, evaluations, checkpoints.
    furthest: [u64; 4],
    /// When steps were last said, and how long each took.
    stepped: Instant,
    step_times: VecDeque<Duration>,
}

impl Watchdog {
    /// For a trainer that was just told what to do.
    pub(super) fn new(timing: &Timing, now: Instant) -> Self {
        Self {
            start: timing.start(),
            floor: timing.stall(),
            is_ready: false,
            further: now,
            phase: None,
            furthest: [0; 4],
            stepped: now,
            step_times: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Takes note of a line.
    pub(super) fn hear(&mut self, line: &Progress, now: Instant) {
        let (kind, place) = match line {
            Progress::Ready { .. } => {
                self.is_ready = true;
                self.further = now;
                return;
            }
            Progress::Phase { phase } => {
                if self.phase.replace(*phase) != Some(*phase) {
                    self.furthest[1] = 0;
                    self.further = now;
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
            // The same work begins again in smaller batches.
            Progress::BatchSizeReduced { .. } => {
                self.further = now;
                return;
            }
            Progress::Used(_)
            | Progress::Stopped { .. }
            | Progress::Finished { .. }
            | Progress::Failed(_) => return,
        };
        if place > self.furthest[kind] {
            self.furthest[kind] = place;
            self.further = now;
        }
    }

    fn remember(&mut self, step_time: Duration) {
        if self.step_times.len() == REMEMBERED {
            self.step_times.pop_front();
        }
        self.step_times.push_back(step_time);
    }

    /// Leaves out of account the time in which nobody listened: the database was away.
    pub(super) fn forgive(&mut self, unheard: Duration) {
        self.further += unheard;
        self.stepped += unheard;
    }

    fn patience(&self) -> Duration {
        if !self.is_ready {
            return self.start;
        }
        let mut times: Vec<Duration> = self.step_times.iter().copied().collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        self.floor.max(median * STEPS)
    }

    /// When the trainer is to be taken for stuck, unless it gets further.
    pub(super) fn deadline(&self) -> Instant {
        self.further + self.patience()
    }

    /// The outcome of an attempt whose deadline has passed.
    pub(super) fn verdict(&self) -> Outcome {
        let seconds = self.patience().as_secs_f64();
        let message = if self.is_ready {
            format!("the trainer got no further for {seconds:.1} seconds")
        } else {
            format!("the trainer was not ready within {seconds:.1} seconds")
        };
        Outcome::Failed {
            code: "stalled".to_owned(),
            message,
            retryable: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::progress::Step;

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog(now: Instant) -> Watchdog {
        Watchdog {
            start: SECOND * 120,
            floor: SECOND * 300,
            is_ready: false,
            further: now,
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
    fn a_trainer_has_its_start_time_and_then_the_floor() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        assert_eq!(dog.deadline(), start + SECOND * 120);
        dog.hear(&ready(), start + SECOND);
        assert_eq!(dog.deadline(), start + SECOND * 301);
    }

    #[test]
    fn talk_without_progress_does_not_count() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        dog.hear(&ready(), start);
        dog.hear(&steps(1..=10), start + SECOND * 10);
        let deadline = dog.deadline();
        let fraction = |done| Progress::Fraction {
            done,
            total: 9,
            samples_per_second: 1.0,
        };
        dog.hear(&fraction(3), start + SECOND * 11);
        assert_eq!(dog.deadline(), deadline + SECOND);
        for line in [steps(10..=10), steps(4..=9), fraction(3), fraction(2)] {
            dog.hear(&line, start + SECOND * 100);
        }
        assert_eq!(dog.deadline(), deadline + SECOND);
        dog.forgive(SECOND * 5);
        assert_eq!(dog.deadline(), deadline + SECOND * 6);
        // A new phase counts its shares anew.
        let phase = Progress::Phase {
            phase: Phase::Training,
        };
        dog.hear(&phase, start + SECOND * 200);
        dog.hear(&phase, start + SECOND * 210);
        assert_eq!(dog.deadline(), start + SECOND * 500);
        dog.hear(&fraction(1), start + SECOND * 220);
        assert_eq!(dog.deadline(), start + SECOND * 520);
    }

    #[test]
    fn slow_steps_have_twenty_times_their_median() {
        let start = Instant::now();
        let mut dog = watchdog(start);
        dog.hear(&ready(), start);
        // 40 s each, once 1 s: the patience is 800 s.
        let mut now = start;
        for (index, seconds) in [40, 1, 40, 40].into_iter().enumerate() {
            now += SECOND * seconds;
            let step = index as u64 + 1;
            dog.hear(&steps(step..=step), now);
        }
        assert_eq!(dog.deadline(), now + SECOND * 800);
        assert!(matches!(dog.verdict(), Outcome::Failed { code, .. } if code == "stalled"));
    }
}
