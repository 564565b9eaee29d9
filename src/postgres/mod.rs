//! A private Postgres for `rehead up` and the tests: a child of this process, on a Unix socket
//! only.
//!
//! If this process is root, it runs as an unprivileged user, because Postgres refuses root. If this
//! process dies, the kernel sends it SIGINT, its fast shutdown. A start waits for the server of an
//! earlier run to stop. Blocks: start it before tokio.

mod home;
mod programs;
mod server;
mod supervised;

pub use self::{
    home::group,
    server::{Postgres, StartOptions, url_in},
    supervised::Supervised,
};
