//! Shared by the targets: an allocator that knows how much memory a call took, and checks.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rehead_domain::problem::Problem;
use tempfile::TempDir;

#[global_allocator]
static MEMORY: Counting = Counting;
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a problem's path and message: what a user sent is cut before it is repeated.
const PROBLEM_BYTES: usize = 4_096;

/// The system's allocator, which counts.
struct Counting;

#[expect(unsafe_code, reason = "an allocator is; all the work is the system's")]
// SAFETY: every call goes to the system's allocator, as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Runs a call, which may take at most so many bytes of memory at a time.
pub fn within<T>(bytes: usize, call: impl FnOnce() -> T) -> T {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = call();
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    assert!(
        taken <= bytes,
        "{taken} bytes of memory, where {bytes} are allowed"
    );
    result
}

/// Asserts what holds for any list of problems: it is not empty, not longer than its limit, and
/// says something of a readable length.
pub fn check_problems(problems: &[Problem], limit: usize) {
    assert!(
        (1..=limit).contains(&problems.len()),
        "{} problems",
        problems.len()
    );
    for problem in problems {
        assert!(
            !problem.code.is_empty() && problem.message.len() > 3,
            "{problem:?}"
        );
        let length = problem.path.len() + problem.message.len();
        assert!(length <= PROBLEM_BYTES, "a problem of {length} bytes");
    }
}

/// A folder in memory with one file.
pub struct OneFile {
    folder: TempDir,
}

impl OneFile {
    /// # Panics
    /// There is no room for it.
    pub fn new(bytes: &[u8]) -> Self {
        let memory = ["/dev/shm", "/tmp"]
            .into_iter()
            .find(|path| fs::exists(path).unwrap_or(false));
        let folder = TempDir::new_in(memory.unwrap_or(".")).expect("a folder for temporary files");
        fs::write(folder.path().join("input"), bytes).expect("room for a small file");
        Self { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}
