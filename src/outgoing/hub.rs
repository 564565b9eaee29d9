//! Repositories of a hub with the routes of Hugging Face's: what their files say of a model, and
//! where its weights are; and which of them hold a data set.

use std::{fs, path::Path, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    StatusCode,
    header::{ETAG, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    task::block_in_place,
    time::{Instant, timeout_at},
};

use super::{
    client::{Outgoing, Refused, Unsent},
    hub_cache::{Kind, Place, Repository},
    redirects::{NoResponse, REDIRECTS},
};
use crate::domain::{
    problem::quoted,
    repository::{
        CARD, CONFIG, CONVERTED, DatasetFile, Description, PREPROCESSOR, Part, WeightsFiles,
        card_head, converted_files, dataset_files, describe, no_files, shards, weights_files,
    },
};

/// Characters of a file's name that stand as they are in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// Time for all that is asked of the hub before a download.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest description of a repository, and largest `config.json`.
const JSON_BYTES: usize = 4 << 20;

/// A model of a hub, as its repository's files describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubModel {
    pub description: Description,
    /// The files of the weights at one commit. One file has no name.
    pub weights: Vec<HubFile>,
}

/// A file of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    pub name: String,
    pub url: String,
    /// SHA-256 in lower-case hex, where the hub tells it.
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
}

/// A data set that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct WantedDataset<'a> {
    /// Owner and name.
    pub repository: &'a str,
    pub revision: Option<&'a str>,
    pub part: Part<'a>,
}

/// Why a repository gives no model, or no data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    #[error(
        "the hub is turned off on this service (`--hub-offline`), and its cache does not have this; upload it instead"
    )]
    Offline,
    #[error("the hub {0}")]
    Refused(Refused),
    #[error(
        "the owner `{0}` is not in the list of those whose repositories are used; ask the operator to add it to `--hub-owners`"
    )]
    Owner(String),
    #[error(
        "`{repository}` has no revision `{revision}`, or does not exist, or is private; check both, or have the operator set `--hub-token`"
    )]
    NotFound {
        repository: String,
        revision: String,
    },
    #[error(
        "`{0}` is gated: its owner gives access on request; accept its terms on the hub, and have the operator set `--hub-token` to a token that has access"
    )]
    Gated(String),
    #[error("the hub has had too many requests; try again in {0} s")]
    TooManyRequests(u64),
    #[error("the hub cannot be asked: {0}; try again")]
    Unreachable(String),
    #[error("{0}")]
    Unfit(String),
}

impl HubError {
    /// The code of the problem, as docs/errors.md lists it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Offline | Self::Refused(_) | Self::Owner(_) => "hub_not_allowed",
            Self::NotFound { .. } | Self::Gated(_) => "unknown_repository",
            Self::TooManyRequests(_) | Self::Unreachable(_) => "hub_unreachable",
            Self::Unfit(_) => "unfit_repository",
        }
    }
}

impl From<Unsent> for HubError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Refused(refused) => Self::Refused(refused),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<NoResponse> for HubError {
    fn from(failure: NoResponse) -> Self {
        match failure {
            NoResponse::Refused(refused) | NoResponse::Redirected(refused) => {
                Self::Refused(refused)
            }
            NoResponse::TooManyRedirects => {
                Self::Unreachable(format!("it redirects more than {REDIRECTS} times"))
            }
            NoResponse::TimedOut => Self::Unreachable("no answer in time".to_owned()),
            NoResponse::Unsent(unsent) => unsent.into(),
        }
    }
}

/// The hub's description of a repository.
#[derive(Debug, Deserialize)]
struct HubRepository {
    /// The commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    /// The head of the card, in JSON.
    #[serde(default, rename = "cardData")]
    card: Value,
    /// It is that of the cache, which may lack files.
    #[serde(skip)]
    is_cached: bool,
}

impl HubRepository {
    fn find(&self, name: &str) -> Option<&Sibling> {
        self.siblings.iter().find(|one| one.rfilename == name)
    }

