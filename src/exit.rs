//! Exit codes of the command line, in one table. `rehead --help` and docs/cli.md show it.

use std::{fmt::Write as _, process::ExitCode};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unavailable = 5,
    Unauthorized = 6,
}

/// Every code and its meaning.
pub const MEANINGS: [(Exit, &str); 7] = [
    (Exit::Done, "It is done"),
    (
        Exit::Failed,
        "The job that was watched failed or was cancelled; or an error without a code of its own",
    ),
    (Exit::Usage, "The command line is wrong"),
    (Exit::NotFound, "There is no such job, file or model"),
    (
        Exit::Refused,
        "The service refuses the request or the data: change them",
    ),
    (
        Exit::Unavailable,
        "The service or its database cannot be reached, or has no room now: try again",
    ),
    (
        Exit::Unauthorized,
        "The API key is missing, wrong or not allowed to do this",
    ),
];

impl Exit {
    /// The code of an error: that of a `Coded` among its causes.
    pub fn of(error: &anyhow::Error) -> Self {
        let coded = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<Coded>().map(|coded| coded.exit)
        };
        error.chain().find_map(coded).unwrap_or(Self::Failed)
    }

    /// The code of a response that is no success.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Unauthorized,
            404 => Self::NotFound,
            408 | 429 | 500.. => Self::Unavailable,
            _ => Self::Refused,
        }
    }

    /// An error with this code.
    pub fn error(self, text: impl Into<String>) -> anyhow::Error {
        let text = text.into();
        anyhow::Error::new(Coded { exit: self, text })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Coded {
    exit: Exit,
    text: String,
}

/// The table as help shows it.
pub fn help() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for (exit, meaning) in MEANINGS {
        let _ = writeln!(text, "  {}  {meaning}", exit as u8);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_of_an_error_survives_its_context() {
        let error = Exit::NotFound.error("there is no job");
        let error = Err::<(), _>(error).context("cannot watch").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::NotFound);
        assert_eq!(format!("{error:#}"), "cannot watch: there is no job");
        assert_eq!(Exit::of(&anyhow::anyhow!("x")), Exit::Failed);
    }

    #[test]
    fn statuses_have_the_code_of_their_remedy() {
        for (status, exit) in [
            (400, Exit::Refused),
            (401, Exit::Unauthorized),
            (403, Exit::Unauthorized),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (422, Exit::Refused),
            (429, Exit::Unavailable),
            (500, Exit::Unavailable),
            (507, Exit::Unavailable),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }

    #[test]
    fn codes_are_numbered_in_order() {
        for (index, (exit, _)) in MEANINGS.iter().enumerate() {
            assert_eq!(*exit as usize, index);
        }
    }
}
