//! Idempotency keys. The row that a request creates holds the key and a hash of what came with it,
//! so that both are committed at once; the key is free again when the row is deleted.

/// An `Idempotency-Key`, and the SHA-256 of what came with it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: String,
    pub body_sha256: [u8; 32],
}

impl Idempotency {
    /// True when `body_sha256`, as a row has it, is that of this request.
    pub(super) fn is_same(&self, body_sha256: Option<&[u8]>) -> bool {
        body_sha256 == Some(&self.body_sha256)
    }
}

/// The parts of an optional key, to be bound.
pub(super) fn columns(idempotency: Option<&Idempotency>) -> (Option<&str>, Option<&[u8]>) {
    idempotency
        .map(|one| (one.key.as_str(), one.body_sha256.as_slice()))
        .unzip()
}

/// The result of a request that creates a row, perhaps with a key.
#[derive(Debug, Clone)]
pub enum Keyed<T> {
    New(T),
    /// The same key came with the same body before and made this.
    Replayed(T),
    /// The same key came with another body.
    KeyConflict,
}

impl<T> Keyed<T> {
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Keyed<U> {
        match self {
            Self::New(value) => Keyed::New(make(value)),
            Self::Replayed(value) => Keyed::Replayed(make(value)),
            Self::KeyConflict => Keyed::KeyConflict,
        }
    }
}
