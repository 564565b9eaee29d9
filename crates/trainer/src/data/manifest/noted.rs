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
    max: u64,
    listed: Vec<Problem>,
    more: u64,
}

impl<'a> Noted<'a> {
    /// Lists at most `max` problems, but one at least.
    pub(in crate::data) fn new(manifests: &'a [&'a str], max: u64) -> Self {
        Self {
            manifests,
            max: max.max(1),
            listed: Vec::new(),
            more: 0,
        }
    }

    /// A problem of a line.
    pub(in crate::data) fn at(
        &mut self,
        place: impl Into<Place>,
        code: Code,
        message: impl Into<String>,
    ) {
        if self.listed.len() as u64 >= self.max {
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
        self.listed
            .push(Problem::new(self.manifests[0], code, message));
    }

    /// All of them in the order of their lines; `Ok` when there is none.
    pub(in crate::data) fn finish(mut self) -> Result<(), Vec<Problem>> {
        self.listed
            .sort_by(|one, other| (&one.path, one.line).cmp(&(&other.path, other.line)));
        if self.more > 0 {
            let message = format!(
                "and {} more problems in other lines; fix these first",
                self.more
            );
            self.whole(codes::MORE_PROBLEMS, message);
        }
        if self.listed.is_empty() {
            Ok(())
        } else {
            Err(self.listed)
        }
    }
}
