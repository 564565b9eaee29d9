//! Requests to URLs that users choose. A URL may be aimed at the operator's own network (SSRF), so
//! each is checked twice: its text before anything is sent, and every address that its name
//! resolves to when a connection is opened. The connection goes to a checked address, so that a
//! name which resolves differently a moment later changes nothing.
//!
//! No proxy of the environment is used, no redirect is followed without a check of its own, and
//! nothing is kept between requests: no cookies, no idle connections.

mod address;
mod client;
mod download;
mod hub;
mod hub_cache;
mod hub_push;
mod push_error;
mod redirects;

pub use client::{Lookup, Outgoing, Refused, Target, Unsent, Use};
pub use download::{Download, Interrupted, Wanted, filename};
pub use hub::{HubError, HubFile, HubModel, WantedDataset};
pub use hub_push::{PushedFile, ToHub};
pub use push_error::PushError;
