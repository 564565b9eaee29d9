//! The nouns of the service. Plain data and pure functions: no I/O, no SQL, no torch.

pub mod adapter;
pub mod augmentation;
pub mod base_model;
pub mod checkpoint;
pub mod class_weights;
pub mod cut;
pub mod estimate;
pub mod fields;
pub mod file;
pub mod freeze;
pub mod id;
pub mod job;
pub mod job_plan;
pub mod limits;
pub mod parent;
pub mod problem;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod request;
pub mod resolve;
pub mod sample_report;
pub mod work;
