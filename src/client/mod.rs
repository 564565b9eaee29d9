//! The command line's client: thin commands over the HTTP API, for people at a terminal and for scripts. Results go to
//! standard output, everything said on the way to standard error.

/// Requests, and errors as sentences.
mod api;

/// `rehead export`
pub mod export;

/// `rehead predict`
pub mod predict;

/// `rehead report`
pub mod report;

/// `rehead submit`
pub mod submit;

/// `rehead watch`
pub mod watch;
