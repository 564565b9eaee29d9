//! What goes wrong in queues elsewhere, done on purpose to real processes. Names begin with the failure's number in
//! docs/failures.md, where there is one.

mod cancel;
mod pause;
mod stop;
