//! The body of `POST /v1/model_rankings`.

use std::cell::RefCell;

use serde_json::Value;

use crate::{
    fields::Fields,
    id::FileId,
    options::{Group, options, read_all, required},
    problem::Problem,
    ranking::CandidateOptions,
    rules::Id,
};

options! {
    /// A ranking of base models to make.
    pub struct RankingRequest {
        /// A validated data set, whose training split the models are scored on.
        training_file: FileId = required(Id),
        /// Which base models to rank; left out, all that are ready.
        candidates: CandidateOptions = Group,
    }
}

impl RankingRequest {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_problems_of_a_ranking_come_at_once() {
        let body = json!({
            "training_file": 1, "limit": 3,
            "candidates": {"models": [], "licenses": "MIT", "max_parameters": 0, "max_macs": -1, "name": 2},
        });
        let problems = RankingRequest::parse(&body).unwrap_err();
        let found: Vec<(&str, &str)> = problems
            .iter()
            .map(|one| (one.path.as_str(), one.code.as_str()))
            .collect();
        let expected = [
            ("training_file", "wrong_type"),
            ("candidates.models", "out_of_range"),
            ("candidates.licenses", "wrong_type"),
            ("candidates.max_parameters", "out_of_range"),
            ("candidates.max_macs", "out_of_range"),
            ("candidates.name", "unknown_field"),
            ("limit", "unknown_field"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn lists_of_candidates_hold_at_their_limit_and_not_one_past_it() {
        let body = |count: usize| {
            let names = vec!["m"; count];
            json!({"training_file": format!("file-{}", "0".repeat(32)), "candidates": {"models": names}})
        };
        assert!(RankingRequest::parse(&body(1_000)).is_ok());
        let problems = RankingRequest::parse(&body(1_001)).unwrap_err();
        assert_eq!(problems[0].code, "out_of_range");
    }
}
