//! Problems in what a user sent: where, of which kind, and what to do.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits;

/// A stable code for a kind of problem, listed in docs/errors.md.
pub type Code = &'static str;

/// Least length of a name that counts as a match when it is part of another name.
const WHOLE_WORD: usize = 4;

/// One problem. A request's problems are collected and answered together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A JSON path in the request (`method.transfer.freeze`), or a path inside an archive
    /// (`train/cats/7.jpg`).
    pub path: String,
    /// Line inside that file, from 1, if it has lines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u64>,
    /// A code of docs/errors.md.
    pub code: String,
    /// Says what is wrong, and what to do.
    pub message: String,
    /// Numbers of samples of a data set that it is about, some of them if there are many. They have
    /// thumbnails: `GET /v1/files/{id}/samples/{n}/thumbnail`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub samples: Vec<u64>,
}

impl Problem {
    pub fn new(path: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line: None,
            code: code.to_owned(),
            message: message.into(),
            samples: Vec::new(),
        }
    }
}

/// A text of a user, to be quoted in a message: its first characters, if it is long.
pub fn quoted(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(limits::QUOTED_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A message about this machine, for somebody who must not know its folders: the last part of each
/// absolute path. Routes of the API stay.
pub fn without_paths(message: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "`'\"()[]{}<>,;:=".contains(c);
    let mut out = String::with_capacity(message.len());
    for piece in message.split_inclusive(ends) {
        let (path, end) = match piece.char_indices().next_back() {
            Some((at, c)) if ends(c) => piece.split_at(at),
            _ => (piece, ""),
        };
        let is_path = path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/v1/");
        match path[..].trim_end_matches('/').rsplit_once('/') {
            Some((folder, name)) if is_path && !folder.is_empty() => {
                out.push_str("…/");
                out.push_str(name);
            }
            _ => out.push_str(path),
        }
        out.push_str(end);
    }
    out
}

/// The names nearest to `wrong`, best first, at most three: for "did you mean". A name that
/// contains `wrong`, or is contained in it, comes before names that are only spelled alike.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| {
            let (wrong, lower) = (wrong.to_lowercase(), name.to_lowercase());
            let holds = wrong.len().min(lower.len()) >= WHOLE_WORD
                && (lower.contains(&wrong) || wrong.contains(&lower));
            let alike = strsim::jaro_winkler(&wrong, &lower);
            (alike + f64::from(u8::from(holds)), name)
        })
        .filter(|(score, _)| *score > 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `did you mean a, b or c?`, or the list of names when none is near.
pub fn suggestion<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let near = nearest(wrong, names.clone());
    if !near.is_empty() {
        return format!("did you mean {}?", one_of(&near));
    }
    let all: Vec<&str> = names.into_iter().take(12).collect();
    if all.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there is {}", one_of(&all))
    }
}

/// `` `a` ``, `` `a` or `b` ``, `` `a`, `b` or `c` ``.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [init @ .., last] => {
            let init: Vec<String> = init.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", init.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_machine_are_left_out() {
        for (message, shown) in [
            (
                "cannot read `/var/tmp/rehead-work/x/plan.json`: permission denied",
                "cannot read `…/plan.json`: permission denied",
            ),
            ("no /usr/lib/x.so, nor /opt/a/b/", "no …/x.so, nor …/b"),
            ("path=/home/me/a.txt:7", "path=…/a.txt:7"),
            (
                "see `GET /v1/files/{id}/report`",
                "see `GET /v1/files/{id}/report`",
            ),
            ("and/or 3/4 of http://a/b, /", "and/or 3/4 of http://a/b, /"),
            ("é/ü `/ä/ö`", "é/ü `…/ö`"),
            ("", ""),
        ] {
            assert_eq!(without_paths(message), shown);
        }
    }

    #[test]
    fn suggestions_are_near_first_and_never_empty() {
        assert_eq!(nearest("layer5", ["stem", "layer1", "layer4"])[0], "layer1");
        assert_eq!(
            suggestion("freze", ["freeze", "head"]),
            "did you mean `freeze`?"
        );
        assert_eq!(
            suggestion("zzz", ["freeze", "head"]),
            "there is `freeze` or `head`"
        );
        assert_eq!(suggestion("zzz", []), "there is none yet");
        let networks = [
            "efficientnet_b0",
            "efficientnet_b1",
            "tf_efficientnet_lite0",
        ];
        assert_eq!(nearest("efficientnet_lite0", networks)[0], networks[2]);
    }
}
