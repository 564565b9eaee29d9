//! Problems of a request: how they are collected, and those of more than one subject.

use crate::{
    base_model::Layers,
    codes::{CONTRADICTION, UNKNOWN_LAYER},
    problem::{Code, Problem, suggestion},
};

/// The problems found so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, found: impl IntoIterator<Item = Problem>) {
        self.0.extend(found);
    }

    /// The value, or `None` after adding its problems.
    pub(super) fn note<T>(&mut self, result: Result<T, Vec<Problem>>) -> Option<T> {
        result.map_err(|found| self.add(found)).ok()
    }
}

/// Refuses if there is a problem.
///
/// # Errors
/// The problems.
pub(super) fn refuse(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// An option of `method.transfer` that has no effect or excludes another one.
pub(super) fn contradiction(option: &str, message: impl Into<String>) -> Problem {
    Problem::new(format!("method.transfer.{option}"), CONTRADICTION, message)
}

/// A problem for each name that is not known. `lacks` says who should have it: `this model has no
/// parameter`.
pub(super) fn unknown_names<'a>(
    names: impl IntoIterator<Item = &'a String>,
    known: impl Iterator<Item = &'a str> + Clone,
    (path, code, lacks): (&str, Code, &str),
) -> Vec<Problem> {
    let is_unknown = |name: &&String| !known.clone().any(|known| known == name.as_str());
    let problem = |name: &String| {
        let near = suggestion(name, known.clone());
        Problem::new(path, code, format!("{lacks} `{name}`; {near}"))
    };
    let unknown = names.into_iter().filter(is_unknown);
    unknown.map(problem).collect()
}

/// Layers that an option names, but that are not among those `left` after the cut.
pub(super) fn cut_away(what: &str, path: &str, left: &Layers) -> Problem {
    let (last, option) = (last_stage(left), path.rsplit('.').next().unwrap_or(path));
    let message = format!(
        "{what} is cut away: `cut` leaves nothing after `{last}`; take it out of `{option}` or cut later"
    );
    Problem::new(path, UNKNOWN_LAYER, message)
}

/// The name of the last stage before the cut.
pub(super) fn last_stage(left: &Layers) -> &str {
    left.stages.last().map_or("", |stage| stage.name.as_str())
}
