//! The body of `POST /v1/files` that names a data set of a hub.

use std::cell::RefCell;

use serde_json::Value;

use super::base_model::Repository;
use crate::{
    base_model::Phrase,
    fields::Fields,
    options::{Optional, options, read_all, required},
    problem::Problem,
    rules::Word,
    words,
};

words! {
    /// The purpose of a data set.
    pub enum DatasetPurpose {
        FineTune = "fine-tune",
    }
}

options! {
    /// A data set of a hub, which a worker downloads.
    pub struct HubDatasetRequest {
        /// Repository of a data set on the Hugging Face hub, such as `org/pets`.
        hub: String = required(Repository),
        /// Branch, tag or commit of the repository; `main` by default.
        revision: Option<String> = Optional(Phrase),
        /// Configuration of the data set, where it has several.
        config: Option<String> = Optional(Phrase),
        /// The only split to download; by default those for training, validation and test.
        split: Option<String> = Optional(Phrase),
        /// `fine-tune`: a data set.
        purpose: Option<DatasetPurpose> = Optional(Word),
    }
}

impl HubDatasetRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Every problem in it, each with its path.
    pub fn parse(body: &Value) -> Result<Self, Vec<Problem>> {
        let problems = RefCell::default();
        let request: Option<Self> = Fields::new(body, "", &problems).and_then(read_all);
        let problems = problems.into_inner();
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_data_set_needs_no_more_than_a_name() {
        let request = HubDatasetRequest::parse(&json!({"hub": "org/pets"})).unwrap();
        assert_eq!(request.hub, "org/pets");
        assert!(request.revision.is_none() && request.config.is_none() && request.split.is_none());
        let body = json!({
            "hub": "org/pets", "revision": "v1", "config": "small", "split": "train", "purpose": "fine-tune",
        });
        assert_eq!(
            HubDatasetRequest::parse(&body).unwrap().split.as_deref(),
            Some("train")
        );
    }

    #[test]
    fn all_problems_of_a_data_set_come_at_once() {
        let body = json!({"hub": "pets", "revision": 1, "config": "", "purpose": "weights", "url": "https://a"});
        let problems = HubDatasetRequest::parse(&body).unwrap_err().into_iter();
        let found: Vec<(String, String)> = problems.map(|one| (one.path, one.code)).collect();
        let expected = [
            ("hub", "invalid_value"),
            ("revision", "wrong_type"),
            ("config", "out_of_range"),
            ("purpose", "invalid_value"),
            ("url", "unknown_field"),
        ];
        assert_eq!(
            found,
            expected.map(|(path, code)| (path.to_owned(), code.to_owned()))
        );
    }
}
