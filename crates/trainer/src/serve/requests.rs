//! The inference process: `Predict` lines in, `Predicted` lines out.
//!
//! Images wait in one queue. A thread that is free takes the next one and others for the same
//! model, as many as run best together: nothing waits for a batch to fill, or for another thread. A
//! request is answered with its last image.

use std::{
    io::{BufRead, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use tch::Device;

use super::{
    bundle::Bundle,
    loaded::Loaded,
    queue::{Image, Queue, Request, hand_out},
};
use crate::{
    domain::work::{ImageOutcome, Predict, Predicted},
    process::{
        error::TrainError,
        json,
        memory::guarded,
        parallel::{Shared, Threads},
    },
};

/// Images that run through a network together on a GPU.
const BATCH: usize = 32;
/// The same on one thread of a CPU, in whose cache their maps stay.
const CPU_BATCH: usize = 4;

/// Answers lines of `input` on `out`, with models on `device`, until `input` ends. Loaded models
/// take about `max_bytes` at most, but for one that is larger.
///
/// # Errors
/// `Io` when an answer cannot be written, `Plan` for a line that is not a `Predict`.
pub fn serve(
    input: impl BufRead + Send + 'static,
    out: impl Write + Send,
    device: Device,
    max_bytes: u64,
) -> Result<(), TrainError> {
    let queue = Arc::new(Queue::default());
    let filled = Arc::clone(&queue);
    // Not waited for where answers cannot be written: it may be in the middle of a line.
    let reader = thread::spawn(move || {
        let read = read_requests(input, &filled);
        filled.close();
        read
    });
    let is_on_cpu = device == Device::Cpu;
    let server = Server {
        queue: &queue,
        device,
        batch: if is_on_cpu { CPU_BATCH } else { BATCH },
        threads: usize::try_from(tch::get_num_threads()).unwrap_or(1),
        loaded: Mutex::new(Loaded::new(max_bytes)),
        out: Mutex::new(out),
    };
    thread::scope(|scope| {
        let workers = if is_on_cpu { server.threads } else { 1 };
        let work = |is_first| {
            server
                .work(is_first)
                .inspect_err(|_| server.queue.abandon())
        };
        let start = |worker| scope.spawn(move || work(worker == 0));
        let workers: Vec<_> = (0..workers).map(start).collect();
        let ended = workers.into_iter().map(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)))
        });
        ended.collect::<Result<Vec<()>, _>>()
    })?;
    reader
        .join()
        .map_err(|payload| TrainError::from_panic(&*payload))?
}

fn read_requests(input: impl BufRead, queue: &Queue) -> Result<(), TrainError> {
    for line in input.lines() {
        let line = line.map_err(TrainError::io("cannot read a request from standard input"))?;
        let request: Predict = serde_json::from_str(&line).map_err(|error| {
            TrainError::Plan(format!("standard input has an invalid prediction request: {error}; give one JSON object a line"))
        })?;
        if request.images.is_empty() {
            let message = "standard input has a prediction request without images; give it some";
            return Err(TrainError::Plan(message.to_owned()));
        }
        if !queue.add(request) {
            break;
        }
    }
    Ok(())
}

/// All that the threads share.
struct Server<'a, W> {
    queue: &'a Queue,
    device: Device,
    /// Images that run together.
    batch: usize,
    /// Threads that torch may use.
    threads: usize,
    loaded: Mutex<Loaded<Arc<Shared<Bundle>>>>,
    out: Mutex<W>,
}

impl<W: Write> Server<'_, W> {
    /// Predicts until the queue is closed and empty.
    fn work(&self, is_first: bool) -> Result<(), TrainError> {
        while let Some(taken) = self.queue.take(self.batch, is_first) {
            // One image alone has all threads for each operation.
            let has_all = taken.is_alone || self.device != Device::Cpu;
            let threads = if has_all { self.threads } else { 1 };
            let threads = Threads::exactly(i32::try_from(threads).unwrap_or(i32::MAX));
            let predicted = guarded(|| self.predict(&taken.images));
            drop(threads);
            self.queue.done(is_first);
            let predicted = predicted.map_err(|error| error.failure());
            for request in hand_out(taken.images, predicted) {
                self.answer(&request)?;
            }
        }
        Ok(())
    }

    /// Labels of the model, and the outcome of each image.
    fn predict(&self, images: &[Image]) -> Result<(Vec<String>, Vec<ImageOutcome>), TrainError> {
        let folder = images[0].bundle();
        let load = || {
            let bundle = Bundle::load(folder, self.device)?;
            // SAFETY: predictions only read, and what is made at the first one lies behind a lock.
            #[expect(unsafe_code, reason = "threads share weights that nothing changes")]
            let shared = unsafe { Shared::new(bundle) };
            Ok(Arc::new(shared))
        };
        let bundle = lock(&self.loaded).bundle(folder, load)?;
        let paths: Vec<&Path> = images.iter().map(Image::path).collect();
        Ok((bundle.labels().to_vec(), bundle.predict(&paths)?))
    }

    fn answer(&self, request: &Request) -> Result<(), TrainError> {
        let answer = Predicted {
            id: request.id,
            outcome: request.outcome(),
        };
        let mut out = lock(&self.out);
        json::write_line(&mut *out, &answer)
            .and_then(|()| out.flush())
            .map_err(TrainError::io("cannot write an answer to standard output"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a model is loaded leaves it out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
