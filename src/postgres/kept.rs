//! A server that is started again whenever it ends: the service around it lives, and waits for it.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;

use super::{Postgres, StartOptions};

/// Between two looks at whether it runs, and between two tries to start it.
const LOOK: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(2);

/// A `Postgres` with a thread that keeps it running, and stops it when this is dropped.
#[derive(Debug)]
pub struct Kept {
    url: String,
    /// Closed to stop.
    wish: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    /// Starts a server and waits until it answers. Blocks.
    ///
    /// # Errors
    /// As `Postgres::start`; of later starts they are logged, and tried again.
    pub fn start(options: StartOptions) -> anyhow::Result<Self> {
        let (started, starts) = channel();
        let (wish, wishes) = channel();
        let thread = std::thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || match Postgres::start(&options) {
                Ok(postgres) => {
                    let _ = started.send(Ok(postgres.url()));
                    keep(postgres, &options, &wishes);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .context("cannot start a thread")?;
        let url = starts.recv().context("the thread of postgres ended")??;
        Ok(Self {
            url,
            wish: Some(wish),
            thread: Some(thread),
        })
    }

    /// As `Postgres::url`; the same for every server that it starts.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.wish = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(first: Postgres, options: &StartOptions, wishes: &Receiver<()>) {
    let mut running = Some(first);
    let mut pause = LOOK;
    while let Err(RecvTimeoutError::Timeout) = wishes.recv_timeout(pause) {
        pause = LOOK;
        if running.as_mut().is_some_and(Postgres::is_running) {
            continue;
        }
        tracing::warn!("postgres has ended; starting it again");
        // What is left of the old one goes before the new one looks.
        running = None;
        match Postgres::start(options) {
            Ok(postgres) => {
                tracing::info!("postgres is back");
                running = Some(postgres);
            }
            Err(error) => {
                tracing::error!("cannot start postgres again, will try: {error:#}");
                pause = RETRY;
            }
        }
    }
}
