//! The trainer's end of its conversation with its parent: JSON lines out, and a closed standard input that means
//! "save and stop".

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::domain::progress::{Progress, Step};

/// How a run that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `bundle/` and `report.json` are complete.
    Finished,
    /// Asked to stop; the state is saved.
    Stopped,
}

/// Whether the parent asked for a stop. Cheap to ask after every step.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Requests a stop when `input` ends. What arrives before that is ignored.
    pub fn when_closed(&self, mut input: impl Read + Send + 'static) {
        let stop = self.clone();
        std::thread::spawn(move || {
            let mut ignored = [0; 4096];
            loop {
                match input.read(&mut ignored) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            stop.request();
        });
    }
}

/// Says what happens, one JSON object a line.
///
/// A line that cannot be written asks for a stop: without a reader nobody would take over the result.
pub struct Reporter {
    out: Box<dyn Write + Send>,
    stop: Stop,
    steps: Vec<Step>,
    said_steps: Instant,
}

/// The least time between two lines of steps.
const STEPS_EVERY: Duration = Duration::from_millis(250);

impl Reporter {
    pub fn new(out: impl Write + Send + 'static, stop: Stop) -> Self {
        Self {
            out: Box::new(out),
            stop,
            steps: Vec::new(),
            said_steps: Instant::now(),
        }
    }

    pub fn say(&mut self, progress: &Progress) {
        let written = serde_json::to_writer(&mut self.out, progress)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .and_then(|()| self.out.flush());
        if written.is_err() {
            self.stop.request();
        }
    }

    /// Keeps steps for the next line of them, and says it when `now` or when it is due.
    pub fn steps(&mut self, steps: Vec<Step>, n_steps: u64, n_epochs: u32, now: bool) {
        self.steps.extend(steps);
        if !self.steps.is_empty() && (now || self.said_steps.elapsed() >= STEPS_EVERY) {
            let steps = std::mem::take(&mut self.steps);
            self.say(&Progress::Steps {
                n_steps,
                n_epochs,
                steps,
            });
            self.said_steps = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_input_asks_for_a_stop_and_an_open_one_does_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = Stop::default();
        stop.when_closed(reader);
        writer.write_all(b"ignored\n").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!stop.requested());
        drop(writer);
        let since = Instant::now();
        while !stop.requested() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(stop.requested());
    }

    #[test]
    fn a_lost_reader_asks_for_a_stop() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let stop = Stop::default();
        Reporter::new(writer, stop.clone()).say(&Progress::Stopped { step: 1 });
        assert!(stop.requested());
    }
}
