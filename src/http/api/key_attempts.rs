//! Keys that were sent: the number of wrong ones is limited by address, and the use of right ones
//! is recorded now and then. In this process' memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    db::keys::KeyId,
    http::api::{error::ApiError, peer::network_of, rate_limit::Buckets},
};

/// Interval at which the last use of a key is recorded.
const RECORDED: Duration = Duration::from_secs(60);
/// Time after its last use in which a key is not held back with the wrong ones of its address.
const TRUSTED: Duration = Duration::from_secs(600);
/// Keys and their tenants are read again after this time: the longest that a key is accepted which
/// was revoked through another server.
pub(crate) const KEY_AGE: Duration = Duration::from_secs(1);
/// Keys that are remembered as used, and tokens of sessions that are remembered as refused.
const REMEMBERED: usize = 10_000;
/// Time for which a token that was refused is remembered: a page that polls with the cookie of an
/// ended session asks the database once in this time.
const REFUSED: Duration = Duration::from_secs(60);

/// Keys that were sent: the wrong ones by address, which limits their number, and the right ones,
/// with their senders.
pub(crate) struct KeyAttempts<S> {
    refused: Buckets<IpAddr>,
    per_minute: u32,
    /// Right keys, by hash.
    accepted: Mutex<HashMap<[u8; 32], Accepted<S>>>,
}

struct Accepted<S> {
    /// Time at which its last use was recorded.
    recorded_at: Instant,
    /// Time at which the database was asked about it; `None` when it has to be asked again.
    read_at: Option<Instant>,
    sender: S,
}

impl<S: Clone> KeyAttempts<S> {
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
        let accepted = self.lock();
        let known = accepted.get(digest);
        known.is_some_and(|key| key.recorded_at.elapsed() < TRUSTED)
    }

    /// The sender of a key that was right a moment ago.
    pub(crate) fn recent(&self, digest: &[u8; 32]) -> Option<S> {
        let accepted = self.lock();
        let known = accepted.get(digest);
        let recent = known.filter(|key| key.read_at.is_some_and(|at| at.elapsed() < KEY_AGE));
        recent.map(|key| key.sender.clone())
    }

    /// Remembers a key that was right at `read_at`. True when its use is to be recorded.
    pub(crate) fn accept(&self, digest: [u8; 32], sender: S, read_at: Instant) -> bool {
        let now = Instant::now();
        let mut accepted = self.lock();
        let recorded_at = accepted.get(&digest).map(|key| key.recorded_at);
        let recorded_at = recorded_at.filter(|at| now - *at < RECORDED);
        if accepted.len() >= REMEMBERED {
            accepted.retain(|_, key| now - key.recorded_at < RECORDED);
        }
        if accepted.len() < REMEMBERED || accepted.contains_key(&digest) {
            let key = Accepted {
                recorded_at: recorded_at.unwrap_or(now),
                read_at: Some(read_at),
                sender,
            };
            accepted.insert(digest, key);
        }
        recorded_at.is_none()
    }

    /// Lets the database be asked again about every key: one may have been revoked.
    pub(crate) fn expire(&self) {
        for key in self.lock().values_mut() {
            key.read_at = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Accepted<S>>> {
        // A panic cannot leave it half changed.
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens that were refused lately, by hash.
#[derive(Default)]
pub(crate) struct RefusedSessions(Mutex<HashMap<[u8; 32], Instant>>);

impl RefusedSessions {
    pub(crate) fn has(&self, digest: &[u8; 32]) -> bool {
        // A panic cannot leave it half changed.
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = refused.get(digest);
        at.is_some_and(|at| at.elapsed() < REFUSED)
    }

    pub(crate) fn add(&self, digest: [u8; 32]) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REMEMBERED {
            refused.retain(|_, at| at.elapsed() < REFUSED);
        }
        if refused.len() < REMEMBERED {
            refused.insert(digest, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_limited_but_not_a_known_one() {
        let attempts = KeyAttempts::new(2);
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let now = Instant::now();
        assert!(attempts.recent(&[1; 32]).is_none());
        assert!(attempts.accept([1; 32], "sender", now));
        assert!(attempts.recent(&[1; 32]).is_some());
        attempts.expire();
        assert!(attempts.recent(&[1; 32]).is_none());
        assert!(!attempts.accept([1; 32], "sender", now));
        assert!(!attempts.accept([1; 32], "sender", now - KEY_AGE));
        assert!(attempts.recent(&[1; 32]).is_none(), "asked too long ago");
        for _ in 0..2 {
            assert!(attempts.check(address).is_ok());
            attempts.refuse(address, None);
        }
        assert!(attempts.check(address).is_err());
        assert!(attempts.check("10.0.0.2".parse().unwrap()).is_ok());
        assert!(attempts.is_known(&[1; 32]));
        assert!(!attempts.is_known(&[2; 32]));
    }

    #[test]
    fn refused_tokens_are_remembered() {
        let refused = RefusedSessions::default();
        assert!(!refused.has(&[1; 32]));
        refused.add([1; 32]);
        assert!(refused.has(&[1; 32]) && !refused.has(&[2; 32]));
    }
}
