//! The inference child: started at the first prediction, shared by all, replaced when it dies. Torch and the users'
//! images meet only there, so the worst that an image can do is end that child; who waits then is asked to try again,
//! after one try of our own.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    child::{Child, LineError, Output},
    config::HttpLimits,
    domain::{
        progress::Failure,
        work::{ImageOutcome, Predict, Predicted},
    },
    http::api::error::ApiError,
    objects::Objects,
};

/// Bundles kept on disk; the child keeps fewer loaded.
const BUNDLES_KEPT: usize = 64;
/// What a crash or a restart leaves in the spool is swept after this long.
const SPOOL_AGE: Duration = Duration::from_secs(3600);

type Outcome = Result<Vec<ImageOutcome>, Failure>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>;

/// The handle that handlers share.
pub struct Inference {
    trainer: PathBuf,
    scratch: PathBuf,
    objects: Objects,
    places: Arc<Semaphore>,
    patience: Duration,
    session: AsyncMutex<Option<Session>>,
    fetching: AsyncMutex<()>,
    /// Held by whoever makes a TorchScript: one child at a time.
    pub(crate) scripting: AsyncMutex<()>,
    next_id: AtomicU64,
}

/// One life of the child.
#[derive(Clone)]
struct Session {
    lines: mpsc::Sender<Predict>,
    waiting: Waiting,
    /// When it last answered.
    spoke: Arc<Mutex<Instant>>,
    /// Cancelled when it is gone, or to end it.
    dead: CancellationToken,
}

/// Why there is no answer.
enum Lost {
    /// The child ended before it answered.
    Died,
    /// Nothing came in time.
    Late,
}

impl Inference {
    pub fn new(trainer: PathBuf, scratch: PathBuf, objects: Objects, limits: &HttpLimits) -> Self {
        Self {
            trainer,
            scratch,
            objects,
            places: Arc::new(Semaphore::new(limits.max_predict_waiting)),
            patience: Duration::from_secs(limits.predict_seconds),
            session: AsyncMutex::new(None),
            fetching: AsyncMutex::new(()),
            scripting: AsyncMutex::new(()),
            next_id: AtomicU64::new(1),
        }
    }

    /// The path of `rehead-trainer`.
    pub(crate) fn trainer(&self) -> &Path {
        &self.trainer
    }

