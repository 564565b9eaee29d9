//! The body of `POST /v1/base_models`.

use std::cell::RefCell;

use serde_json::{Value, json};

use crate::{
    base_model::{AskedPreprocessing, Phrase, SourceTask},
    codes::{CONTRADICTION, INVALID_VALUE, MISSING_FIELD},
    fields::Fields,
    id::FileId,
    limits::{MODEL_ID_CHARACTERS, PHRASE_CHARACTERS, URL_CHARACTERS},
    options::{Group, Optional, options, read_all},
    problem::Problem,
    ranking::AUTO,
    rules::{Components, Id, Invalid, Parsed, Rule, Text},
};

options! {
    /// A base model to register: a repository of a hub, or weights.
    pub struct BaseModelRequest {
        /// Repository of timm or transformers on the Hugging Face hub, such as
        /// `timm/resnet50.a1_in1k`, whose files say all that is left out here.
        hub: Option<String> = Optional(Repository),
        /// Branch, tag or commit of the repository; `main` by default.
        revision: Option<String> = Optional(Phrase),
        /// Id for use in jobs: letters, digits, `-`, `_`, `.`, a letter or digit first. Not one
        /// that begins as those of checkpoints, `ftckpt_`. The repository's name by default.
        id: Option<String> = Optional(ModelId),
        /// Network, by timm's name, such as `tf_efficientnet_lite0` or `resnet18`.
        architecture: Option<String> = Optional(Phrase),
        weights: Option<Weights> = Group,
        /// Task that the weights were trained for; image classification by default.
        source_task: Option<SourceTask> = Group,
        /// Preprocessing of images. Fields left out follow from the repository or the weights, then
        /// from the architecture.
        preprocessing: Option<AskedPreprocessing> = Group,
        /// License of the weights, such as `Apache-2.0`.
        license: Option<String> = Optional(Phrase),
    }
}

options! {
    /// Source of the weights: a `file`, or a `url`.
    pub struct Weights {
        /// A file uploaded with purpose `weights`: safetensors, a PyTorch `.pth` of tensors, or a
        /// tar of several such files.
        file: Option<FileId> = Optional(Id),
        /// URL of such a file, of a host that the operator allows (`--download-hosts`).
        url: Option<String> = Optional(Text(URL_CHARACTERS)),
        /// SHA-256 that the file of the URL must have, in hex.
        sha256: Option<String> = Optional(Text(SHA256_CHARACTERS)),
    }
}

/// Hex digits of a SHA-256.
const SHA256_CHARACTERS: usize = 64;

impl Weights {
    /// The problem of fields that do not go together, if there is one.
    fn contradiction(&self) -> Option<Problem> {
        let (code, message) = match (&self.file, &self.url, &self.sha256) {
            (None, None, _) => (
                MISSING_FIELD,
                "is required: the id of a file with purpose `weights`, or a `url` instead of it",
            ),
            (Some(_), Some(_), _) => (CONTRADICTION, "stands beside `url`; leave one of them out"),
            (Some(_), None, Some(_)) => (
                CONTRADICTION,
                "stands beside `sha256`, which is for a `url`; leave it out",
            ),
            _ => return None,
        };
        Some(Problem::new("weights.file", code, message))
    }
}

