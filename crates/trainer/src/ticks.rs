//! Counts finished units of work of this process: an image decoded, a block of a network run, an
//! evaluation of an objective. The parent is told the count (`process::protocol::report_work`), so
//! that it can tell a child that computes slowly from one that hangs. Every loop that may take
//! minutes counts.

use std::sync::atomic::{AtomicU64, Ordering};

static UNITS: AtomicU64 = AtomicU64::new(0);

/// Counts a unit. Cheap; called from any thread.
pub fn tick() {
    UNITS.fetch_add(1, Ordering::Relaxed);
}

/// Units since the process began.
pub fn count() -> u64 {
    UNITS.load(Ordering::Relaxed)
}
