//! Paginated lists, as in OpenAI's API.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    config::HttpLimits,
    db::{Page, Slice},
    domain::{codes, problem::Problem, words},
    http::api::error::{ApiError, refuse_any},
};

/// Default rows per page.
const DEFAULT_LIMIT: u32 = 20;

/// Rows per page of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    default: u32,
    most: u32,
}

impl Rows {
    /// Most lists.
    pub(crate) fn usual(limits: &HttpLimits) -> Self {
        Self::of(DEFAULT_LIMIT, limits.max_page)
    }

    /// Jobs in short.
    pub(crate) fn of_summaries(limits: &HttpLimits) -> Self {
        Self::of(DEFAULT_LIMIT, limits.max_long_page)
    }

    /// Files, of which OpenAI's clients may ask for 10,000.
    pub(crate) fn of_files(limits: &HttpLimits) -> Self {
        Self::of(DEFAULT_LIMIT, limits.max_long_page)
    }

    /// Models, of which OpenAI's clients read one page without a limit.
    pub(crate) fn of_models(limits: &HttpLimits) -> Self {
        Self::of(limits.max_long_page, limits.max_long_page)
    }

    fn of(default: u32, most: u32) -> Self {
        Self {
            default: default.min(most),
            most,
        }
    }
}

/// Query parameters of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery<Id: ToSchema> {
    /// `last_id` of the previous page.
    after: Option<Id>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `desc` (newest first, the default) or `asc`.
    #[param(inline)]
    order: Option<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Asc,
    Desc,
}

/// Checks `after`, `limit` and `order`.
///
/// # Errors
/// The cursor is not an id of this list, or the limit is out of range.
pub(crate) fn page<Cursor: FromStr>(
    after: Option<&str>,
    limit: Option<u32>,
    order: Option<Order>,
    rows: Rows,
) -> Result<Page<Cursor>, ApiError> {
    let mut problems = Vec::new();
    let cursor = after.map(Cursor::from_str);
    if matches!(cursor, Some(Err(_))) {
        problems.push(Problem::new(
            "after",
            codes::INVALID_VALUE,
            "must be `last_id` of the previous page of this list",
        ));
    }
    let limit = limit.unwrap_or(rows.default);
    if !(1..=rows.most).contains(&limit) {
        let message = format!("must be from 1 to {}", rows.most);
        problems.push(Problem::new("limit", codes::OUT_OF_RANGE, message));
    }
    refuse_any(problems)?;
    Ok(Page {
        after: cursor.and_then(Result::ok),
        limit,
        descending: order != Some(Order::Asc),
    })
}

impl<Id: ToSchema> PageQuery<Id> {
    /// # Errors
    /// See `page`.
    pub(crate) fn page(self, limits: &HttpLimits) -> Result<Page<Id>, ApiError> {
        let Self {
            after,
            limit,
            order,
        } = self;
        let page = page::<String>(None, limit, order, Rows::usual(limits))?;
        Ok(Page {
            after,
            limit: page.limit,
            descending: page.descending,
        })
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T: ToSchema> {
    /// `list`.
    pub object: &'static str,
    pub data: Vec<T>,
    /// True when there are rows after `last_id`.
    pub has_more: bool,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
}

impl<T: ToSchema> List<T> {
    /// The response with these rows, each as its object.
    pub(crate) fn of<Row>(
        slice: Slice<Row>,
        object: impl Fn(Row) -> T,
        id: impl Fn(&T) -> String,
    ) -> axum::Json<Self> {
        let data: Vec<T> = slice.rows.into_iter().map(object).collect();
        axum::Json(Self {
            object: "list",
            first_id: data.first().map(&id),
            last_id: data.last().map(&id),
            data,
            has_more: slice.has_more,
        })
    }
}

/// Rows that are counted exactly; of more, only that there are more.
pub(crate) const COUNTED_ROWS: u32 = 10_000;

/// The number of rows that a list has on all pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Count {
    Exact(u32),
    More(MoreRows),
}

words! {
    /// Says that there are more than 10,000 rows.
    pub(crate) enum MoreRows {
        More = "more",
    }
}

impl Count {
    /// The number that a query with the limit `COUNTED_ROWS + 1` has found.
    pub(crate) fn of(found: u32) -> Self {
        if found > COUNTED_ROWS {
            Self::More(MoreRows::More)
        } else {
            Self::Exact(found)
        }
    }
}

/// Characters of a text to search for.
pub(crate) const SEARCH_CHARACTERS: usize = 255;

/// Checks a text to search for; none is one that finds everything.
///
/// # Errors
/// It is too long.
pub(crate) fn search_text(name: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    let is_long = |text: &String| text.chars().count() > SEARCH_CHARACTERS;
    if text.as_ref().is_some_and(is_long) {
        let message = format!("must have at most {SEARCH_CHARACTERS} characters");
        return Err(ApiError::invalid(name, codes::OUT_OF_RANGE, message));
    }
    Ok(text.filter(|text| !text.is_empty()))
}

/// Response to a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    pub id: String,
    /// Type of the deleted object.
    pub object: &'static str,
    pub deleted: bool,
}

impl Deleted {
    pub(crate) fn of(object: &'static str, id: impl ToString) -> axum::Json<Self> {
        axum::Json(Self {
            id: id.to_string(),
            object,
            deleted: true,
        })
    }
}
