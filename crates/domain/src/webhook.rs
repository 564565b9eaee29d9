//! Webhooks: what they are sent for, and how their deliveries end.

use crate::words;

words! {
    /// A kind of event that webhooks are sent, by OpenAI's names.
    pub enum EventType {
        JobSucceeded = "fine_tuning.job.succeeded",
        JobFailed = "fine_tuning.job.failed",
        JobCancelled = "fine_tuning.job.cancelled",
    }
}

/// The kind of event that `POST /v1/webhooks/{id}/test` sends.
pub const TEST_EVENT: &str = "webhook.test";

words! {
    /// The state of a delivery.
    pub enum DeliveryStatus {
        /// It has not been tried, or is tried again later.
        Pending = "pending",
        /// The receiver answered with a status from 200 to 299.
        Succeeded = "succeeded",
        /// It was given up.
        Failed = "failed",
    }
}
