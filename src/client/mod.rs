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

/// `rehead predict`
pub mod predict;

/// `rehead report`
pub mod report;

/// `rehead submit`
pub mod submit;

/// Text tables and their cells.
mod table;

/// `rehead watch`
pub mod watch;

/// Why a job does not run, in words.
mod wait_reason;

/// `rehead workers`
pub mod workers;
