//! Token buckets, in this process' memory: each server of an installation counts for itself, and a
//! restart fills them. A bucket holds a minute's worth, so that a burst is not refused.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderName, HeaderValue};

/// Buckets from which full ones are dropped, and at most four times as many are kept.
const MANY: usize = 10_000;

/// A bucket for each key, such as an address or a tenant.
pub(crate) struct Buckets<Key>(Mutex<HashMap<Key, Bucket>>);

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// When `tokens` was right.
    at: Instant,
}

/// State of a bucket after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Tokens that it holds at most.
    pub limit: u32,
    /// Whole tokens left.
    pub remaining: u32,
    /// Time until it is full.
    pub reset: Duration,
    /// Time until there is a token; `None` when there was one.
    pub wait: Option<Duration>,
}

impl Level {
    /// The headers that tell a client, named as OpenAI's.
    pub(crate) fn headers(&self) -> [(HeaderName, HeaderValue); 3] {
        let text =
            |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        [
            (
                HeaderName::from_static("x-ratelimit-limit-requests"),
                self.limit.into(),
            ),
            (
                HeaderName::from_static("x-ratelimit-remaining-requests"),
                self.remaining.into(),
            ),
            (
                HeaderName::from_static("x-ratelimit-reset-requests"),
                text(span(self.reset)),
            ),
        ]
    }
}

/// A duration as `6m0s`, `1s` or `120ms`.
fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}s", millis.div_ceil(1_000)),
        _ => format!("{}m{}s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

impl<Key> Default for Buckets<Key> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Eq + Hash> Buckets<Key> {
    /// Takes a token, if there is one, from a bucket of `per_minute`.
    pub(crate) fn take(&self, key: Key, per_minute: u32) -> Level {
        self.change(key, per_minute, 1.0)
    }

    /// The level, without a change.
    pub(crate) fn level(&self, key: Key, per_minute: u32) -> Level {
        self.change(key, per_minute, 0.0)
    }

    fn change(&self, key: Key, per_minute: u32, taken: f64) -> Level {
        let now = Instant::now();
        // A panic cannot leave a bucket half changed.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY && !buckets.contains_key(&key) {
            let refilled = |bucket: &Bucket| now - bucket.at >= Duration::from_secs(60);
            buckets.retain(|_, bucket| !refilled(bucket));
            if buckets.len() >= 4 * MANY {
                // That many at once is an attack on the memory; its sources begin anew.
                buckets.clear();
            }
        }
        let full = Bucket {
            tokens: f64::from(per_minute),
            at: now,
        };
        buckets
            .entry(key)
            .or_insert(full)
            .take(now, per_minute, taken)
    }
}

impl Bucket {
    fn take(&mut self, now: Instant, per_minute: u32, taken: f64) -> Level {
        let (limit, per_second) = (f64::from(per_minute), f64::from(per_minute) / 60.0);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(limit);
        self.at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= taken;
        }
        // A limit of 0 never refills; a minute says so without an infinite time.
        let after = |tokens: f64| {
            let seconds = (tokens / per_second).clamp(0.0, 60.0);
            Duration::from_secs_f64(if seconds.is_finite() { seconds } else { 60.0 })
        };
        Level {
            limit: per_minute,
            remaining: self.tokens as u32,
            reset: after(limit - self.tokens),
            wait: (!has_one).then(|| after(1.0 - self.tokens)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_a_minutes_worth_then_refills() {
        let start = Instant::now();
        let mut bucket = Bucket {
            tokens: 3.0,
            at: start,
        };
        let mut at = |seconds: u64| bucket.take(start + Duration::from_secs(seconds), 3, 1.0);
        for left in [2, 1, 0] {
            let level = at(0);
            assert_eq!((level.remaining, level.wait), (left, None));
        }
        let level = at(0);
        assert_eq!(level.wait, Some(Duration::from_secs(20)));
        assert_eq!(level.reset, Duration::from_secs(60));
        assert_eq!(at(20).wait, None);
        assert_eq!(at(39).wait, Some(Duration::from_secs(1)));
    }

    #[test]
    fn spans_are_written_as_openai_does() {
        let spans = [0, 120, 1_000, 1_001, 59_000, 60_000, 360_000].map(Duration::from_millis);
        let texts = ["0ms", "120ms", "1s", "2s", "59s", "1m0s", "6m0s"];
        assert_eq!(spans.map(span), texts);
    }

    #[test]
    fn zero_refuses_all_and_keys_are_apart() {
        let buckets = Buckets::default();
        assert!(buckets.take("a", 0).wait.is_some());
        assert!(buckets.take("b", 1).wait.is_none());
        assert!(buckets.level("b", 1).wait.is_some());
        assert!(buckets.level("c", 1).wait.is_none());
    }
}
