//! The problems of a manifest, each with its line, up to a number.

use super::super::codes;
use crate::domain::problem::{Code, Problem};

pub(super) struct Noted<'a> {
    /// The manifest's path in the archive.
    manifest: &'a str,
    max: u64,
    listed: Vec<Problem>,
    more: u64,
}

impl<'a> Noted<'a> {
    /// Lists at most `max` problems, but one at least.
    pub(super) fn new(manifest: &'a str, max: u64) -> Self {
        Self {
            manifest,
            max: max.max(1),
            listed: Vec::new(),
            more: 0,
        }
    }

    /// A problem of line `line` (from 1).
    pub(super) fn at(&mut self, line: u64, code: Code, message: impl Into<String>) {
        if self.listed.len() as u64 >= self.max {
            self.more += 1;
            return;
        }
        let mut problem = Problem::new(self.manifest, code, message);
        problem.line = Some(line);
        self.listed.push(problem);
    }

    /// A problem of the manifest as a whole.
    pub(super) fn whole(&mut self, code: Code, message: impl Into<String>) {
        self.listed.push(Problem::new(self.manifest, code, message));
    }

    /// All of them in the order of their lines; `Ok` when there is none.
    pub(super) fn finish(mut self) -> Result<(), Vec<Problem>> {
        self.listed.sort_by_key(|problem| problem.line);
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
