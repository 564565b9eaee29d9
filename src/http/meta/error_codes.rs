//! `GET /v1/meta/error_codes`: docs/errors.md, read when the first request asks for it. A test
//! holds that page and the source equal.

use std::sync::LazyLock;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{db::Slice, http::api::page::List};

const PAGE: &str = include_str!("../../../docs/errors.md");
static CODES: LazyLock<Vec<ErrorCode>> = LazyLock::new(|| read(PAGE));

/// A code of `error.code`, of a problem in a report, or of a job's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorCode {
    /// The code, and the part of docs/errors.md that lists it.
    id: String,
    /// `error_code`.
    object: &'static str,
    code: String,
    /// Where it occurs, such as `Requests`, `Data sets` or `Jobs`.
    context: String,
    /// Statuses of answers with this code; empty where it is part of a report or of a job's error.
    statuses: Vec<u16>,
    meaning: String,
    what_to_do: String,
    /// For codes of failed jobs: whether the job gets another attempt.
    another_attempt: Option<String>,
}

/// List error codes
///
/// The table of docs/errors.md: each code with its statuses, its meaning and what to do.
#[utoipa::path(get, path = "/v1/meta/error_codes", tag = "service", operation_id = "list_error_codes",
    responses((status = 200, body = List<ErrorCode>)))]
pub(crate) async fn list() -> axum::Json<List<ErrorCode>> {
    let slice = Slice {
        rows: CODES.clone(),
        has_more: false,
    };
    List::of(slice, |code| code, |code| code.id.clone())
}

/// Reads the page's tables. The names of their columns are in their first rows.
fn read(page: &str) -> Vec<ErrorCode> {
    let mut codes = Vec::new();
    let (mut context, mut columns) = (String::new(), Vec::new());
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut context);
        }
        let Some(row) = line.strip_prefix("| ") else {
            continue;
        };
        let cells: Vec<&str> = row
            .trim_end_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect();
        if cells[0] == "Code" {
            columns = cells;
            continue;
        }
        let cell = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            cells.get(at).map(|&cell| cell.to_owned())
        };
        let code = cells[0].trim_matches('`').to_owned();
        let statuses = cell("Status").unwrap_or_default();
        codes.push(ErrorCode {
            id: format!("{context}/{code}"),
            object: "error_code",
            code,
            context: context.clone(),
            statuses: statuses
                .split(", ")
                .filter_map(|status| status.parse().ok())
                .collect(),
            meaning: cell("Meaning").unwrap_or_default(),
            what_to_do: cell("What to do").unwrap_or_default(),
            another_attempt: cell("Another attempt"),
        });
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_page_is_read() {
        let rows = PAGE.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(CODES.len(), rows);
        for code in &*CODES {
            assert!(
                !code.meaning.is_empty() && !code.what_to_do.is_empty(),
                "{code:?}"
            );
        }
        let found = |code: &str| CODES.iter().find(|one| one.code == code).unwrap();
        assert_eq!(found("not_ready").statuses, [503, 409, 422]);
        assert_eq!(found("upload_ended").statuses, [409]);
        assert!(found("no_class_folders").statuses.is_empty());
        assert_eq!(found("diverged").another_attempt.as_deref(), Some("no"));
    }
}
