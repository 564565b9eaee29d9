//! The command line's client: thin commands over the HTTP API, for people at a terminal and for scripts. Results go to
//! standard output, everything said on the way to standard error.

/// Requests, and errors as sentences.
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

/// Columns, times and workers for people.
mod table;

/// `rehead watch`
pub mod watch;

/// What holds a job up, in words.
mod why;

/// `rehead workers`
pub mod workers;
