//! The trainer's end of its conversation with its parent: JSON lines out; in, `domain::work::Order`s, and a closed
//! standard input that means "save and stop".

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::domain::{
    progress::{Progress, Step, Usage},
    work::Order,
};

/// How a run that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `bundle/` and `report.json` are complete.
    Finished,
    /// Asked to stop; the state is saved.
    Stopped,
}

/// What the parent asked for. Cheap to ask after every step.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    stop: AtomicBool,
    finish: AtomicBool,
}

impl Stop {
    /// Whether to save the state and stop.
    pub fn requested(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    pub fn request(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to train no further, and finish with the best so far.
    pub fn finish_requested(&self) -> bool {
        self.0.finish.load(Ordering::Relaxed)
    }

    /// Takes the orders in `input`, and its end as the request to stop. A line that is no order is ignored.
    pub fn listen(&self, input: impl Read + Send + 'static) {
        let stop = self.clone();
        std::thread::spawn(move || {
            let mut input = BufReader::new(input);
            let mut line = Vec::new();
            loop {
                line.clear();
                match input.read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                    _ => {}
                }
                if let Ok(Order::Finish) = serde_json::from_slice(&line) {
                    stop.0.finish.store(true, Ordering::Relaxed);
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
    /// What the run has cost so far.
    pub usage: Usage,
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
            usage: Usage::default(),
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

    fn eventually(condition: impl Fn() -> bool) -> bool {
        let since = Instant::now();
        while !condition() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        condition()
    }

    #[test]
    fn a_closed_input_asks_for_a_stop_and_an_open_one_does_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = Stop::default();
        stop.listen(reader);
        writer.write_all(b"ignored\n").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!stop.requested() && !stop.finish_requested());
        drop(writer);
        assert!(eventually(|| stop.requested()));
        assert!(!stop.finish_requested());
    }

    #[test]
    fn a_word_asks_to_finish() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = Stop::default();
        stop.listen(reader);
        writer.write_all(b"{\"stop\":\"finish\"}\n").unwrap();
        assert!(eventually(|| stop.finish_requested()));
        assert!(!stop.requested());
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
