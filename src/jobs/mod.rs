//! Use cases of jobs, each over a connection pool and callable without an HTTP request: admit a
//! request, choose its model, resolve a job that waited for its data sets, delete an ended job.

pub mod admit;
pub mod candidates;
pub mod choose;
pub mod delete;
pub mod resolve_waiting;

pub mod data_sets;
