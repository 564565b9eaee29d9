//! Pushes: files as a commit of a repository of the hub, with the operator's token. Large files go
//! to the hub's store by Git LFS
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>), the others into the commit.
//! Doing it again changes nothing: a repository that exists is used, what the store has is not
//! sent, and without a changed file there is no commit.
//!
//! No redirect is followed, and the token goes to the hub only, not to the store.

use std::{
    collections::BTreeMap,
    io::SeekFrom,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::TryStreamExt as _;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    time::{Instant, timeout},
};
use tokio_util::io::ReaderStream;
use url::Url;

use super::{
    client::{Outgoing, Target, Unsent, Use, plain},
    push_error::PushError,
};
use crate::{
    config::PushLimits,
    domain::{checkpoint::ManifestEntry, problem::quoted},
};

/// Largest answer of the hub in bytes.
const ANSWER_BYTES: usize = 4 << 20;
/// Bytes of a file that the hub is shown first, to choose how it is stored.
const SAMPLE_BYTES: u64 = 512;
/// Largest file inside a commit in bytes. The hub has larger ones in its store.
const REGULAR_BYTES: u64 = 16 << 20;
/// Bytes that are read from a file at once.
const READ_BYTES: usize = 256 << 10;
/// Parts of one file.
const PARTS: u64 = 10_000;
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// A file to push.
#[derive(Debug, Clone)]
pub struct PushedFile {
    /// Its name in the repository.
    pub name: &'static str,
    pub path: PathBuf,
    /// Size and SHA-256.
    pub content: ManifestEntry,
}

/// A commit to make.
#[derive(Debug, Clone, Copy)]
pub struct ToHub<'a> {
    pub repository: &'a str,
    pub branch: &'a str,
    pub private: bool,
    pub message: &'a str,
    pub files: &'a [PushedFile],
    pub limits: &'a PushLimits,
    /// The time by which it must have ended.
    pub end: Instant,
}

/// The hub's word on how it stores a file.
#[derive(Debug, Deserialize)]
struct Preuploaded {
    files: Vec<UploadMode>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UploadMode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
    /// The file that the branch has by this name: SHA-256 of a large file, git's name of another
    /// one.
    #[serde(default)]
    oid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Batch {
    objects: Vec<BatchObject>,
}

#[derive(Debug, Deserialize)]
struct BatchObject {
    oid: String,
    /// None where the store has the file.
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<BatchError>,
}

#[derive(Debug, Deserialize)]
struct BatchError {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Debug, Deserialize)]
struct Action {
    href: String,
    /// For a file in parts: `chunk_size`, and a URL by the number of each part.
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

#[derive(Debug, Deserialize)]
struct Head {
    sha: String,
}

impl Outgoing {
    /// True when the operator lets models be pushed from here.
    pub fn pushes(&self) -> bool {
        self.args().pushes()
    }

    /// The page of a repository on the hub.
    pub fn repository_url(&self, repository: &str) -> String {
        self.hub_url(repository)
    }

    /// The hub's repository that a URL is a file of.
    pub fn repository_of(&self, url: &str) -> Option<String> {
        let path = url.strip_prefix(&self.hub_url(""))?;
        let (repository, _) = path.split_once("/resolve/")?;
        (repository.split('/').count() == 2).then(|| repository.to_owned())
    }

    /// Checks that the operator allows a push to a repository.
    ///
    /// # Errors
    /// It is not allowed, or its host is none that may be used.
    pub async fn check_push(&self, repository: &str) -> Result<(), PushError> {
        let args = self.args();
        let (owner, _) = repository.split_once('/').unwrap_or_default();
        if !args.pushes() {
            return Err(PushError::Off);
        }
        if args.hub_offline {
            return Err(PushError::Offline);
        }
        if !args.allows_push_to(owner) {
            return Err(PushError::Owner(quoted(owner).into_owned()));
        }
        if args.hub_token.is_none() {
            return Err(PushError::NoToken);
        }
        let target = self.target(&self.hub_url(""), Use::Download)?;
        Ok(self.check(&target).await?)
    }

    /// Makes a commit of files, unless the branch has them already. Returns the commit in which
    /// they are.
    ///
    /// # Errors
    /// The hub does not take them.
    pub async fn push(&self, push: &ToHub<'_>) -> Result<String, PushError> {
        self.check_push(push.repository).await?;
        let pushing = Pushing {
            outgoing: self,
            push,
        };
        let left = push.end.saturating_duration_since(Instant::now());
        let pushed = timeout(left, pushing.run()).await;
        pushed.unwrap_or_else(|_| Err(PushError::timed_out()))
    }
}

/// A push under way.
struct Pushing<'a> {
    outgoing: &'a Outgoing,
    push: &'a ToHub<'a>,
}

