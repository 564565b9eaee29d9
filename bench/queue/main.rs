//! The queue's figures, on a durable Postgres of its own (fsync on) and real processes: lifecycles
//! per second, and how long a user waits. `bench/queue.sh` runs it and sets another queue beside it
//! on the same server.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints its figures, and ends by panicking where it cannot measure"
)]

mod latency;
mod lifecycles;
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../../tests/it/support/process.rs"]
mod process;
mod reads;
mod stack;

use stack::Stack;

#[tokio::main]
async fn main() {
    // What cargo adds (`--bench`) is not for us.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = |part: &str| {
        let named: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
        named.is_empty() || named.iter().any(|word| *word == part)
    };
    let mut stack = Stack::start().await;
    println!("postgres={}", stack.database_url);
    stack.print_settings().await;
    if asked("latency") {
        latency::measure(&mut stack).await;
    }
    if asked("lifecycles") {
        lifecycles::measure(&stack).await;
    }
    if asked("reads") {
        reads::measure(&mut stack).await;
    }
    if asked("hold") {
        // For another program to measure on the same server: until standard input closes.
        println!("holding");
        let _ = std::io::read_to_string(std::io::stdin());
    }
}
