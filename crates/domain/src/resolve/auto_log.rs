//! The record of what `"auto"` became.

use serde::Serialize;
use serde_json::json;

use crate::{auto::Auto, recipe::Resolved};

/// The options that were `"auto"`, in the order in which they were resolved.
#[derive(Default)]
pub(super) struct AutoLog(pub(super) Vec<Resolved>);

impl AutoLog {
    /// The value that the request gives, or else the default, which is recorded with its reason.
    pub(super) fn resolve<T: Serialize>(
        &mut self,
        option: &str,
        asked: Auto<T>,
        (default, reason): (T, &str),
    ) -> T {
        asked.value().unwrap_or_else(|| {
            self.0.push(Resolved {
                option: option.to_owned(),
                value: json!(default),
                reason: reason.to_owned(),
            });
            default
        })
    }
}
