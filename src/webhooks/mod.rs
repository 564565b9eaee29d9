//! Webhooks: signs events (Standard Webhooks) and sends them, until each is taken or given up.
//!
//! Deliveries are rows (`db::deliveries`), written in the transaction that ends a job. Every server
//! sends: a claim leases one try, so that two never send the same. A slow receiver holds up its own
//! deliveries only, and no job waits for any.

mod deliver;
mod signature;

pub use deliver::{Sender, body};
pub use signature::secret_text;