    fn paths(&self) -> Vec<&str> {
        let siblings = self.siblings.iter();
        siblings.map(|one| one.rfilename.as_str()).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

impl Sibling {
    fn sha256(&self) -> Option<String> {
        self.lfs.as_ref()?.sha256.clone()
    }
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
}

impl HubRepository {
    /// The license that the card names.
    fn license(&self) -> Option<String> {
        let text = |name: &str| self.card.get(name)?.as_str().map(str::to_owned);
        match text("license") {
            Some(other) if other == "other" => text("license_name").or(Some(other)),
            license => license,
        }
    }
}

impl Outgoing {
    /// Reads what a repository says of its model.
    ///
    /// # Errors
    /// It says nothing, or nothing that can be used.
    pub async fn hub_model(&self, repository: &str, revision: &str) -> Result<HubModel, HubError> {
        let (owner, _) = repository.split_once('/').unwrap_or_default();
        if !self.args().allows_owner(owner) {
            return Err(HubError::Owner(quoted(owner).into_owned()));
        }
        let asked = Asked {
            outgoing: self,
            kind: Kind::Model,
            repository,
            revision,
            end: Instant::now() + PATIENCE,
        };
        if let Some(found) = block_in_place(|| asked.cached()) {
            let model = asked.model(&found).await;
            // The cache may have some of the files only.
            if model.is_ok() || self.args().hub_offline {
                return model;
            }
        }
        if self.args().hub_offline {
            return Err(HubError::Offline);
        }
        let found = asked.repository().await?;
        block_in_place(|| self.cache_revision(asked.place(), revision, &found.sha));
        asked.model(&found).await
    }

    /// Finds the files of a data set. One file has no name.
    ///
    /// # Errors
    /// The repository has none, or which are meant is not clear.
    pub async fn hub_dataset(&self, wanted: WantedDataset<'_>) -> Result<Vec<HubFile>, HubError> {
        let WantedDataset {
            repository,
            revision,
            part,
        } = wanted;
        let (owner, _) = repository.split_once('/').unwrap_or_default();
        if !self.args().allows_owner(owner) {
            return Err(HubError::Owner(quoted(owner).into_owned()));
        }
        let asked = Asked {
            outgoing: self,
            kind: Kind::Dataset,
            repository,
            revision: revision.unwrap_or("main"),
            end: Instant::now() + PATIENCE,
        };
        let limit = self.args().hub_max_files as usize;
        let found = asked.listed().await?;
        let files = dataset_files(&found.paths(), &found.card, part, limit);
        if let Some(files) = files.map_err(|reason| asked.unfit(&reason))? {
            return asked.files(&found, &files);
        }
        // What the hub itself made of other formats, for the branch `main` only.
        if revision.is_some_and(|revision| revision != "main") {
            return Err(asked.unfit(&no_files()));
        }
        let converted = Asked {
            revision: CONVERTED,
            ..asked
        };
        let found = match converted.listed().await {
            Err(HubError::NotFound { .. } | HubError::Offline) => {
                return Err(asked.unfit(&no_files()));
            }
            found => found?,
        };
        let files = converted_files(&found.paths(), part, limit);
        let files = files.map_err(|reason| asked.unfit(&reason))?;
        asked.files(&found, &files)
    }

    pub(super) fn hub_url(&self, path: &str) -> String {
        let endpoint = self.args().hub_endpoint.trim_end_matches('/');
        format!("{endpoint}/{path}")
    }
}

/// A repository that is being asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    outgoing: &'a Outgoing,
    kind: Kind,
    repository: &'a str,
    revision: &'a str,
    end: Instant,
}

impl Asked<'_> {
    /// The repository as far as the cache has it.
    fn cached(&self) -> Option<HubRepository> {
        let found = self.outgoing.cached_revision(self.place(), self.revision);
        let (sha, files) = found?;
        let card = self.read_cached(&sha, CARD);
        let card = card.and_then(|card| String::from_utf8(card).ok());
        let card = card.map_or(Value::Null, |card| card_head(&card));
        let siblings = files.into_iter().map(|file| Sibling {
            rfilename: file.name,
            size: Some(file.bytes),
            lfs: file.sha256.map(|sha256| Lfs {
                sha256: Some(sha256),
            }),
        });
        Some(HubRepository {
            sha,
            siblings: siblings.collect(),
            card,
            is_cached: true,
        })
    }

