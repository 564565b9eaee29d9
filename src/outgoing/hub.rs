//! Repositories of a hub with the routes of Hugging Face's: what their files say of a model, and
//! where its weights are. timm's layout is read: `config.json` as `timm.models.save_for_hf` writes
//! it, and `model.safetensors` or `pytorch_model.bin`.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    client::{Outgoing, Refused, Unsent, Use},
    download::{REDIRECTS, redirection},
};
use crate::domain::{
    base_model::{AskedPreprocessing, Interpolation, SourceTask},
    problem::quoted,
};

/// Time for all that is asked of the hub before a download.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest description of a repository, and largest `config.json`.
const JSON_BYTES: usize = 4 << 20;
/// The files that weights are in, the better ones first.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Files that say that weights are in several.
const INDEXES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

/// A model of a hub, as its repository's files describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubModel {
    pub architecture: String,
    pub source_task: SourceTask,
    pub preprocessing: AskedPreprocessing,
    pub license: Option<String>,
    /// URL of the weights at one commit.
    pub url: String,
    /// SHA-256 of the weights, lower-case hex, where the hub tells it.
    pub sha256: Option<String>,
}

/// Why a repository gives no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    #[error("the hub is turned off on this service (`--hub-offline`); upload the weights instead")]
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

/// The hub's description of a repository.
#[derive(Debug, Deserialize)]
struct Description {
    /// The commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Card {
    #[serde(default)]
    license: Option<String>,
    #[serde(default)]
    license_name: Option<String>,
}

/// timm's `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    architecture: Option<String>,
    num_classes: Option<u32>,
    #[serde(default)]
    pretrained_cfg: PretrainedConfig,
    /// transformers' instead.
    model_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct PretrainedConfig {
    tag: Option<String>,
    input_size: Option<[u32; 3]>,
    interpolation: Option<String>,
    crop_pct: Option<f64>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    license: Option<String>,
}

impl Outgoing {
    /// Reads what a repository says of its model.
    ///
    /// # Errors
    /// It says nothing, or nothing that can be used.
    pub async fn hub_model(&self, repository: &str, revision: &str) -> Result<HubModel, HubError> {
        let end = Instant::now() + PATIENCE;
        if self.args().hub_offline {
            return Err(HubError::Offline);
        }
        let (owner, _) = repository.split_once('/').unwrap_or_default();
        if !self.args().allows_owner(owner) {
            return Err(HubError::Owner(quoted(owner).into_owned()));
        }
        let asked = Asked {
            outgoing: self,
            repository,
            revision,
            end,
        };
        let revision =
            percent_encoding::utf8_percent_encode(revision, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("api/models/{repository}/revision/{revision}?blobs=true");
        let description: Description = asked.json(&path, "the hub's description").await?;
        let Description {
            sha,
            siblings,
            card,
        } = description;
        let weights = asked.weights(&siblings)?;
        let path = format!("{repository}/resolve/{sha}/config.json");
        let config: Config = asked.json(&path, "`config.json`").await?;
        let architecture = asked.architecture(&config)?;
        let pretrained = config.pretrained_cfg;
        let of_card = card.and_then(|card| match card.license.as_deref() {
            Some("other") => card.license_name.or(card.license),
            _ => card.license,
        });
        Ok(HubModel {
            architecture,
            source_task: SourceTask {
                name: "image classification".to_owned(),
                classes: config.num_classes.filter(|classes| *classes > 0),
                dataset: pretrained.tag.as_deref().and_then(dataset),
            },
            license: of_card.or_else(|| pretrained.license.clone()),
            preprocessing: preprocessing(pretrained),
            url: self.hub_url(&format!("{repository}/resolve/{sha}/{}", weights.rfilename)),
            sha256: weights.lfs.as_ref().and_then(|lfs| lfs.sha256.clone()),
        })
    }

    fn hub_url(&self, path: &str) -> String {
        let endpoint = self.args().hub_endpoint.trim_end_matches('/');
        format!("{endpoint}/{path}")
    }
}

/// A repository that is being asked for.
struct Asked<'a> {
    outgoing: &'a Outgoing,
    repository: &'a str,
    revision: &'a str,
    end: Instant,
}

