//! Architectures, their weights, and the heads on top. Runs in children only. In reading order: `registry` lists what
//! there is, `trunk` and `ops` are what networks are made of, one file per family builds them, `head` is what is new in
//! a fine-tuned model, `weights` and `pth` read files that nobody needs to trust, `import` joins these for an uploaded
//! base model, and `fast` computes features of a trunk that does not train.

pub mod registry;

pub mod trunk;

pub mod ops;

mod inverted;

pub mod efficientnet;

pub mod mobilenet;

pub mod resnet;

pub mod head;

pub mod weights;

pub mod pth;

pub mod import;

pub mod fast;

pub use registry::layers;
