//! Rehead, a transfer-learning service: everything except what runs in its children
//! (`crates/trainer`). The modules, in reading order:

/// The nouns: jobs, recipes, files, base models, checkpoints. No I/O, no SQL, no torch.
pub use rehead_domain as domain;

/// Every setting and limit. The only reader of the environment.
pub mod config;

/// Exit codes of the command line.
pub mod exit;

/// Numbers in files of `/proc` and of control groups.
pub mod proc;

/// Control groups: what memory they leave this process.
pub mod cgroup;

/// Folders that only this process's user may enter.
pub mod private_folder;

/// All SQL, one file per table; plain functions.
pub mod db;

/// Metrics of a process, for operators.
pub mod telemetry;

/// A private Postgres for `rehead up` and the tests.
pub mod postgres;

/// Object storage: uploads, checkpoints, models.
pub mod objects;

/// Garbage collection: finds, reports and deletes orphaned objects and rows.
pub mod garbage_collection;

/// API keys: generated, and created for a tenant.
pub mod keys;

/// Use cases of jobs: admit, resolve once the data sets are validated, delete.
pub mod jobs;

/// Tells a child that computes from one that hangs.
pub mod liveness;

/// Isolation of child processes.
pub mod sandbox;

/// Child processes (`rehead-trainer`) and their protocol of JSON lines. Shared by server and
/// worker.
pub mod child;

/// Requests to URLs that users choose.
pub mod outgoing;

/// Sends webhooks what their tenants' jobs came to.
pub mod webhooks;

/// Predictions of finished models, by a child.
pub mod serving;

/// The HTTP API: a handler parses, makes one or two calls of `db`, and replies.
pub mod http;

/// Ends attempts whose lease has expired.
pub mod reaper;

/// Claims work, holds its lease, runs a child on it, and stores what the child makes.
pub mod worker;

/// The command line's client over HTTP.
pub mod client;
