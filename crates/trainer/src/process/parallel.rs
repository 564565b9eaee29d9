//! Parallelism over samples. Torch splits each operation among threads that wait for one another at
//! its end, spinning: one thread that has lost its core holds up all. Here a thread takes a whole
//! batch, has one thread of torch's, and takes the next batch when it is done; nothing waits.

use std::{
    ops::Deref,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use super::{error::TrainError, memory::guarded};
use crate::data::batch::pool;

/// Threads of this process; see `threads`.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Torch's threads of this thread, others for a while.
pub struct Threads(i32);

impl Threads {
    pub fn exactly(count: i32) -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(count);
        Self(before)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}

/// Lets work be dealt to so many threads from here on, and no operation be split: a result is then
/// the same for any number.
pub fn use_threads(count: usize) {
    THREADS.store(count.max(1), Ordering::Relaxed);
    tch::set_num_threads(1);
}

/// Threads that work is dealt to.
pub fn threads() -> usize {
    THREADS.load(Ordering::Relaxed)
}

/// Something with tensors that several threads use.
#[derive(Debug)]
pub struct Shared<T>(T);

#[expect(
    unsafe_code,
    reason = "tch does not say which uses of a tensor are shared"
)]
// SAFETY: a condition of `new`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// While it lives, no thread changes numbers that another one reads or changes, and whatever
    /// else it has may be read by several threads. Torch allows the rest, also operations that
    /// record gradients and the passes back through them.
    #[expect(unsafe_code, reason = "only the caller can know the condition")]
    pub unsafe fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The results of `work` for each of `items`, in their order, computed on `threads` threads.
/// `done` is told of each finished item, in any order, on the caller's thread.
///
/// # Errors
/// The error of the first item that has one, or of `done`: nothing is begun after it. As
/// `memory::guarded`.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, TrainError> + Sync,
    mut done: impl FnMut(&T) -> Result<(), TrainError>,
) -> Result<Vec<R>, TrainError> {
    // What a thread sets is also what later threads begin with; this restores it.
    let _restored = Threads::exactly(tch::get_num_threads());
    let next = AtomicUsize::new(0);
    let (sender, finished) = mpsc::channel();
    let mut results: Vec<Option<Result<R, TrainError>>> = items.iter().map(|_| None).collect();
    let mut stopped = None;
    pool(threads).in_place_scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move |_| {
                let _one = Threads::exactly(1);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = guarded(|| work(item));
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    if sender.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (index, result) in finished {
            let told = if result.is_ok() && stopped.is_none() {
                done(&items[index])
            } else {
                Ok(())
            };
            if let Err(error) = told {
                next.store(items.len(), Ordering::Relaxed);
                stopped.get_or_insert(error);
            }
            results[index] = Some(result);
        }
    });
    if let Some(error) = stopped {
        return Err(error);
    }
    // Items are begun in order: before the first error, all have a result.
    results.into_iter().map_while(|result| result).collect()
}

/// `each`, without a report.
///
/// # Errors
/// As `each`.
pub fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    each(items, threads, work, |_| Ok(()))
}

/// `map` for work that fails only where torch does; on the caller's thread where there is one.
///
/// # Panics
/// Where torch fails, as its operators do.
pub fn over<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if threads == 1 || items.len() == 1 {
        return items.iter().map(work).collect();
    }
    let made = map(items, threads, |item| Ok(work(item)));
    made.unwrap_or_else(|error| panic!("{error}"))
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn results_are_in_order_and_each_thread_has_one_of_torch_s() {
        tch::set_num_threads(2);
        let items: Vec<u64> = (0..50).collect();
        let mut told = Vec::new();
        let square = |item: &u64| {
            assert_eq!(tch::get_num_threads(), 1);
            Ok(item * item)
        };
        let tell = |item: &u64| {
            told.push(*item);
            Ok(())
        };
        let squares = each(&items, 3, square, tell).unwrap();
        assert_eq!(
            squares,
            items.iter().map(|item| item * item).collect::<Vec<_>>()
        );
        told.sort_unstable();
        assert_eq!(told, items);
        assert_eq!(tch::get_num_threads(), 2);
        assert_eq!(thread::spawn(tch::get_num_threads).join().unwrap(), 2);
        assert!(each(&[], 3, square, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn first_error_ends_the_work() {
        let items: Vec<u64> = (0..10_000).collect();
        let begun = AtomicUsize::new(0);
        let work = |item: &u64| {
            begun.fetch_add(1, Ordering::Relaxed);
            match item {
                7 => panic!("seven"),
                8 => Err(TrainError::Features),
                _ => {
                    thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
            }
        };
        let error = each(&items, 2, work, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("seven"), "{error}");
        assert!(begun.load(Ordering::Relaxed) < items.len());

        begun.store(0, Ordering::Relaxed);
        let work = |_: &u64| {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let interrupted = each(&items, 2, work, |_| Err(TrainError::Features));
        assert!(matches!(interrupted, Err(TrainError::Features)));
    }
}
