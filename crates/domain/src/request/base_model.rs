//! The body of `POST /v1/base_models`.

use std::cell::RefCell;

use serde_json::{Value, json};

use crate::{
    base_model::{AskedPreprocessing, Phrase, SourceTask},
    codes::{CONTRADICTION, INVALID_VALUE, MISSING_FIELD},
    fields::Fields,
    id::FileId,
    limits::{MODEL_ID_CHARACTERS, URL_CHARACTERS},
    options::{Group, Optional, RequiredGroup, options, read_all, required},
    problem::Problem,
    rules::{Components, Id, Invalid, Parsed, Rule, Text},
};

options! {
    /// A base model to register.
    pub struct BaseModelRequest {
        /// Id for use in jobs: letters, digits, `-`, `_`, `.`, a letter or digit first. Not one
        /// that begins as those of checkpoints, `ftckpt_`.
        id: String = required(ModelId),
        /// Network, by timm's name, such as `tf_efficientnet_lite0` or `resnet18`.
        architecture: String = required(Phrase),
        weights: Weights = RequiredGroup,
        /// Task that the weights were trained for; image classification by default.
        source_task: Option<SourceTask> = Group,
        /// Preprocessing of images. Fields left out follow from the weights, then from the
        /// architecture.
        preprocessing: Option<AskedPreprocessing> = Group,
        /// License of the weights, such as `Apache-2.0`.
        license: Option<String> = Optional(Phrase),
    }
}

options! {
    /// Source of the weights: a `file`, or a `url`.
    pub struct Weights {
        /// A file uploaded with purpose `weights`: safetensors, or a PyTorch `.pth` of tensors.
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
        let weights = request.as_ref().map(|request| &request.weights);
        problems.extend(weights.and_then(Weights::contradiction));
        request.filter(|_| problems.is_empty()).ok_or(problems)
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
    fn numbers_per_channel_are_as_many_as_the_channels() {
        let weights = json!({"file": "file-00000000000000000000000000000000"});
        let body = json!({
            "id": "a", "architecture": "b", "weights": weights, "preprocessing": {"channels": 1, "mean": [0.5, 0.5]},
        });
        let found = expected(&[("preprocessing.mean", "invalid_value")]);
        assert_eq!(problems(&body), found);
    }
}
