//! Speed of decoding and resizing, in images per second: every file of a folder in turn, to the
//! square of a network's input. bench/decode.sh runs it beside others.
//! Usage: decode FOLDER THREADS SECONDS

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement; its result is what it prints"
)]

use std::{
    env, fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rehead_trainer::{
    data::source::BatchSource,
    models::registry,
    process::{memory, parallel},
};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let threads: usize = arguments[1].parse().unwrap();
    let seconds = Duration::from_secs(arguments[2].parse().unwrap());
    memory::keep_freed();
    let input = &registry::find("resnet50").unwrap().input;
    let source = BatchSource::new(input).unwrap();
    let files = fs::read_dir(&arguments[0]).unwrap();
    let files = files.map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    let next = AtomicUsize::new(0);
    let run = |length: Duration| {
        let start = Instant::now();
        let begun = next.load(Ordering::Relaxed);
        let threads: Vec<usize> = (0..threads).collect();
        let work = |_: &usize| {
            while start.elapsed() < length {
                let file = next.fetch_add(1, Ordering::Relaxed);
                let decoded = source.decode(&files[file % files.len()], u64::MAX);
                assert!(decoded.is_ok());
            }
            Ok(())
        };
        parallel::map(&threads, threads.len(), work).unwrap();
        let done = next.load(Ordering::Relaxed) - begun;
        done as f64 / start.elapsed().as_secs_f64()
    };
    run(seconds / 5);
    println!("{:.2}", run(seconds));
}