impl Pushing<'_> {
    async fn run(&self) -> Result<String, PushError> {
        self.create_repository().await?;
        let (changed, large) = self.changed_files().await?;
        if changed.is_empty() {
            let path = self.path("revision", &format!("/{}", in_path(self.push.branch)));
            let head: Head = self.ask(Method::GET, &path, |request| request).await?;
            return Ok(head.sha);
        }
        if !large.is_empty() {
            self.store(&large).await?;
        }
        let lines = self.commit_lines(&changed).await?;
        let path = self.path("commit", &format!("/{}", in_path(self.push.branch)));
        let committed: Committed = self
            .ask(Method::POST, &path, |request| {
                request
                    .header(CONTENT_TYPE, "application/x-ndjson")
                    .body(lines)
            })
            .await?;
        Ok(committed.commit_oid)
    }

    fn path(&self, verb: &str, rest: &str) -> String {
        format!("api/models/{}/{verb}{rest}", self.push.repository)
    }

    /// Creates the repository and the branch, where there are none.
    async fn create_repository(&self) -> Result<(), PushError> {
        let (owner, name) = self.push.repository.split_once('/').unwrap_or_default();
        let mut body = json!({"type": "model", "name": name, "organization": owner});
        if self.push.private {
            // Mirrors know one of the two.
            body["private"] = json!(true);
            body["visibility"] = json!("private");
        }
        self.create("api/repos/create", &body).await?;
        if self.push.branch == "main" {
            return Ok(());
        }
        let path = self.path("branch", &format!("/{}", in_path(self.push.branch)));
        self.create(&path, &json!({})).await
    }

    async fn create(&self, path: &str, body: &Value) -> Result<(), PushError> {
        let target = self.hub(path)?;
        let response = self
            .send(Method::POST, &target, |request| request.json(body))
            .await?;
        match response.status() {
            // A token that may not create may still write to what is there; else the next request
            // is refused, too.
            StatusCode::CONFLICT | StatusCode::FORBIDDEN => Ok(()),
            _ => self.succeed(response).await.map(drop),
        }
    }

    /// The files that the branch has not as they are, and those of them that go to the store. Each
    /// has true where it is large.
    async fn changed_files(
        &self,
    ) -> Result<(Vec<(&PushedFile, bool)>, Vec<&PushedFile>), PushError> {
        let mut files = Vec::new();
        for file in self.push.files {
            let sample = read(file, SAMPLE_BYTES).await?;
            let sample = BASE64_STANDARD.encode(sample);
            files.push(json!({"path": file.name, "size": file.content.bytes, "sample": sample}));
        }
        let path = self.path("preupload", &format!("/{}", in_path(self.push.branch)));
        let body = json!({ "files": files });
        let answer: Preuploaded = self
            .ask(Method::POST, &path, |request| request.json(&body))
            .await?;
        let (mut changed, mut stored) = (Vec::new(), Vec::new());
        for file in self.push.files {
            let mode = answer.files.iter().find(|mode| mode.path == file.name);
            let mode = mode.ok_or_else(|| unreadable("how it stores a file"))?;
            let is_large = mode.upload_mode == "lfs";
            if mode.should_ignore {
                let message = format!("its `.gitignore` has `{}`; remove it there", file.name);
                return Err(PushError::Rejected(message));
            }
            if mode.oid.is_some() && mode.oid == Some(oid(file, is_large).await?) {
                continue;
            }
            changed.push((file, is_large));
            if is_large {
                stored.push(file);
            }
        }
        Ok((changed, stored))
    }

    /// Sends files to the store that it does not have.
    async fn store(&self, files: &[&PushedFile]) -> Result<(), PushError> {
        let objects = files.iter();
        let objects = objects.map(|file| object(file)).collect::<Vec<_>>();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects,
            "hash_algo": "sha256", "ref": {"name": self.push.branch},
        });
        let path = format!("{}.git/info/lfs/objects/batch", self.push.repository);
        let batch: Batch = self
            .ask(Method::POST, &path, |request| lfs(request, &body))
            .await?;
        for file in files {
            let mut objects = batch.objects.iter();
            let found = objects.find(|object| object.oid == file.content.sha256);
            let found = found.ok_or_else(|| unreadable("where a large file goes"))?;
            if let Some(error) = &found.error {
                let message = self.told(&error.message);
                return Err(PushError::Rejected(message));
            }
            let Some(Actions { upload, verify }) = &found.actions else {
                continue;
            };
            if let Some(upload) = upload {
                match upload.header.get("chunk_size") {
                    Some(size) => self.upload_parts(file, upload, size).await?,
                    None => {
                        let whole = (0, file.content.bytes);
                        self.upload(file, &upload.href, whole).await?;
                    }
                }
            }
            if let Some(verify) = verify {
                let target = self.target(&verify.href)?;
                let sent = self.send(Method::POST, &target, |request| lfs(request, &object(file)));
                self.succeed(sent.await?).await?;
            }
        }
        Ok(())
    }

    /// Sends a file in parts, and has the store join them.
    async fn upload_parts(
        &self,
        file: &PushedFile,
        upload: &Action,
        size: &Value,
    ) -> Result<(), PushError> {
        // The hub has it as a number or as text.
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok());
        let size = size.filter(|size| *size > 0);
        let size = size.ok_or_else(|| unreadable("the size of a part"))?;
        let urls: BTreeMap<u64, &str> = upload
            .header
            .iter()
            .filter_map(|(number, url)| Some((number.parse().ok()?, url.as_str()?)))
            .collect();
        let count = file.content.bytes.div_ceil(size);
        if count > PARTS || !urls.keys().copied().eq(1..=count) {
            return Err(unreadable("where the parts of a file go"));
        }
        let mut parts = Vec::new();
        for (number, url) in urls {
            let start = (number - 1) * size;
            let part = (start, size.min(file.content.bytes - start));
            let response = self.upload(file, url, part).await?;
            let tag = response.headers().get(ETAG);
            let tag = tag.and_then(|tag| tag.to_str().ok());
            let tag = tag.ok_or_else(|| unreadable("the tag of a part"))?;
            parts.push(json!({"partNumber": number, "etag": tag}));
        }
        let body = json!({"oid": file.content.sha256, "parts": parts});
        // The URL is signed, and needs no token.
        let target = self.target(&upload.href)?.with_token(false);
        let sent = self.send(Method::POST, &target, |request| lfs(request, &body));
        self.succeed(sent.await?).await.map(drop)
    }

    /// Sends a part of a file to the store: its first byte, and its size.
    async fn upload(
        &self,
        file: &PushedFile,
        url: &str,
        (start, bytes): (u64, u64),
    ) -> Result<Response, PushError> {
        let target = self.target(url)?.with_token(false);
        let failed = |error: std::io::Error| PushError::File(file.name, error.to_string());
        let mut opened = File::open(&file.path).await.map_err(failed)?;
        opened.seek(SeekFrom::Start(start)).await.map_err(failed)?;
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&taken);
        let stream = ReaderStream::with_capacity(opened.take(bytes), READ_BYTES);
        let stream = stream.inspect_ok(move |chunk| {
            counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        });
        let sending = self.outgoing.send(Method::PUT, &target, |request| {
            let request = request.header(CONTENT_LENGTH, bytes);
            request.body(Body::wrap_stream(stream))
        });
        let mut sending = pin!(sending);
        let response = loop {
            let before = taken.load(Ordering::Relaxed);
            match timeout(self.push.limits.push_idle, &mut sending).await {
                Ok(response) => break response?,
                Err(_) if taken.load(Ordering::Relaxed) == before => {
                    return Err(PushError::timed_out());
                }
                Err(_) => {}
            }
        };
        self.succeed(response).await
    }

    /// The commit, one JSON object a line.
    async fn commit_lines(&self, changed: &[(&PushedFile, bool)]) -> Result<Vec<u8>, PushError> {
        let header = json!({"summary": self.push.message, "description": ""});
        let mut lines = vec![json!({"key": "header", "value": header})];
        for (file, is_large) in changed {
            lines.push(if *is_large {
                let ManifestEntry { bytes, sha256 } = &file.content;
                let value =
                    json!({"path": file.name, "algo": "sha256", "oid": sha256, "size": bytes});
                json!({"key": "lfsFile", "value": value})
            } else {
                let content = BASE64_STANDARD.encode(read_regular(file).await?);
                let value = json!({"path": file.name, "encoding": "base64", "content": content});
                json!({"key": "file", "value": value})
            });
        }
        let lines = lines.iter().map(|line| format!("{line}\n"));
        Ok(lines.collect::<String>().into_bytes())
    }

    /// A URL of the hub, which gets its token.
    fn hub(&self, path: &str) -> Result<Target, PushError> {
        let target = self
            .outgoing
            .target(&self.outgoing.hub_url(path), Use::Download)?;
        Ok(target.with_token(true))
    }

    /// A URL that the hub named, which gets its token only if it is the hub's.
    fn target(&self, url: &str) -> Result<Target, PushError> {
        let target = self.outgoing.target(url, Use::Download)?;
        let hub = Url::parse(&self.outgoing.hub_url(""));
        let of_hub = hub.is_ok_and(|hub| {
            let found = target.url();
            found.origin() == hub.origin() && found.path().starts_with(hub.path())
        });
        Ok(target.with_token(of_hub))
    }

    /// Sends a request, and reads its answer.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, PushError> {
        let target = self.hub(path)?;
        let response = self.send(method, &target, build).await?;
        let response = self.succeed(response).await?;
        let body = body_of(response, self.push.limits.push_idle).await?;
        serde_json::from_slice(&body).map_err(|_| unreadable("what it did"))
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, PushError> {
        let sent = self.outgoing.send(method, target, build);
        let response = timeout(self.push.limits.push_idle, sent).await;
        Ok(response.map_err(|_| PushError::timed_out())??)
    }

    /// A response that is a success.
    async fn succeed(&self, response: Response) -> Result<Response, PushError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let pause = response.headers().get(RETRY_AFTER);
        let seconds = pause.and_then(|text| text.to_str().ok()?.parse().ok());
        let repository = self.push.repository.to_owned();
        let body = body_of(response, self.push.limits.push_idle).await;
        let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        let told = body["error"].as_str().map(|told| self.told(told));
        let number = status.as_u16();
        let shown = |told: &Option<String>| match told {
            Some(told) => format!("{number}, {told}"),
            None => format!("it answers {number}"),
        };
        Err(match number {
            401 | 403 => PushError::Denied {
                repository,
                status: number,
                reason: told.map_or_else(String::new, |told| format!(": {told}")),
            },
            404 => PushError::NotFound(repository),
            429 => PushError::TooManyRequests(seconds.map(Duration::from_secs)),
            408 | 500.. => PushError::Unreachable(shown(&told)),
            300..=399 => PushError::Rejected(format!(
                "it redirects ({number}); give the repository's present name"
            )),
            _ => PushError::Rejected(shown(&told)),
        })
    }

    /// Words of the hub, as they are stored and shown: without the token.
    fn told(&self, message: &str) -> String {
        let token = self.outgoing.args().hub_token.as_ref();
        let message = match token.map(|token| token.expose()) {
            Some(token) if !token.is_empty() => message.replace(token, "…"),
            _ => message.to_owned(),
        };
        plain(&message)
    }
}

