//! Supervises a private server: starts it again whenever it ends, while the service waits for it.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;

use super::server::{Postgres, StartOptions};

/// Interval between two checks that it runs, and between two tries to start it.
const CHECK: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(2);

/// A `Postgres` with a thread that keeps it running, and stops it when this is dropped.
#[derive(Debug)]
pub struct Supervised {
    url: String,
    /// Dropped to stop.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Starts a server and waits until it answers. Blocks.
    ///
    /// # Errors
    /// As `Postgres::start`. Errors of later starts are logged, and the start is tried again.
    pub fn start(options: StartOptions) -> anyhow::Result<Self> {
        let (started, starts) = channel();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || match Postgres::start(&options) {
                Ok(postgres) => {
                    let _ = started.send(Ok(postgres.url()));
                    supervise(postgres, &options, &stopped);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .context("cannot start a thread for postgres")?;
        let url = starts
            .recv()
            .context("the thread that supervises postgres ended")??;
        Ok(Self {
            url,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// As `Postgres::url`; the same for every server that it starts.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn supervise(first: Postgres, options: &StartOptions, stopped: &Receiver<()>) {
    let mut running = Some(first);
    let mut pause = CHECK;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
        pause = CHECK;
        if running.as_mut().is_some_and(Postgres::is_running) {
            continue;
        }
        tracing::warn!("postgres exited; starting it again");
        // The old one's files are cleaned up before the new one checks for them.
        running = None;
        match Postgres::start(options) {
            Ok(postgres) => {
                tracing::info!("postgres runs again");
                running = Some(postgres);
            }
            Err(error) => {
                tracing::error!(
                    "cannot start postgres, trying again in {} s: {error:#}",
                    RETRY.as_secs()
                );
                pause = RETRY;
            }
        }
    }
}