    /// A small file of the cache.
    fn read_cached(&self, commit: &str, name: &str) -> Option<Vec<u8>> {
        let path = self.outgoing.cached_at(&Place {
            repository: self.place(),
            commit,
            name,
        })?;
        let size = fs::metadata(&path).ok()?.len();
        (size <= JSON_BYTES as u64).then(|| fs::read(path).ok())?
    }

    /// The hub's description of the repository.
    async fn repository(&self) -> Result<HubRepository, HubError> {
        let revision = self.revision;
        let revision = utf8_percent_encode(revision, NON_ALPHANUMERIC);
        let path = format!(
            "api/{}/{}/revision/{revision}?blobs=true",
            self.kind.word(),
            self.repository
        );
        let what = "the hub's description";
        let (bytes, _) = self.bytes(&path, what).await?;
        self.parse(&bytes, what)
    }

    /// The model that a repository's files describe.
    async fn model(&self, found: &HubRepository) -> Result<HubModel, HubError> {
        let weights = self.weights(found).await?;
        let config = self.file(found, CONFIG).await?;
        let preprocessor = match found.find(PREPROCESSOR) {
            Some(_) => Some(self.file(found, PREPROCESSOR).await?),
            None => None,
        };
        if found.find(CARD).is_some() && self.outgoing.args().hub_cache().is_some() {
            // The cache tells the license by it.
            let _ = self.content(found, CARD).await;
        }
        let described = describe(&config, preprocessor.as_ref());
        let mut description = described.map_err(|reason| self.unfit(&reason))?;
        description.license = found.license().or(description.license);
        Ok(HubModel {
            description,
            weights,
        })
    }

