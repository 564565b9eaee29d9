//! The trainer's end of its conversation with its parent: JSON lines out; in, lines of
//! `domain::work::TrainerControl`, and a closed standard input, which means "save and exit".

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{error::TrainError, json};
use crate::{
    domain::{
        progress::{Progress, Step, Usage, WorkReport, Working},
        work::TrainerControl,
    },
    ticks,
};

/// Requests of the parent. Cheap to read after every step.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    interrupt: Arc<AtomicBool>,
    stop_early: Arc<AtomicBool>,
}

impl Interrupt {
    /// True when the run is to save its state and exit.
    pub fn requested(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// Ends the work under way where the run is to save its state and exit.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn check(&self) -> Result<(), TrainError> {
        if self.requested() {
            return Err(TrainError::Interrupted);
        }
        Ok(())
    }

    pub fn request(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }

    /// True when the run is to stop training early and finish with the best checkpoint.
    pub fn stops_early(&self) -> bool {
        self.stop_early.load(Ordering::Relaxed)
    }

    /// Reads control lines from `input`, and takes its end as an interrupt. Other lines are
    /// ignored.
    pub fn listen(&self, input: impl Read + Send + 'static) {
        let requests = self.clone();
        std::thread::spawn(move || {
            let lines = BufReader::new(input).split(b'\n');
            for line in lines.map_while(Result::ok) {
                if let Ok(TrainerControl::StopEarly) = serde_json::from_slice(&line) {
                    requests.stop_early.store(true, Ordering::Relaxed);
                }
            }
            requests.request();
        });
    }
}

/// Reports progress, one JSON object a line.
///
/// A line that cannot be written interrupts the run: without a reader nobody would take over the
/// result.
pub struct Reporter {
    out: Box<dyn Write + Send>,
    interrupt: Interrupt,
    steps: Vec<Step>,
    reported: Instant,
    /// Time and memory so far.
    pub usage: Usage,
}

/// Time between two reports of work.
const WORK_EVERY: Duration = Duration::from_secs(1);

/// Reports on standard output what this process has computed, for as long as there is something new
/// and somebody reads. Runs on a thread of its own: no other line can come in between, as each is
/// written at once.
pub fn report_work() {
    std::thread::spawn(|| {
        let mut last = Working::default();
        loop {
            std::thread::sleep(WORK_EVERY);
            let working = Working {
                units: ticks::count(),
                cpu_ms: cpu_ms(),
            };
            if working != last {
                let report = WorkReport::Working(working);
                if json::write_line(&mut io::stdout(), &report).is_err() {
                    return;
                }
                last = working;
            }
        }
    });
}

/// CPU time of this process, of all threads, in milliseconds; 0 where the system does not say.
fn cpu_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(unsafe_code, reason = "a system call; std has no such clock")]
    // SAFETY: `time` is valid for writes for the whole call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if failed != 0 {
        return 0;
    }
    time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

/// The least time between two lines of steps.
const STEPS_EVERY: Duration = Duration::from_millis(250);

impl Reporter {
    pub fn new(out: impl Write + Send + 'static, interrupt: Interrupt) -> Self {
        Self {
            out: Box::new(out),
            interrupt,
            steps: Vec::new(),
            reported: Instant::now(),
            usage: Usage::default(),
        }
    }

    pub fn send(&mut self, progress: &Progress) {
        let written = json::write_line(&mut self.out, progress).and_then(|()| self.out.flush());
        if written.is_err() {
            self.interrupt.request();
        }
    }

    /// Adds steps to the next line of them, and writes it when it is due, or `now`.
    pub fn steps(&mut self, steps: Vec<Step>, n_steps: u64, n_epochs: u32, now: bool) {
        self.steps.extend(steps);
        if !self.steps.is_empty() && (now || self.reported.elapsed() >= STEPS_EVERY) {
            let steps = std::mem::take(&mut self.steps);
            self.send(&Progress::Steps {
                n_steps,
                n_epochs,
                steps,
            });
            self.reported = Instant::now();
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
    fn a_closed_input_interrupts_and_an_open_one_does_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        let interrupt = Interrupt::default();
        interrupt.listen(reader);
        writer.write_all(b"ignored\n").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!interrupt.requested() && !interrupt.stops_early());
        drop(writer);
        assert!(eventually(|| interrupt.requested()));
        assert!(!interrupt.stops_early());
    }

    #[test]
    fn a_control_line_stops_training_early() {
        let (reader, mut writer) = io::pipe().unwrap();
        let interrupt = Interrupt::default();
        interrupt.listen(reader);
        writer.write_all(b"{\"control\":\"stop_early\"}\n").unwrap();
        assert!(eventually(|| interrupt.stops_early()));
        assert!(!interrupt.requested());
    }

    #[test]
    fn a_lost_reader_interrupts() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let interrupt = Interrupt::default();
        Reporter::new(writer, interrupt.clone()).send(&Progress::Interrupted { step: 1 });
        assert!(interrupt.requested());
    }
}