impl BaseModelRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Every problem in it, each with its path.
    pub fn parse(body: &Value) -> Result<Self, Vec<Problem>> {
        let problems = RefCell::default();
        let request: Option<Self> = Fields::new(body, "", &problems).and_then(read_all);
        let mut problems = problems.into_inner();
        let asked = request
            .as_ref()
            .and_then(|request| request.preprocessing.as_ref());
        problems.extend(
            asked
                .into_iter()
                .flat_map(AskedPreprocessing::contradictions),
        );
        let are_read = problems.iter().all(|one| !one.path.starts_with("weights"));
        let weights = request.as_ref().filter(|_| are_read);
        let weights = weights.and_then(|request| request.weights.as_ref());
        problems.extend(weights.and_then(Weights::contradiction));
        problems.extend(problems_of_source(body));
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// Problems of a request that names no repository and leaves out what only a repository tells, or
/// names one and brings weights.
fn problems_of_source(body: &Value) -> Vec<Problem> {
    let Value::Object(fields) = body else {
        return Vec::new();
    };
    let is_given = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    let problem = |name: &str, code, message: &str| Problem::new(name, code, message);
    if is_given("hub") {
        let message = "stands beside `hub`, whose repository has weights; leave one of them out";
        return Vec::from_iter(
            is_given("weights").then(|| problem("weights", CONTRADICTION, message)),
        );
    }
    let message = "is required, unless `hub` names a repository that tells it";
    let missing = ["id", "architecture", "weights"].into_iter();
    let missing = missing.filter(|name| !is_given(name));
    let mut problems: Vec<Problem> = missing
        .map(|name| problem(name, MISSING_FIELD, message))
        .collect();
    if is_given("revision") {
        let message = "is a revision of a repository, and there is no `hub`; leave it out";
        problems.push(problem("revision", CONTRADICTION, message));
    }
    problems
}

/// The name of a hub's repository: owner and name.
pub(super) struct Repository;

impl Rule<String> for Repository {
    fn read(&self, value: &Value) -> Parsed<String> {
        let text = Text(PHRASE_CHARACTERS).read(value)?;
        let is_name = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(plain)
                && !part.contains("..")
        };
        let parts = text.split_once('/');
        if !parts.is_some_and(|(owner, name)| is_name(owner) && is_name(name)) {
            let message = "must be an owner and a name, such as `timm/resnet50.a1_in1k`";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(text)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let mut schema = Text(PHRASE_CHARACTERS).schema(components);
        schema["pattern"] = json!("^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$");
        schema
    }
}

struct ModelId;

impl Rule<String> for ModelId {
    fn read(&self, value: &Value) -> Parsed<String> {
        let id = Text(MODEL_ID_CHARACTERS).read(value)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if id.is_empty() || !id.chars().all(plain) {
            let message =
                format!("must be 1 to {MODEL_ID_CHARACTERS} letters, digits, `-`, `_` or `.`");
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let message = "must begin with a letter or digit";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        if id == AUTO {
            let message = "must not be `auto`, which leaves the choice of a model to the service";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        if id.starts_with("ftckpt_") {
            let message = "must not begin with `ftckpt_`, as ids of checkpoints do";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(id)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let mut schema = Text(MODEL_ID_CHARACTERS).schema(components);
        schema["pattern"] = json!("^[A-Za-z0-9][A-Za-z0-9._-]*$");
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path and code of each problem.
    fn problems(body: &Value) -> Vec<(String, String)> {
        let problems = BaseModelRequest::parse(body).unwrap_err();
        problems
            .into_iter()
            .map(|one| (one.path, one.code))
            .collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = pairs
            .iter()
            .map(|(path, code)| ((*path).to_owned(), (*code).to_owned()));
        owned.collect()
    }

    #[test]
    fn all_problems_of_a_base_model_come_at_once() {
        let body = json!({
            "id": "a b", "architecture": "", "weights": {"file": "x", "fiel": 1}, "licence": "MIT",
            "source_task": {"classes": -1},
            "preprocessing": {"channels": 2, "input_size": 31, "interpolation": "nearest", "std": [0]},
        });
        let found = expected(&[
            ("id", "invalid_value"),
            ("architecture", "out_of_range"),
            ("weights.file", "invalid_value"),
            ("weights.fiel", "unknown_field"),
            ("source_task.name", "missing_field"),
            ("source_task.classes", "out_of_range"),
            ("preprocessing.input_size", "out_of_range"),
            ("preprocessing.channels", "out_of_range"),
            ("preprocessing.interpolation", "invalid_value"),
            ("preprocessing.std", "out_of_range"),
            ("licence", "unknown_field"),
        ]);
        assert_eq!(problems(&body), found);
        let missing = expected(&[
            ("id", "missing_field"),
            ("architecture", "missing_field"),
            ("weights", "missing_field"),
        ]);
        assert_eq!(problems(&json!({})), missing);
        let revision = problems(&json!({"revision": "main"}));
        assert_eq!(revision[3..], expected(&[("revision", "contradiction")]));
        assert_eq!(problems(&json!([])), expected(&[("", "wrong_type")]));
    }

    #[test]
    fn texts_hold_at_their_limits_and_not_one_past_them() {
        let weights = json!({"file": "file-00000000000000000000000000000000"});
        for (field, limit) in [("id", 64), ("architecture", 128), ("license", 128)] {
            let body = |length: usize| {
                let mut body = json!({"id": "a", "architecture": "b", "weights": weights});
                body[field] = json!("x".repeat(length));
                body
            };
            assert!(BaseModelRequest::parse(&body(1)).is_ok());
            assert!(BaseModelRequest::parse(&body(limit)).is_ok());
            assert_eq!(
                problems(&body(limit + 1)),
                expected(&[(field, "out_of_range")])
            );
            assert_eq!(problems(&body(0)).len(), 1, "{field}");
        }
    }

    #[test]
    fn weights_are_a_file_or_a_url() {
        let of = |weights: Value| json!({"id": "a", "architecture": "b", "weights": weights});
        let file = format!("file-{}", "0".repeat(32));
        let url = "https://example.org/a.pth";
        for good in [
            json!({"file": file}),
            json!({"url": url}),
            json!({"url": url, "sha256": "0"}),
        ] {
            assert!(BaseModelRequest::parse(&of(good)).is_ok());
        }
        for (bad, code) in [
            (json!({}), "missing_field"),
            (json!({"file": file, "url": url}), "contradiction"),
            (json!({"file": file, "sha256": "0"}), "contradiction"),
        ] {
            assert_eq!(problems(&of(bad)), expected(&[("weights.file", code)]));
        }
    }

    #[test]
    fn a_repository_stands_for_everything_else() {
        let repository = BaseModelRequest::parse(&json!({"hub": "timm/resnet50.a1_in1k"}));
        assert_eq!(repository.unwrap().hub.unwrap(), "timm/resnet50.a1_in1k");
        let all = json!({
            "hub": "a/b", "revision": "v1", "id": "mine", "architecture": "resnet18", "license": "MIT",
            "preprocessing": {"input_size": 96},
        });
        assert!(BaseModelRequest::parse(&all).is_ok());
        let file = json!({"file": format!("file-{}", "0".repeat(32))});
        let both = json!({"hub": "a/b", "weights": file});
        assert_eq!(problems(&both), expected(&[("weights", "contradiction")]));
        for hub in [
            "",
            "resnet50",
            "a/b/c",
            "/b",
            "a/",
            "../b",
            "a/..",
            "a/b?c",
            "a/.b",
            "-a/b",
            "a/b..c",
            "https://huggingface.co/a/b",
        ] {
            assert_eq!(
                problems(&json!({ "hub": hub })),
                expected(&[("hub", "invalid_value")]),
                "{hub}"
            );
        }
        let long = |length: usize| json!({"hub": format!("a/{}", "b".repeat(length - 2))});
        assert!(BaseModelRequest::parse(&long(128)).is_ok());
        assert_eq!(problems(&long(129)), expected(&[("hub", "out_of_range")]));
    }

    #[test]
    fn numbers_per_channel_are_as_many_as_the_channels() {
        let weights = json!({"file": "file-00000000000000000000000000000000"});
        let body = json!({
            "id": "a", "architecture": "b", "weights": weights, "preprocessing": {"channels": 1, "mean": [0.5, 0.5]},
        });
        let found = expected(&[("preprocessing.mean", "invalid_value")]);
        assert_eq!(problems(&body), found);
    }
}
