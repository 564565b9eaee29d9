//! Memory of a run. When it runs out, the same work is repeated in batches of half the size.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::TrainError;
use crate::ticks::tick;

/// Blocks below this size come from the memory that the allocator keeps. This is the most that
/// glibc accepts.
#[cfg(target_env = "gnu")]
const KEPT_BLOCK: libc::c_int = 32 << 20;
/// The allocator requests memory from the system in steps of this size.
#[cfg(target_env = "gnu")]
const TAKEN: libc::c_int = 64 << 20;

/// Makes the allocator keep freed memory. Each step needs as much as the one before it, and new
/// memory from the system costs a page fault a page: a third of a step's time with
/// EfficientNet-Lite0 on a CPU.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc's own call; there is no safe one")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, TAKEN);
    }
}

/// Runs `work`. A C++ exception, which tch turns into a panic, becomes an error, and torch's
/// gradient mode is what it was.
///
/// # Errors
/// The errors of `work`, `OutOfMemory`, `Torch`. Changes that `work` made before the error stay.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    // `tch::no_grad` leaves gradients off when its closure panics; a guard does not.
    let _restored = tch::no_grad_guard();
    let done = tch::with_grad(|| {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)))
    });
    if matches!(done, Err(TrainError::OutOfMemory(_))) {
        give_back();
    }
    done
}

/// Returns kept memory to the system, because oneDNN maps memory for its kernels outside the
/// allocator.
fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "glibc's own call; there is no safe one")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    let _released = unsafe { libc::malloc_trim(0) };
}

/// The next smaller batch of `samples`, at least `least`; `None` when there is none.
pub fn smaller(samples: usize, least: usize) -> Option<usize> {
    let half = samples.div_ceil(2).max(least);
    (half < samples).then_some(half)
}

/// Runs `work` over all `members` in order, at most `size` at a time. `size` is halved each time
/// memory runs out.
///
/// # Errors
/// The errors of `work`; `OutOfMemory` when a single member does not fit.
pub fn in_batches<T>(
    members: &[usize],
    size: &mut usize,
    mut work: impl FnMut(&[usize]) -> Result<T, TrainError>,
) -> Result<Vec<T>, TrainError> {
    let mut done = Vec::with_capacity(members.len().div_ceil(*size));
    let mut rest = members;
    while !rest.is_empty() {
        tick();
        let (batch, later) = rest.split_at(rest.len().min(*size));
        match (guarded(|| work(batch)), smaller(batch.len(), 1)) {
            (Ok(one), _) => {
                done.push(one);
                rest = later;
            }
            (Err(TrainError::OutOfMemory(_)), Some(half)) => *size = half,
            (Err(error), _) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn exhausted() -> TrainError {
        TrainError::OutOfMemory("as asked for".to_owned())
    }

    #[test]
    fn batches_shrink_until_they_fit_and_keep_their_order() {
        let members: Vec<usize> = (0..21).collect();
        let mut size = 16;
        let work = |batch: &[usize]| {
            if batch.len() > 5 {
                return Err(exhausted());
            }
            Ok(batch.to_vec())
        };
        let done = in_batches(&members, &mut size, work).unwrap();
        assert_eq!((done.concat(), size), (members.clone(), 4));
        let hopeless = in_batches(&members, &mut size, |_| -> Result<(), _> {
            Err(exhausted())
        });
        assert!(matches!(hopeless, Err(TrainError::OutOfMemory(_))) && size == 1);
        let other = in_batches(&members, &mut size, |_| -> Result<(), _> {
            Err(TrainError::Torch("shape".to_owned()))
        });
        assert!(matches!(other, Err(TrainError::Torch(_))));
    }

    #[test]
    fn the_smallest_batch_is_not_made_smaller() {
        assert_eq!(
            [smaller(5, 1), smaller(2, 1), smaller(1, 1)],
            [Some(3), Some(1), None]
        );
        assert_eq!(
            [smaller(3, 2), smaller(2, 2), smaller(1, 2)],
            [Some(2), None, None]
        );
    }

    #[test]
    fn a_panic_of_torch_is_an_error_and_gradients_stay_on() {
        let mismatched = || {
            tch::no_grad(|| {
                Ok(Tensor::ones([2, 3], tch::kind::FLOAT_CPU)
                    .mm(&Tensor::ones([2, 3], tch::kind::FLOAT_CPU)))
            })
        };
        assert!(matches!(guarded(mismatched), Err(TrainError::Torch(_))));
        let leaf = Tensor::ones([1], tch::kind::FLOAT_CPU).set_requires_grad(true);
        assert!((leaf * 2.0).requires_grad());
        let huge = || Ok(Tensor::empty([1 << 50], tch::kind::FLOAT_CPU));
        assert!(matches!(guarded(huge), Err(TrainError::OutOfMemory(_))));
    }
}
