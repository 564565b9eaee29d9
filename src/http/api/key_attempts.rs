//! Keys that were sent: the number of wrong ones is limited by address, and the use of right ones
//! is recorded now and then. In this process' memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    db::keys::KeyId,
    http::api::{error::ApiError, peer::network_of, rate_limit::Buckets},
};

/// Interval at which the last use of a key is recorded.
const RECORDED: Duration = Duration::from_secs(60);
/// Time after its last use in which a key is not held back with the wrong ones of its address.
const TRUSTED: Duration = Duration::from_secs(600);
/// Keys that are remembered as used.
const REMEMBERED: usize = 10_000;

/// Keys that were sent: the wrong ones by address, which limits their number, and the right ones.
pub(crate) struct KeyAttempts {
    refused: Buckets<IpAddr>,
    per_minute: u32,
    /// Hashes of keys, with the time at which their last use was recorded.
    accepted: Mutex<HashMap<[u8; 32], Instant>>,
}

impl KeyAttempts {
    /// `per_minute` is the number of wrong keys that one address may send.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            refused: Buckets::default(),
            per_minute,
            accepted: Mutex::default(),
        }
    }

    /// # Errors
    /// 429: the address has sent too many wrong keys.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), ApiError> {
        let level = self.refused.level(network_of(address), self.per_minute);
        let Some(wait) = level.wait else {
            return Ok(());
        };
        let message = format!(
            "this address has sent more than {} wrong API keys in a minute; correct the key, then try again",
            self.per_minute
        );
        Err(ApiError::rate_limited(message, wait))
    }

    /// Counts and logs a wrong key. The log is bounded because the number is.
    pub(crate) fn refuse(&self, address: IpAddr, id: Option<&KeyId>) {
        let level = self.refused.take(network_of(address), self.per_minute);
        let key = id.map(KeyId::to_string);
        let key = key.as_deref().unwrap_or("malformed");
        tracing::warn!(%address, key, "refused a wrong, expired or revoked API key");
        if level.remaining == 0 {
            tracing::warn!(%address, "refusing all unknown API keys of this address for a while");
        }
    }

    /// True when a key with this hash was accepted lately. Such a key is not held back because of
    /// others, which may come from behind the same proxy.
    pub(crate) fn is_known(&self, digest: &[u8; 32]) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted
            .get(digest)
            .is_some_and(|at| at.elapsed() < TRUSTED)
    }

    /// Remembers a right key. True when its use is to be recorded.
    pub(crate) fn accept(&self, digest: [u8; 32]) -> bool {
        let now = Instant::now();
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = accepted.get(&digest).is_none_or(|at| now - *at >= RECORDED);
        if is_due {
            if accepted.len() >= REMEMBERED {
                accepted.retain(|_, at| now - *at < RECORDED);
            }
            if accepted.len() < REMEMBERED {
                accepted.insert(digest, now);
            }
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_limited_but_not_a_known_one() {
        let attempts = KeyAttempts::new(2);
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(attempts.accept([1; 32]));
        assert!(!attempts.accept([1; 32]));
        for _ in 0..2 {
            assert!(attempts.check(address).is_ok());
            attempts.refuse(address, None);
        }
        assert!(attempts.check(address).is_err());
        assert!(attempts.check("10.0.0.2".parse().unwrap()).is_ok());
        assert!(attempts.is_known(&[1; 32]));
        assert!(!attempts.is_known(&[2; 32]));
    }
}
