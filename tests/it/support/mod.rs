//! Shared parts of the tests: a service of real processes on a private Postgres, its client, and
//! small real data.

pub(crate) mod attempts;
pub(crate) mod openapi;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod push_hub;
pub(crate) mod queue;
pub(crate) mod receiver;
pub(crate) mod service;
pub(crate) mod sources;
pub(crate) mod tmpfs;

pub(crate) use rehead_test_support::data;
