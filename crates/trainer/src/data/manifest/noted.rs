//! The problems of a manifest, each with its line, up to a number.

use super::super::codes;
use crate::domain::problem::{Code, Problem};

/// A line of a manifest, or of one of several tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::data) struct Place {
    /// Its number among the tables.
    pub(in crate::data) manifest: usize,
    /// From 1.
    pub(in crate::data) line: u64,
}

impl From<u64> for Place {
    fn from(line: u64) -> Self {
        Self { manifest: 0, line }
    }
}

pub(in crate::data) struct Noted<'a> {
    /// Paths of the manifests in the archive; one at least.
    manifests: &'a [&'a str],
    max: usize,
    listed: Vec<Problem>,
    /// Those of all rows together, which there are few of.
    whole: Vec<Problem>,
    more: usize,
}

impl<'a> Noted<'a> {
    /// Lists at most `max` problems, but one at least.
    pub(in crate::data) fn new(manifests: &'a [&'a str], max: u64) -> Self {
        Self {
            manifests,
            max: usize::try_from(max).unwrap_or(usize::MAX).max(1),
            listed: Vec::new(),
            whole: Vec::new(),
            more: 0,
        }
    }

    /// The path of the first manifest.
    pub(in crate::data) fn path(&self) -> &'a str {
        self.manifests[0]
    }

    /// A problem of a line.
    pub(in crate::data) fn at(
        &mut self,
        place: impl Into<Place>,
        code: Code,
        message: impl Into<String>,
    ) {
        if self.listed.len() >= self.max {
            self.more += 1;
            return;
        }
        let place = place.into();
        let mut problem = Problem::new(self.manifests[place.manifest], code, message);
        problem.line = Some(place.line);
        self.listed.push(problem);
    }

    /// A problem of all rows together.
    pub(in crate::data) fn whole(&mut self, code: Code, message: impl Into<String>) {
        self.whole
            .push(Problem::new(self.manifests[0], code, message));
    }

    /// All of them in the order of their lines, behind those of all rows, and the number of those
    /// that are not listed; `Ok` when there is none.
    pub(in crate::data) fn finish(self) -> Result<(), Vec<Problem>> {
        let Self {
            mut listed,
            mut whole,
            mut more,
            ..
        } = self;
        listed.sort_by(|one, other| (&one.path, one.line).cmp(&(&other.path, other.line)));
        let room = self.max.saturating_sub(whole.len());
        more += listed.len().saturating_sub(room);
        listed.truncate(room);
        whole.append(&mut listed);
        if more > 0 {
            let message = format!("and {more} more problems in other lines; fix these first");
            whole.push(Problem::new(
                self.manifests[0],
                codes::MORE_PROBLEMS,
                message,
            ));
        }
        if whole.is_empty() { Ok(()) } else { Err(whole) }
    }
}