    /// A place among those who may wait. Taken before images are received, so that a busy service takes in no bytes.
    ///
    /// # Errors
    /// All are taken.
    pub fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| ApiError::Unavailable {
                code: "predictions_busy",
                message: "too many predictions are waiting; try again".to_owned(),
                retry_after_seconds: 1,
            })
    }

    /// A folder for one request's images, removed when dropped.
    pub async fn spool(&self) -> anyhow::Result<tempfile::TempDir> {
        let folder = self.scratch.join("spool");
        tokio::fs::create_dir_all(&folder)
            .await
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        tempfile::Builder::new()
            .prefix("predict-")
            .tempdir_in(&folder)
            .with_context(|| format!("cannot make a folder in `{}`", folder.display()))
    }

    /// Removes images that a killed service left behind.
    pub(crate) async fn sweep(&self) -> std::io::Result<()> {
        let mut entries = tokio::fs::read_dir(self.scratch.join("spool")).await?;
        while let Some(entry) = entries.next_entry().await? {
            let age = entry
                .metadata()
                .await?
                .modified()?
                .elapsed()
                .unwrap_or_default();
            if age > SPOOL_AGE {
                tokio::fs::remove_dir_all(entry.path()).await?;
            }
        }
        Ok(())
    }

    /// What the model whose bundle lies at `prefix` in the store makes of these images, in order.
    ///
    /// # Errors
    /// The child fails twice, takes too long, or refuses the bundle.
    pub async fn predict(
        &self,
        prefix: &str,
        images: &[PathBuf],
    ) -> Result<Vec<ImageOutcome>, ApiError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let bundle = tokio::time::timeout_at(deadline, self.bundle(prefix))
            .await
            .map_err(|_| self.late())??;
        for _ in 0..2 {
            match self.attempt(&bundle, images, deadline).await? {
                Ok(Ok(outcomes)) if outcomes.len() == images.len() => return Ok(outcomes),
                Ok(Ok(outcomes)) => {
                    let (got, sent) = (outcomes.len(), images.len());
                    return Err(anyhow::anyhow!(
                        "the inference child answered {got} of {sent} images"
                    )
                    .into());
                }
                Ok(Err(failure)) => {
                    let Failure { code, message, .. } = failure;
                    return Err(anyhow::anyhow!(
                        "the inference child failed with `{code}`: {message}"
                    )
                    .into());
                }
                Err(Lost::Late) => return Err(self.late()),
                Err(Lost::Died) => {}
            }
        }
        Err(ApiError::Unavailable {
            code: "inference_crashed",
            message:
                "the process that predicts ended twice over these images; check them, or try again"
                    .to_owned(),
            retry_after_seconds: 5,
        })
    }

    fn late(&self) -> ApiError {
        ApiError::Unavailable {
            code: "prediction_timeout",
            message: format!(
                "no prediction within {} seconds; send fewer images, or try again",
                self.patience.as_secs()
            ),
            retry_after_seconds: 5,
        }
    }

    async fn attempt(
        &self,
        bundle: &Path,
        images: &[PathBuf],
        deadline: tokio::time::Instant,
    ) -> anyhow::Result<Result<Outcome, Lost>> {
        let session = self.session().await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        lock(&session.waiting).insert(id, reply);
        let asked = Instant::now();
        let line = Predict {
            id,
            bundle: bundle.to_owned(),
            images: images.to_vec(),
        };
        let asking = async {
            // A closed channel shows as a dropped reply.
            if session.lines.send(line).await.is_err() {
                lock(&session.waiting).remove(&id);
            }
            tokio::select! {
                answer = answer => answer.map_err(|_| Lost::Died),
                () = session.dead.cancelled() => Err(Lost::Died),
            }
        };
        let answered = tokio::time::timeout_at(deadline, asking)
            .await
            .unwrap_or(Err(Lost::Late));
        lock(&session.waiting).remove(&id);
        if matches!(answered, Err(Lost::Late)) && *lock(&session.spoke) < asked {
            // It answered nobody in all that time: stuck, not busy.
            tracing::warn!("the inference child is stuck and is replaced");
            session.dead.cancel();
        }
        Ok(answered)
    }

    async fn session(&self) -> anyhow::Result<Session> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.dead.is_cancelled()) {
            return Ok(session.clone());
        }
        let (child, output) = Child::spawn(&self.trainer, &[OsStr::new("infer")])
            .await
            .with_context(|| format!("cannot start `{} infer`", self.trainer.display()))?;
        let (lines, queue) = mpsc::channel(1);
        let session = Session {
            lines,
            waiting: Waiting::default(),
            spoke: Arc::new(Mutex::new(Instant::now())),
            dead: CancellationToken::new(),
        };
        tokio::spawn(write(child, queue, session.dead.clone()));
        tokio::spawn(read(output, session.clone()));
        *slot = Some(session.clone());
        Ok(session)
    }

    /// Ends the child.
    pub(crate) async fn stop(&self) {
        if let Some(session) = self.session.lock().await.take() {
            session.dead.cancel();
        }
    }

    /// The bundle's files on this disk; fetched once, complete or absent.
    pub(crate) async fn bundle(&self, prefix: &str) -> Result<PathBuf, ApiError> {
        let prefix = prefix.trim_end_matches('/');
        let models = self.scratch.join("models");
        let folder = models.join(prefix.replace('/', "-"));
        let _one_at_a_time = self.fetching.lock().await;
        if tokio::fs::try_exists(&folder).await.unwrap_or(false) {
            return Ok(folder);
        }
        tokio::fs::create_dir_all(&models)
            .await
            .with_context(|| format!("cannot make `{}`", models.display()))?;
        prune(&models).await;
        let staged = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(&models)
            .context("cannot make a folder")?;
        for key in self.objects.list_prefix(prefix).await? {
            let target = staged.path().join(
                key.strip_prefix(prefix)
                    .unwrap_or(&key)
                    .trim_start_matches('/'),
            );
            if let Some(parent) = target.parent() {
                tokio::fs::create_dir_all(parent)
                    .await
                    .context("cannot make a folder")?;
            }
            self.objects.fetch(&key, &target).await?;
        }
        let staged = staged.keep();
        tokio::fs::rename(&staged, &folder)
            .await
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        Ok(folder)
    }
}

/// Owns the child: passes lines to it until it or the service ends.
async fn write(mut child: Child, mut queue: mpsc::Receiver<Predict>, dead: CancellationToken) {
    loop {
        let sent = tokio::select! {
            line = queue.recv() => match line {
                Some(line) => tokio::select! {
                    sent = child.send(&line) => sent,
                    () = dead.cancelled() => break,
                },
                None => break,
            },
            () = dead.cancelled() => break,
        };
        if let Err(error) = sent {
            tracing::warn!("the inference child takes no more lines: {error}");
            break;
        }
    }
    dead.cancel();
    child.end().await;
    let log = child.log_tail();
    if !log.is_empty() {
        tracing::warn!("the inference child's last words: {log}");
    }
}

/// Hands answers to those who wait, until there are no more.
async fn read(mut output: Output, session: Session) {
    loop {
        let received = tokio::select! {
            received = output.receive::<Predicted>() => received,
            () = session.dead.cancelled() => break,
        };
        match received {
            Ok(Some(Predicted { id, outcome })) => {
                *lock(&session.spoke) = Instant::now();
                // Who gave up meanwhile is not there any more.
                if let Some(reply) = lock(&session.waiting).remove(&id) {
                    let _ = reply.send(outcome);
                }
            }
            Ok(None) => break,
            // Lines of another kind, such as `ready`.
            Err(LineError::Unexpected(_)) => {}
            Err(error) => {
                tracing::warn!("the inference child cannot be understood: {error}");
                break;
            }
        }
    }
    session.dead.cancel();
    lock(&session.waiting).clear();
}

/// Removes the bundles fetched longest ago, beyond those kept. The child maps what it has loaded, so nothing is pulled away.
async fn prune(models: &Path) {
    let mut folders = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(models).await else {
        return;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if let Ok(modified) = entry
            .metadata()
            .await
            .and_then(|metadata| metadata.modified())
        {
            folders.push((modified, entry.path()));
        }
    }
    folders.sort();
    let surplus = folders.len().saturating_sub(BUNDLES_KEPT - 1);
    for (_, folder) in folders.into_iter().take(surplus) {
        let _ = tokio::fs::remove_dir_all(folder).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