fn lfs(request: RequestBuilder, body: &Value) -> RequestBuilder {
    let request = request
        .header(ACCEPT, LFS_JSON)
        .header(CONTENT_TYPE, LFS_JSON);
    request.body(body.to_string())
}

fn object(file: &PushedFile) -> Value {
    json!({"oid": file.content.sha256, "size": file.content.bytes})
}

fn in_path(branch: &str) -> String {
    percent_encoding::utf8_percent_encode(branch, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn unreadable(what: &str) -> PushError {
    PushError::Rejected(format!(
        "it does not say {what}; check that `--hub-endpoint` is a hub that takes pushes"
    ))
}

async fn body_of(mut response: Response, patience: Duration) -> Result<Vec<u8>, PushError> {
    let mut body = Vec::new();
    loop {
        let chunk = timeout(patience, response.chunk()).await;
        let chunk = chunk.map_err(|_| PushError::timed_out())?;
        let Some(chunk) = chunk.map_err(Unsent::from)? else {
            return Ok(body);
        };
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            return Err(PushError::Rejected(format!(
                "it answers more than {ANSWER_BYTES} bytes"
            )));
        }
    }
}

/// The first bytes of a file, at most `limit`.
async fn read(file: &PushedFile, limit: u64) -> Result<Vec<u8>, PushError> {
    let read = async |path: &Path| {
        let mut bytes = Vec::new();
        let opened = File::open(path).await?;
        opened.take(limit).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    let failed = |error: std::io::Error| PushError::File(file.name, error.to_string());
    read(&file.path).await.map_err(failed)
}

/// The bytes of a file that the hub wants inside the commit.
async fn read_regular(file: &PushedFile) -> Result<Vec<u8>, PushError> {
    let bytes = file.content.bytes;
    if bytes > REGULAR_BYTES {
        return Err(PushError::Rejected(format!(
            "it wants `{}` of {bytes} bytes inside the commit; have its `.gitattributes` name `*.safetensors` for LFS",
            file.name
        )));
    }
    read(file, REGULAR_BYTES).await
}

/// The name of a file's content in the repository: as preupload tells it.
async fn oid(file: &PushedFile, is_large: bool) -> Result<String, PushError> {
    if is_large {
        return Ok(file.content.sha256.clone());
    }
    let content = read_regular(file).await?;
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(&content);
    Ok(hex::encode(hash.finalize()))
}