    /// The repository in the cache.
    fn place(&self) -> Repository<'_> {
        Repository {
            kind: self.kind,
            name: self.repository,
        }
    }

    /// The path of a file's URL.
    fn path(&self, found: &HubRepository, name: &str) -> String {
        let parts = name.split('/');
        let name: Vec<String> = parts
            .map(|part| utf8_percent_encode(part, IN_PATH).to_string())
            .collect();
        let (kind, name) = (self.kind.prefix(), name.join("/"));
        format!("{kind}{}/resolve/{}/{name}", self.repository, found.sha)
    }

    /// The repository by the hub; by the cache where no hub is asked. What the cache has may be a
    /// part of a data set.
    async fn listed(&self) -> Result<HubRepository, HubError> {
        if self.outgoing.args().hub_offline {
            return block_in_place(|| self.cached()).ok_or(HubError::Offline);
        }
        let commit = block_in_place(|| self.outgoing.cached_commit(self.place(), self.revision));
        let pinned = Asked {
            revision: &commit,
            ..*self
        };
        let found = pinned.repository().await.map_err(|error| match error {
            HubError::NotFound { repository, .. } => HubError::NotFound {
                repository,
                revision: quoted(self.revision).into_owned(),
            },
            other => other,
        })?;
        block_in_place(|| {
            self.outgoing
                .cache_revision(self.place(), self.revision, &found.sha);
        });
        if found.find(CARD).is_some() && self.outgoing.args().hub_cache().is_some() {
            // The cache tells the configurations by it.
            let _ = self.content(&found, CARD).await;
        }
        Ok(found)
    }

    /// The files of a data set at one commit.
    fn files(
        &self,
        found: &HubRepository,
        files: &[DatasetFile],
    ) -> Result<Vec<HubFile>, HubError> {
        let files = files.iter().filter_map(|file| {
            let sibling = found.find(&file.path)?;
            Some(HubFile {
                name: file.name.clone(),
                url: self.outgoing.hub_url(&self.path(found, &file.path)),
                sha256: sibling.sha256(),
                bytes: sibling.size,
            })
        });
        let files: Vec<HubFile> = files.collect();
        if files.len() > 1 && files.iter().any(|file| file.bytes.is_none()) {
            return Err(self.unfit(
                "has several files, whose sizes the hub does not tell; upload them in one archive",
            ));
        }
        Ok(files)
    }

    fn unfit(&self, reason: &str) -> HubError {
        HubError::Unfit(format!("`{}` {reason}", self.repository))
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, bytes: &[u8], what: &str) -> Result<T, HubError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.unfit(&format!("has {what} that cannot be read: {error}")))
    }

    /// Reads a small file, and its tag.
    async fn bytes(&self, path: &str, what: &str) -> Result<(Vec<u8>, Option<String>), HubError> {
        let late = |_| HubError::Unreachable("no answer in time".to_owned());
        let read = timeout_at(self.end, self.read(path, what));
        read.await.map_err(late)?
    }

    async fn read(&self, path: &str, what: &str) -> Result<(Vec<u8>, Option<String>), HubError> {
        let url = self.outgoing.hub_url(path);
        let headers = HeaderMap::new();
        let sent = self.outgoing.get(&url, &headers, || self.end);
        let mut response = sent.await?;
        self.check(&response, what)?;
        let tag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok());
        let tag = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        let mut bytes = Vec::new();
        let broken = |error| HubError::from(Unsent::from(error));
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > JSON_BYTES {
                return Err(self.unfit(&format!("has {what} of more than {JSON_BYTES} bytes")));
            }
        }
        Ok((bytes, tag))
    }

    fn check(&self, response: &reqwest::Response, what: &str) -> Result<(), HubError> {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let error = header("x-error-code");
        match response.status() {
            StatusCode::OK => Ok(()),
            _ if error == Some("GatedRepo") => Err(HubError::Gated(self.repository.to_owned())),
            StatusCode::NOT_FOUND if error == Some("EntryNotFound") => {
                let remedy = match self.kind {
                    Kind::Model => "give the repository of an image model of timm or transformers",
                    Kind::Dataset => "try again",
                };
                Err(self.unfit(&format!("has no {what}; {remedy}")))
            }
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => Err(HubError::NotFound {
                repository: self.repository.to_owned(),
                revision: quoted(self.revision).into_owned(),
            }),
            StatusCode::FORBIDDEN => Err(HubError::Gated(self.repository.to_owned())),
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
                Err(HubError::TooManyRequests(seconds.unwrap_or(60)))
            }
            status => Err(HubError::Unreachable(format!(
                "it answers {}",
                status.as_u16()
            ))),
        }
    }

    /// Reads a small JSON file of the repository.
    async fn file(&self, found: &HubRepository, name: &str) -> Result<Value, HubError> {
        let bytes = self.content(found, name).await?;
        self.parse(&bytes, &format!("`{name}`"))
    }

    /// The bytes of a small file of the repository.
    async fn content(&self, found: &HubRepository, name: &str) -> Result<Vec<u8>, HubError> {
        let what = format!("`{name}`");
        if let Some(bytes) = block_in_place(|| self.read_cached(&found.sha, name)) {
            return Ok(bytes);
        }
        if found.is_cached {
            return Err(self.unfit(&format!("has no {what} in the hub's cache")));
        }
        let path = self.path(found, name);
        let (bytes, tag) = self.bytes(&path, &what).await?;
        if let Some(tag) = tag {
            let url = self.outgoing.hub_url(&path);
            let write = |path: &Path| fs::write(path, &bytes);
            block_in_place(|| self.outgoing.cache(&url, (&tag, false), write));
        }
        Ok(bytes)
    }

    /// The files that the weights are in.
    async fn weights(&self, found: &HubRepository) -> Result<Vec<HubFile>, HubError> {
        let has = |name: &str| found.find(name).is_some();
        let unfit = |reason: String| self.unfit(&reason);
        let names = match weights_files(has).map_err(unfit)? {
            WeightsFiles::Single(name) => vec![name.to_owned()],
            WeightsFiles::Several(index) => {
                let index = self.file(found, index).await?;
                let limit = self.outgoing.args().hub_max_files;
                shards(&index, limit as usize, has).map_err(unfit)?
            }
        };
        let files = names.iter().filter_map(|name| found.find(name));
        let files = files.map(|file| HubFile {
            name: file.rfilename.clone(),
            url: self.outgoing.hub_url(&self.path(found, &file.rfilename)),
            sha256: file.sha256(),
            bytes: file.size,
        });
        let files: Vec<HubFile> = files.collect();
        if files.len() > 1 && files.iter().any(|file| file.bytes.is_none()) {
            return Err(self.unfit("has weights in several files, whose sizes the hub does not tell; join them to one `model.safetensors` and upload it"));
        }
        Ok(files)
    }
}
