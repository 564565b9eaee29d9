//! The command line's client of the HTTP API. Results go to standard output, progress to standard
//! error.

/// Requests to the service.
mod api;

/// `rehead compare`
pub mod compare;

/// `rehead cancel`, `pause`, `resume`, `stop`
pub mod control;

/// `rehead export`
pub mod export;

/// `rehead jobs`
pub mod jobs;

/// `rehead logs`
pub mod logs;

/// Packs a folder while it is sent.
mod pack;

/// `rehead models`
pub mod models;

/// `rehead predict`
pub mod predict;

/// `rehead report`
pub mod report;

/// Server-sent events.
mod sse;

/// `rehead submit`
pub mod submit;

/// Text tables and their cells.
mod table;

/// `rehead upload`
pub mod upload;

/// `rehead watch`
pub mod watch;

/// Why a job does not run, in words.
mod wait_reason;

/// `rehead workers`
pub mod workers;
