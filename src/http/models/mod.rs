//! Handlers of `/v1/models` and `/v1/base_models`.

pub(crate) mod catalog;
pub(crate) mod checkpoint;
pub(crate) mod export;
pub(crate) mod predict;
pub(crate) mod push;
pub(crate) mod register;

mod predict_images;
