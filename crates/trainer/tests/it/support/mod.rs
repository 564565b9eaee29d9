//! Shared by the trainer's tests: runs of the executable on small real data, and made-up weights.

pub(crate) mod device;
pub(crate) mod numbers;
pub(crate) mod training;

pub(crate) use rehead_test_support::data;
