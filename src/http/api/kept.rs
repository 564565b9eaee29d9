//! A value of the database that requests share for a moment.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

/// Keeps a value until it is too old, then reads it again. Requests that come during a reading
/// wait for its result.
pub(crate) struct Kept<T>(Mutex<Option<Reading<T>>>);

struct Reading<T> {
    value: T,
    /// Time at which the reading began: later changes may be missing.
    began: Instant,
    took: Duration,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    /// The value. `max_age` gives its maximum age for the time that reading it took.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) async fn get<E, F>(
        &self,
        max_age: impl FnOnce(Duration) -> Duration,
        read: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut last = self.0.lock().await;
        if let Some(reading) = &*last
            && reading.began.elapsed() < max_age(reading.took)
        {
            return Ok(reading.value.clone());
        }
        let began = Instant::now();
        let value = read().await?;
        let took = began.elapsed();
        *last = Some(Reading {
            value: value.clone(),
            began,
            took,
        });
        Ok(value)
    }

    /// Reads the value again at the next use.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;

    #[tokio::test]
    async fn a_value_is_read_once_for_all_until_it_is_too_old() {
        let kept = Kept::default();
        let readings = AtomicU32::new(0);
        let get = |max_age: fn(Duration) -> Duration| {
            kept.get(max_age, || async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(readings.fetch_add(1, Relaxed))
            })
        };
        let any: fn(Duration) -> Duration = |took| {
            assert!(took >= Duration::from_millis(20), "{took:?}");
            Duration::MAX
        };
        let (first, second) = tokio::join!(get(any), get(any));
        assert_eq!((first, second), (Ok(0), Ok(0)));
        assert_eq!(get(|_| Duration::ZERO).await, Ok(1));
        kept.forget().await;
        assert_eq!(get(any).await, Ok(2));
    }
}
