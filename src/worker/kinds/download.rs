//! Downloads a file by URL, or several into one tar, and checks their hashes. Bytes that have come
//! outlive a connection that breaks off and a worker that is killed: the next try goes on behind
//! them.

use std::{io, path::Path, time::Duration};

use futures_util::TryStreamExt as _;
use tokio::{io::AsyncReadExt as _, time::Instant};

use super::task::Task;
use crate::{
    db::{self, downloads::Part, persist::persist, work},
    domain::problem::Problem,
    objects::{At as _, ObjectError, Partial, Stored, Tag},
    outgoing::{Interrupted, Wanted},
    telemetry::metrics::DOWNLOADS,
    worker::fault::Fault,
};

/// Pauses before a download that broke off is tried again. One that came further than before has
/// them all again.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Bytes of a block of a tar.
const TAR_BLOCK: usize = 512;
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Downloads a file and writes the result.
pub(super) async fn run(task: Task<'_>) -> Result<(), Fault> {
    let Task {
        worker, claimed, ..
    } = task;
    let found = db::downloads::to_download(&worker.pool, claimed.subject).await?;
    let parts = found.ok_or(Fault::Lost)?;
    let prefix = format!("files/{}", claimed.subject.simple());
    let problem = match store(task, &parts, &format!("{prefix}/content")).await {
        Ok(Ok(stored)) => {
            DOWNLOADS.add(["succeeded".into()], 1);
            let Stored { bytes, sha256 } = &stored;
            let write = || db::downloads::accept(&worker.pool, claimed, *bytes, sha256);
            return task.end("accept a download", write).await;
        }
        Ok(Err(interrupted)) => Problem::new(
            interrupted.field(),
            interrupted.code(),
            interrupted.to_string(),
        ),
        Err(fault) => {
            // Others need the room of a file that has none to be finished in.
            if matches!(fault, Fault::Object(ObjectError::StorageFull { .. })) {
                worker.objects.delete_prefix(&prefix).await?;
            }
            return Err(fault);
        }
    };
    DOWNLOADS.add(["failed".into()], 1);
    worker.objects.delete_prefix(&prefix).await?;
    let write = || db::downloads::refuse(&worker.pool, claimed, &problem);
    task.end("refuse a download", write).await
}

/// Downloads what is missing until the object is whole.
async fn store(
    task: Task<'_>,
    parts: &[Part],
    key: &str,
) -> Result<Result<Stored, Interrupted>, Fault> {
    let worker = task.worker;
    let limits = &worker.args.downloads;
    let limit = limits.max_download_bytes;
    if parts.iter().filter_map(|part| part.bytes).sum::<u64>() > limit {
        return Ok(Err(Interrupted::TooLarge { limit }));
    }
    let pieces = pieces(parts).map_err(|error| Fault::result(error.to_string()))?;
    let mut download = Download {
        task,
        partial: worker.objects.partial(key).await?,
        end: Instant::now() + limits.download_time,
    };
    let mut retries = RETRIES.into_iter();
    let mut furthest = download.partial.bytes();
    loop {
        let interrupted = match download.all(&pieces).await? {
            Ok(()) => break,
            Err(interrupted) => interrupted,
        };
        if download.partial.bytes() > furthest {
            furthest = download.partial.bytes();
            retries = RETRIES.into_iter();
        }
        let pause = match retries.next() {
            Some(pause) if interrupted.is_temporary() => pause,
            _ => return Ok(Err(interrupted)),
        };
        let subject = task.claimed.subject;
        tracing::info!(work.subject = %subject, "download broke off, will retry: {interrupted}");
        let pause = interrupted.retry_after().unwrap_or(pause);
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
    }
    // A complete object replaces that of another worker, so the lease is confirmed first.
    let ttl = worker.args.timing.leases.lease;
    let renew = || work::renew(&worker.pool, task.claimed, ttl);
    if persist("confirming a lease", renew).await?.is_none() {
        return Err(Fault::Lost);
    }
    Ok(Ok(download.partial.finish().await?))
}

/// A piece of a download.
enum Piece<'a> {
    /// Between the files of a tar.
    Bytes(Vec<u8>),
    File(&'a Part),
}

/// The pieces of one file, or of a tar of several.
fn pieces(parts: &[Part]) -> io::Result<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    for part in parts {
        let (Some(name), Some(bytes)) = (&part.name, part.bytes) else {
            return Ok(vec![Piece::File(part)]);
        };
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let padding = bytes.next_multiple_of(TAR_BLOCK as u64) - bytes;
        pieces.extend([
            Piece::Bytes(header.as_bytes().to_vec()),
            Piece::File(part),
            Piece::Bytes(vec![0; padding as usize]),
        ]);
    }
    pieces.push(Piece::Bytes(vec![0; 2 * TAR_BLOCK]));
    Ok(pieces)
}

/// A download into an object under way.
struct Download<'a> {
    task: Task<'a>,
    partial: Partial,
    /// The time by which it must have ended.
    end: Instant,
}

