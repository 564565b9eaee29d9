//! The inference process: started at the first prediction, shared by all requests, started again
//! after it ended. Torch and the users' images meet only there, so the worst that an image can do
//! is end that process.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::{Instant as Deadline, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    child::{Child, LineError, Output},
    domain::{
        progress::Failure,
        work::{Predict, Predicted, Predictions},
    },
    sandbox::{Grants, Home, Sandbox},
};

pub(super) type Answer = Result<Predictions, Failure>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

pub(super) struct InferenceProcess {
    sandbox: Sandbox,
    home: Home,
    device: String,
    memory_bytes: u64,
    running: AsyncMutex<Option<Running>>,
    next_id: AtomicU64,
}

/// The process, from its start to its end.
#[derive(Clone)]
struct Running {
    requests: mpsc::Sender<Predict>,
    pending: Pending,
    last_answer: Arc<Mutex<Instant>>,
    /// Cancelled when the process has ended, or to end it.
    ended: CancellationToken,
}

/// Why a request got no answer.
pub(super) enum NoAnswer {
    /// The process ended first.
    Ended,
    TimedOut,
}

impl InferenceProcess {
    /// Bundles and images have to be in `home`.
    pub(super) fn new(sandbox: Sandbox, home: Home, device: &str, memory_bytes: u64) -> Self {
        Self {
            sandbox,
            home,
            device: device.to_owned(),
            memory_bytes,
            running: AsyncMutex::new(None),
            next_id: AtomicU64::new(1),
        }
    }

    /// Asks for predictions of these images by the model in the folder `bundle`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(super) async fn ask(
        &self,
        bundle: &Path,
        images: &[PathBuf],
        deadline: Deadline,
    ) -> anyhow::Result<Result<Answer, NoAnswer>> {
        let process = self.running().await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        lock(&process.pending).insert(id, reply);
        let asked = Instant::now();
        let request = Predict {
            id,
            bundle: self.home.seen(bundle),
            images: images.iter().map(|image| self.home.seen(image)).collect(),
        };
        let asking = async {
            // A closed channel shows as a dropped reply.
            if process.requests.send(request).await.is_err() {
                lock(&process.pending).remove(&id);
            }
            tokio::select! {
                answer = answer => answer.map_err(|_| NoAnswer::Ended),
                () = process.ended.cancelled() => Err(NoAnswer::Ended),
            }
        };
        let answered = timeout_at(deadline, asking)
            .await
            .unwrap_or(Err(NoAnswer::TimedOut));
        lock(&process.pending).remove(&id);
        if matches!(answered, Err(NoAnswer::TimedOut)) && *lock(&process.last_answer) < asked {
            // It answered no request in all that time: stuck, not busy.
            tracing::warn!("the inference process is stuck and is replaced");
            process.ended.cancel();
        }
        Ok(answered)
    }

    async fn running(&self) -> anyhow::Result<Running> {
        let mut running = self.running.lock().await;
        if let Some(process) = running
            .as_ref()
            .filter(|process| !process.ended.is_cancelled())
        {
            return Ok(process.clone());
        }
        let memory = self.memory_bytes.to_string();
        let arguments = ["serve", "--device", &self.device, "--memory-bytes", &memory];
        let arguments = arguments.map(OsStr::new);
        let grants = Grants::READ.on(&self.device);
        let launch = self.sandbox.launch(&self.home, grants)?;
        let (child, output) = Child::spawn(launch, &arguments)
            .await
            .context("cannot start the inference process")?;
        let (requests, queue) = mpsc::channel(1);
        let process = Running {
            requests,
            pending: Pending::default(),
            last_answer: Arc::new(Mutex::new(Instant::now())),
            ended: CancellationToken::new(),
        };
        tokio::spawn(write(child, queue, process.ended.clone()));
        tokio::spawn(read(output, process.clone()));
        *running = Some(process.clone());
        Ok(process)
    }

    /// Ends the process.
    pub(super) async fn stop(&self) {
        if let Some(process) = self.running.lock().await.take() {
            process.ended.cancel();
        }
    }
}

/// Owns the process: passes requests to it until it or the service ends.
async fn write(mut child: Child, mut queue: mpsc::Receiver<Predict>, ended: CancellationToken) {
    let pass_on = async {
        while let Some(request) = queue.recv().await {
            if let Err(error) = child.send(&request).await {
                tracing::warn!("the inference process takes no more requests: {error}");
                break;
            }
        }
    };
    ended.run_until_cancelled(pass_on).await;
    ended.cancel();
    child.end().await;
    let log = child.log_tail();
    if !log.is_empty() {
        tracing::warn!("the inference process ended; its log: {log}");
    }
}

/// Hands answers to the requests that wait for them, until there are no more.
async fn read(mut output: Output, process: Running) {
    loop {
        let received = tokio::select! {
            received = output.receive::<Predicted>() => received,
            () = process.ended.cancelled() => break,
        };
        match received {
            Ok(Some(Predicted { id, outcome })) => {
                *lock(&process.last_answer) = Instant::now();
                // A request that timed out is not there any more.
                if let Some(reply) = lock(&process.pending).remove(&id) {
                    let _ = reply.send(outcome);
                }
            }
            Ok(None) => break,
            // Lines of another kind, such as `ready`.
            Err(LineError::Unexpected(_)) => {}
            Err(error) => {
                tracing::warn!("cannot read the inference process's answers: {error}");
                break;
            }
        }
    }
    process.ended.cancel();
    lock(&process.pending).clear();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
