//! Reads a JSON object field by field and collects every problem, unlike serde, which stops at the
//! first.
//!
//! A [`Rule`](crate::rules::Rule) checks one value and says what it expected; [`Fields`] adds where
//! the value is.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::{
    codes::{MISSING_FIELD, NOT_AVAILABLE, UNKNOWN_FIELD, WRONG_TYPE},
    limits,
    problem::{Code, Problem, quoted, suggestion},
    rules::{Invalid, Parsed, kind},
};

/// An object that is being read.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    known: RefCell<Vec<&'static str>>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    /// Starts to read the object `value` at `path`; adds a problem and returns `None` if it is not
    /// an object.
    pub fn new(value: &'a Value, path: &str, problems: &'a RefCell<Vec<Problem>>) -> Option<Self> {
        let Value::Object(object) = value else {
            let place = if path.is_empty() { "the body" } else { path };
            let message = format!("{place} must be a JSON object, not {}", kind(value));
            problems
                .borrow_mut()
                .push(Problem::new(path, WRONG_TYPE, message));
            return None;
        };
        Some(Self {
            object,
            path: path.to_owned(),
            known: RefCell::default(),
            problems,
        })
    }

    /// The path of a field of this object.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub fn problem(&self, name: &str, code: Code, message: impl Into<String>) {
        self.problems
            .borrow_mut()
            .push(Problem::new(self.path(name), code, message));
    }

    /// The raw field; `null` counts as left out.
    pub fn get(&self, name: &'static str) -> Option<&'a Value> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// An optional field. If it is invalid, adds a problem and returns `None`.
    pub fn optional<T>(&self, name: &'static str, read: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        let refuse = |invalid: Invalid| {
            let message = format!("{} {}", self.path(name), invalid.message);
            self.problem(name, invalid.code, message);
        };
        read(self.get(name)?).map_err(refuse).ok()
    }

    /// A required field. If it is missing or invalid, adds a problem and returns `None`.
    pub fn required<T>(&self, name: &'static str, read: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        self.check_given(name)?;
        self.optional(name, read)
    }

    /// Adds a problem and returns `None` if a required field is missing.
    fn check_given(&self, name: &'static str) -> Option<&'a Value> {
        let given = self.get(name);
        if given.is_none() {
            self.problem(name, MISSING_FIELD, "is required");
        }
        given
    }

    /// A nested object that must be there. If it is missing, adds a problem.
    pub fn required_object(&self, name: &'static str) -> Option<Fields<'a>> {
        Fields::new(self.check_given(name)?, &self.path(name), self.problems)
    }

    /// A nested object, if it is there.
    pub fn object(&self, name: &'static str) -> Option<Fields<'a>> {
        Fields::new(self.get(name)?, &self.path(name), self.problems)
    }

    /// A field that this version does not act on: only values that change nothing are accepted.
    pub fn neutral(&self, name: &'static str, neutral: &Value) {
        if self.get(name).is_some_and(|value| value != neutral) {
            let path = self.path(name);
            let message =
                format!("{path} is not available in this version; leave it out or give {neutral}");
            self.problem(name, NOT_AVAILABLE, message);
        }
    }

    /// Adds a problem for every field that was not asked for: one each, up to a limit, past which
    /// another one counts them. Finding near names takes time that a hostile body would multiply.
    pub fn finish(self) {
        let known = self.known.borrow();
        let names = self.object.keys();
        let mut unknown: Vec<&String> = names
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        if unknown.len() > limits::PROBLEMS {
            let count = unknown.len();
            let message = format!("has {count} unknown fields; see /docs for those it may have");
            let problem = Problem::new(&self.path, UNKNOWN_FIELD, message);
            self.problems.borrow_mut().push(problem);
            unknown.truncate(limits::PROBLEMS - 1);
        }
        for name in unknown {
            let name = &quoted(name);
            let near = suggestion(name, known.iter().copied());
            let message = format!("unknown field `{}`; {near}", self.path(name));
            self.problem(name, UNKNOWN_FIELD, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        codes::{MISSING_FIELD, OUT_OF_RANGE},
        rules::{Integer, Rule, Text, number},
    };

    /// 100,000 unknown fields were answered by 20 MB after seconds.
    #[test]
    fn many_unknown_fields_are_listed_up_to_a_limit() {
        let problems = RefCell::default();
        let names = (0..10_000).map(|i| (format!("{i}{}", "x".repeat(500)), json!(1)));
        let body = Value::Object(names.collect());
        Fields::new(&body, "method", &problems).unwrap().finish();
        let problems = problems.into_inner();
        assert_eq!(problems.len(), limits::PROBLEMS);
        assert!(problems.iter().all(|problem| problem.message.len() < 400));
        assert_eq!(problems[0].path, "method");
        assert!(problems[0].message.starts_with("has 10000 unknown fields"));
    }

    #[test]
    fn unknown_fields_at_the_limit_are_all_listed() {
        let problems = RefCell::default();
        let names = (0..limits::PROBLEMS).map(|i| (i.to_string(), json!(1)));
        let body = Value::Object(names.collect());
        Fields::new(&body, "", &problems).unwrap().finish();
        let paths: Vec<String> = problems.into_inner().into_iter().map(|p| p.path).collect();
        let all: Vec<String> = (0..limits::PROBLEMS).map(|i| i.to_string()).collect();
        assert_eq!(paths, all);
    }

    #[test]
    fn all_problems_come_at_once_with_their_paths() {
        let problems = RefCell::default();
        let body = json!({"epochs": 0, "rate": "NaN", "nmae": 1});
        let fields = Fields::new(&body, "method", &problems).unwrap();
        fields.optional::<u64>("epochs", |value| Integer(1..=10).read(value));
        fields.optional("rate", |value| number(0.0..=1.0).read(value));
        fields.required("name", |value| Text(3).read(value));
        fields.finish();
        let found: Vec<(String, String)> = problems
            .into_inner()
            .into_iter()
            .map(|p| (p.path, p.code))
            .collect();
        let expected = [
            ("method.epochs", OUT_OF_RANGE),
            ("method.rate", WRONG_TYPE),
            ("method.name", MISSING_FIELD),
            ("method.nmae", UNKNOWN_FIELD),
        ];
        assert_eq!(
            found,
            expected.map(|(path, code)| (path.to_owned(), code.to_owned()))
        );
    }
}