impl Download<'_> {
    /// Appends what is missing of each piece.
    async fn all(&mut self, pieces: &[Piece<'_>]) -> Result<Result<(), Interrupted>, Fault> {
        let mut start = 0;
        for piece in pieces {
            let there = self.partial.bytes().saturating_sub(start);
            start += match piece {
                Piece::Bytes(bytes) => {
                    let missing = bytes.get(there as usize..).unwrap_or_default();
                    self.partial.append(missing).await?;
                    bytes.len() as u64
                }
                Piece::File(part) => match self.file(part, start).await? {
                    Ok(bytes) => bytes,
                    Err(interrupted) => return Ok(Err(interrupted)),
                },
            };
        }
        Ok(Ok(()))
    }

    /// Appends what is missing of a file whose bytes begin at `start`, checks them, and returns
    /// their number.
    async fn file(&mut self, part: &Part, start: u64) -> Result<Result<u64, Interrupted>, Fault> {
        let there = self.partial.bytes() - start;
        let there = part.bytes.map_or(there, |bytes| bytes.min(there));
        let is_whole = part.bytes == Some(there);
        // Only a tag or a hash tells whether what follows is of the same file.
        let is_known = self.partial.tag(start).is_some() || part.sha256.is_some();
        let have = if is_whole || is_known { there } else { 0 };
        let outgoing = &self.task.worker.outgoing;
        let cached = (!is_whole).then(|| outgoing.cached(&part.url)).flatten();
        if let Some(path) = &cached {
            self.copy(path, start).await?;
        } else if !is_whole && let Err(interrupted) = self.fetch(part, start, have).await? {
            return Ok(Err(interrupted));
        }
        let mut problem = self.problem(part, start).await?;
        let is_damaged = cached.is_some() && problem.is_some();
        if is_damaged && !outgoing.args().hub_offline {
            tracing::warn!("`{}` is damaged in the hub's cache", part.url);
            self.partial.truncate(start).await?;
            if let Err(interrupted) = self.fetch(part, start, 0).await? {
                return Ok(Err(interrupted));
            }
            problem = self.problem(part, start).await?;
        }
        let Some(problem) = problem else {
            let bytes = self.bytes_of(part, start);
            self.add_to_cache(part, (start, bytes), is_damaged).await;
            return Ok(Ok(bytes));
        };
        self.partial.truncate(start).await?;
        Ok(Err(match problem {
            // Another try finds out whether it changed between two.
            Interrupted::WrongHash { name, .. } if have > 0 => {
                Interrupted::Broken(format!("{name} changed while it was downloaded"))
            }
            problem => problem,
        }))
    }

    /// Appends a file of the hub's cache.
    async fn copy(&mut self, path: &Path, start: u64) -> Result<(), Fault> {
        self.partial.truncate(start).await?;
        self.partial.set_tag(None).await?;
        let mut file = tokio::fs::File::open(path).await.at(path)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = file.read(&mut buffer).await.at(path)?;
            if count == 0 {
                return Ok(());
            }
            self.partial.append(&buffer[..count]).await?;
        }
    }

    /// Appends what a server has of a file behind the first `have` bytes.
    async fn fetch(
        &mut self,
        part: &Part,
        start: u64,
        have: u64,
    ) -> Result<Result<(), Interrupted>, Fault> {
        let worker = self.task.worker;
        let tag = self.partial.tag(start).map(str::to_owned);
        let wanted = Wanted {
            url: &part.url,
            have,
            tag: tag.as_deref(),
            bytes: part.bytes,
            limits: &worker.args.downloads,
            end: self.end,
        };
        let download = match worker.outgoing.download(wanted).await {
            Ok(download) => download,
            Err(interrupted) => return Ok(Err(interrupted)),
        };
        if download.start == 0 {
            self.partial.truncate(start).await?;
            let tag = download.tag.map(|tag| Tag { start, tag });
            self.partial.set_tag(tag).await?;
        }
        let mut stream = download.stream;
        loop {
            match stream.try_next().await {
                Ok(Some(chunk)) => self.partial.append(&chunk).await?,
                Ok(None) => return Ok(Ok(())),
                Err(interrupted) => {
                    self.partial.flush().await?;
                    return Ok(Err(interrupted));
                }
            }
        }
    }

    /// Bytes of a file that came.
    fn bytes_of(&self, part: &Part, start: u64) -> u64 {
        part.bytes.unwrap_or(self.partial.bytes() - start)
    }

    /// The problem of a file that came, if there is one.
    async fn problem(&mut self, part: &Part, start: u64) -> Result<Option<Interrupted>, Fault> {
        let bytes = self.bytes_of(part, start);
        let name = match &part.name {
            Some(name) => format!("`{name}`"),
            None => "the file".to_owned(),
        };
        let came = self.partial.bytes() - start;
        if came == 0 {
            return Ok(Some(Interrupted::Empty(name)));
        }
        if came < bytes {
            let message = format!("{name} has {came} bytes, not {bytes}");
            return Ok(Some(Interrupted::Broken(message)));
        }
        let Some(expected) = &part.sha256 else {
            return Ok(None);
        };
        let found = self.partial.hash(start, bytes).await?.sha256;
        let wrong = || Interrupted::WrongHash {
            name,
            expected: expected.clone(),
            found: found.clone(),
        };
        Ok((found != *expected).then(wrong))
    }

    /// Adds a file of the hub to its cache, if there is one; in the place of a damaged one there.
    async fn add_to_cache(&self, part: &Part, (start, bytes): (u64, u64), is_damaged: bool) {
        if let Some(sha256) = part.sha256.clone() {
            let (outgoing, url) = (self.task.worker.outgoing.clone(), part.url.clone());
            let copy = self.partial.copy(start, bytes);
            let added = move || outgoing.cache(&url, (&sha256, is_damaged), copy);
            let _ = tokio::task::spawn_blocking(added).await;
        }
    }
}
