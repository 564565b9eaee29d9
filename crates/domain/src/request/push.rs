//! The body of `POST /v1/models/{id}/push`.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::base_model::Repository;
use crate::{
    base_model::Phrase,
    codes::INVALID_VALUE,
    fields::Fields,
    limits::PHRASE_CHARACTERS,
    options::{Optional, Or, options, read_all, required},
    problem::Problem,
    rules::{Components, Flag, Invalid, Parsed, Rule, Text},
};

options! {
    /// Where on the hub a model goes.
    pub struct PushRequest {
        /// Repository of the hub, such as `my-org/flowers`. One that does not exist is created; one
        /// that does gets a commit.
        repository: String = required(Repository),
        /// Branch that gets the commit; one that does not exist begins at `main`.
        branch: String = Or("main".to_owned(), Branch),
        /// True to create a private repository. One that exists stays as it is.
        private: bool = Or(false, Flag),
        /// First line of the commit; by default it names the model.
        message: Option<String> = Optional(Phrase),
    }
}

impl PushRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// All problems in it.
    pub fn parse(body: &Value) -> Result<Self, Vec<Problem>> {
        let problems = RefCell::default();
        let request = Fields::new(body, "", &problems).and_then(read_all);
        let problems = problems.into_inner();
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// The name of a branch.
struct Branch;

impl Rule<String> for Branch {
    fn read(&self, value: &Value) -> Parsed<String> {
        let text = Text(PHRASE_CHARACTERS).read(value)?;
        let is_part =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
        if !text.split(['.', '_', '/', '-']).all(is_part) {
            let message = "must be letters and digits, with single `.`, `_`, `/` or `-` between them, such as `v1.0`";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(text)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let mut schema = Text(PHRASE_CHARACTERS).schema(components);
        schema["pattern"] = json!("^[A-Za-z0-9]+([._/-][A-Za-z0-9]+)*$");
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(body: &Value) -> Vec<(String, String)> {
        let problems = PushRequest::parse(body).unwrap_err().into_iter();
        problems.map(|one| (one.path, one.code)).collect()
    }

    #[test]
    fn a_push_needs_no_more_than_a_repository() {
        let request = PushRequest::parse(&json!({"repository": "my-org/flowers"})).unwrap();
        assert_eq!(request.branch, "main");
        assert!(!request.private && request.message.is_none());
    }

    #[test]
    fn all_problems_of_a_push_come_at_once() {
        let body = json!({
            "repository": "flowers", "branch": "a..b", "private": "yes", "message": "", "revision": "main",
        });
        let expected = [
            ("repository", "invalid_value"),
            ("branch", "invalid_value"),
            ("private", "wrong_type"),
            ("message", "out_of_range"),
            ("revision", "unknown_field"),
        ];
        let expected = expected.map(|(path, code)| (path.to_owned(), code.to_owned()));
        assert_eq!(codes(&body), expected);
        assert_eq!(codes(&json!({}))[0].1, "missing_field");
    }

    #[test]
    fn branches_hold_at_their_limit_and_not_one_past_it() {
        let body = |branch: &str| json!({"repository": "a/b", "branch": branch});
        for good in ["main", "v1.0", "refs/pr/1", &"b".repeat(PHRASE_CHARACTERS)] {
            assert!(PushRequest::parse(&body(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "-a",
            "a b",
            "a?b",
            "ä",
            &"b".repeat(PHRASE_CHARACTERS + 1),
        ] {
            assert_eq!(codes(&body(bad)).len(), 1, "{bad}");
        }
    }
}
