//! Architectures, their weights, and the heads on top, in reading order: operations, the networks
//! made of them, weights files, and the import of a base model. Runs in child processes only.

pub mod adapt;
pub mod architecture;
pub mod attention;
pub mod backbone;
pub mod bert;
pub mod conv;
mod convnext;
pub mod cost;
mod densenet;
mod efficientnet;
pub mod fused;
pub mod head;
pub mod import;
pub mod inference;
mod init_rng;
mod inverted_residual;
pub mod layer_norm;
pub mod linear;
pub mod lora;
pub(crate) mod message;
mod mobilenetv2;
mod mobilenetv3;
mod mobilenetv4;
mod names;
pub mod ops;
pub mod pass;
pub mod pth;
pub mod registry;
mod regnet;
mod resnet;
mod squeezenet;
pub mod torch_error;
mod vit;
pub mod weights;