impl Asked<'_> {
    fn unfit(&self, reason: &str) -> HubError {
        HubError::Unfit(format!("`{}` {reason}", self.repository))
    }

    /// Reads a small JSON file.
    async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        what: &str,
    ) -> Result<T, HubError> {
        let late = |_| HubError::Unreachable("no answer in time".to_owned());
        let bytes = timeout_at(self.end, self.bytes(path, what));
        let bytes = bytes.await.map_err(late)??;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.unfit(&format!("has {what} that cannot be read: {error}")))
    }

    async fn bytes(&self, path: &str, what: &str) -> Result<Vec<u8>, HubError> {
        let mut url = self.outgoing.hub_url(path);
        for _ in 0..=REDIRECTS {
            let target = self.outgoing.target(&url, Use::Download);
            let target = target.map_err(HubError::Refused)?;
            let sent = self.outgoing.send(Method::GET, &target, |request| request);
            let mut response = sent.await?;
            if let Some(next) = redirection(target.url(), &response) {
                url = next.map_err(|error| HubError::Unreachable(error.to_string()))?;
                continue;
            }
            self.check(&response, what)?;
            let mut bytes = Vec::new();
            let broken = |error| HubError::from(Unsent::from(error));
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > JSON_BYTES {
                    return Err(self.unfit(&format!("has {what} of more than {JSON_BYTES} bytes")));
                }
            }
            return Ok(bytes);
        }
        let message = format!("it redirects more than {REDIRECTS} times");
        Err(HubError::Unreachable(message))
    }

    fn check(&self, response: &reqwest::Response, what: &str) -> Result<(), HubError> {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let error = header("x-error-code");
        match response.status() {
            StatusCode::OK => Ok(()),
            _ if error == Some("GatedRepo") => Err(HubError::Gated(self.repository.to_owned())),
            StatusCode::NOT_FOUND if error == Some("EntryNotFound") => Err(self.unfit(&format!(
                "has no {what}; give the repository of an image model of timm's"
            ))),
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

    /// The file that the weights are in.
    fn weights<'s>(&self, siblings: &'s [Sibling]) -> Result<&'s Sibling, HubError> {
        let find = |name: &str| siblings.iter().find(|one| one.rfilename == name);
        if let Some(found) = WEIGHTS.iter().find_map(|name| find(name)) {
            return Ok(found);
        }
        if INDEXES.iter().any(|name| find(name).is_some()) {
            return Err(self.unfit(
                "has weights in several files, which are not joined here; join them to one `model.safetensors` and upload it",
            ));
        }
        Err(self.unfit(&format!(
            "has neither `{}` nor `{}`; give a repository with weights of PyTorch",
            WEIGHTS[0], WEIGHTS[1]
        )))
    }

    fn architecture(&self, config: &Config) -> Result<String, HubError> {
        match (&config.architecture, &config.model_type) {
            (Some(architecture), _) => Ok(architecture.clone()),
            (None, Some(kind)) => Err(self.unfit(&format!(
                "is a model of transformers (`{}`), whose names of tensors are not read yet; look for the same network under `timm/`",
                quoted(kind)
            ))),
            (None, None) => Err(self.unfit(
                "has a `config.json` without `architecture`; give the repository of an image model of timm's",
            )),
        }
    }
}

fn preprocessing(config: PretrainedConfig) -> AskedPreprocessing {
    AskedPreprocessing {
        input_size: config.input_size.map(|[_, height, _]| height),
        channels: config.input_size.map(|[channels, ..]| channels),
        crop_fraction: config.crop_pct,
        interpolation: config.interpolation.and_then(|name| match name.as_str() {
            "bilinear" => Some(Interpolation::Bilinear),
            "bicubic" => Some(Interpolation::Bicubic),
            _ => None,
        }),
        mean: config.mean,
        std: config.std,
    }
}

/// The data set that a tag of timm's names last, such as `a1_in1k` or `augreg_in21k_ft_in1k`.
fn dataset(tag: &str) -> Option<String> {
    let last = tag.rsplit('_').next()?;
    let name = match last {
        "in1k" => "ImageNet-1k",
        "in12k" => "ImageNet-12k",
        "in21k" | "in22k" => "ImageNet-21k",
        "lvd142m" => "LVD-142M",
        "lvd1689m" => "LVD-1689M",
        "laion2b" => "LAION-2B",
        "openai" => "OpenAI's pairs of images and texts",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_data_sets() {
        let of = |tag: &str| dataset(tag);
        assert_eq!(of("a1_in1k").as_deref(), Some("ImageNet-1k"));
        assert_eq!(of("augreg_in21k").as_deref(), Some("ImageNet-21k"));
        assert_eq!(of("augreg_in21k_ft_in1k").as_deref(), Some("ImageNet-1k"));
        assert_eq!(of("lvd142m").as_deref(), Some("LVD-142M"));
        assert_eq!(of("mine"), None);
    }
}
