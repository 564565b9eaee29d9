//! Progress of a long preparation.

use std::time::{Duration, Instant};

use crate::{domain::progress::Progress, process::protocol::Reporter};

/// Time between two reports.
const EVERY: Duration = Duration::from_millis(250);

/// Reports the progress of a long preparation, a few times a second.
pub struct Meter<'a> {
    reporter: &'a mut Reporter,
    total: u64,
    done: u64,
    /// Samples that were computed rather than found; the speed counts only these.
    computed: u64,
    started: Instant,
    reported: Instant,
}

impl<'a> Meter<'a> {
    pub fn new(reporter: &'a mut Reporter, total: usize) -> Self {
        let now = Instant::now();
        Self {
            reporter,
            total: total as u64,
            done: 0,
            computed: 0,
            started: now,
            reported: now,
        }
    }

    /// Resets the counts, for a preparation that begins again.
    pub fn begin_again(&mut self, progress: &Progress) {
        self.reporter.send(progress);
        self.restart();
    }

    /// Resets the counts.
    pub fn restart(&mut self) {
        (self.done, self.computed) = (0, 0);
    }

    /// Reports what is done of `total`, where the work is not on samples.
    pub fn share(&mut self, done: u64, total: u64) {
        if self.reported.elapsed() >= EVERY || done == total {
            self.reporter.send(&Progress::Fraction {
                done,
                total,
                samples_per_second: 0.0,
            });
            self.reported = Instant::now();
        }
    }

    pub fn found(&mut self, samples: usize) {
        self.done += samples as u64;
    }

    pub fn computed(&mut self, samples: usize) {
        self.done += samples as u64;
        self.computed += samples as u64;
        self.reporter.usage.prepared_samples += samples as u64;
        if self.reported.elapsed() >= EVERY || self.done == self.total {
            let samples_per_second =
                self.computed as f64 / self.started.elapsed().as_secs_f64().max(1e-6);
            self.reporter.send(&Progress::Fraction {
                done: self.done,
                total: self.total,
                samples_per_second,
            });
            self.reported = Instant::now();
        }
    }
}
