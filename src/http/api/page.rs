//! Paginated lists, as in OpenAI's API.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    config::HttpLimits,
    db::{Page, Slice},
    domain::{codes, problem::Problem},
    http::api::error::{ApiError, refuse_any},
};

/// Default rows per page.
const DEFAULT_LIMIT: u32 = 20;

/// Query parameters of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `last_id` of the previous page.
    after: Option<String>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1)]
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
    limits: &HttpLimits,
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
    let limit = limit.unwrap_or(DEFAULT_LIMIT.min(limits.max_page));
    if !(1..=limits.max_page).contains(&limit) {
        let message = format!("must be from 1 to {}", limits.max_page);
        problems.push(Problem::new("limit", codes::OUT_OF_RANGE, message));
    }
    refuse_any(problems)?;
    Ok(Page {
        after: cursor.and_then(Result::ok),
        limit,
        descending: order != Some(Order::Asc),
    })
}

impl PageQuery {
    /// # Errors
    /// See `page`.
    pub(crate) fn page<Cursor: FromStr>(
        &self,
        limits: &HttpLimits,
    ) -> Result<Page<Cursor>, ApiError> {
        page(self.after.as_deref(), self.limit, self.order, limits)
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
