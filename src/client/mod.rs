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

/// A model in a folder.
mod model_folder;

/// `rehead models`
pub mod models;

/// `rehead predict`
pub mod predict;

/// `rehead push`
pub mod push;

/// `rehead rank`
pub mod rank;

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
