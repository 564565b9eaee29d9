//! The object store: uploads, packed data sets, weights, checkpoints, bundles. It is a folder on
//! this machine. Every object is written under a temporary name, flushed to disk with its folder,
//! and then renamed, so that a key is absent or complete. A row that names an object is committed
//! after the object: a process that dies in between leaves an object without a row, never a row
//! without its object. A download is the one object that is appended to before it has its name: its
//! bytes outlive a process that is killed (`partial.rs`).

mod partial;
mod store;
mod units;
mod verified;
mod verify;

pub use self::{
    partial::{Partial, Tag},
    store::{At, ObjectError, Objects, Stored, is_storage_full},
    units::Unit,
    verify::hash_file,
};
