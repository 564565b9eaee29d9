//! One integration binary; a module per behaviour that a user can see.

mod contract;
mod datasets;
mod events;
mod http_errors;
mod layers;
mod parity;
mod queue;
mod support;
mod weights;
