//! API keys, as the command line and the API make them: `rh_<public prefix>_<secret>`.

use rand::random;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::{
    db::{
        self,
        keys::{Key, KeyId, NewRow, PREFIX_BYTES},
    },
    domain::{codes, limits::KEY_NAME_CHARACTERS, problem::Problem, role::Role},
};

const SECRET_BYTES: usize = 32;
/// The highest limit that a key can have.
const REQUESTS_PER_MINUTE: u32 = 1_000_000_000;

/// A new key. Its text is shown once and not stored.
pub struct NewKey {
    /// The whole key.
    pub text: String,
    /// The public part, by which the key is looked up.
    pub id: KeyId,
    /// SHA-256 of the text, which the database stores. The secret has 256 random bits, so a fast
    /// hash is enough.
    pub sha256: [u8; 32],
}

impl NewKey {
    /// Generates a key.
    #[expect(
        clippy::new_without_default,
        reason = "a default must not differ from call to call"
    )]
    pub fn new() -> Self {
        let id = KeyId::from(random::<[u8; PREFIX_BYTES]>());
        let secret = hex::encode(random::<[u8; SECRET_BYTES]>());
        let text = format!("{id}_{secret}");
        let sha256 = digest(&text);
        Self { text, id, sha256 }
    }
}

/// The hash under which a key is stored.
pub fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The id of a well-formed key.
pub fn id_of(key: &str) -> Option<KeyId> {
    let (public, secret) = key.rsplit_once('_')?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(hex);
    public.parse().ok().filter(|_| fits)
}

/// A key to create.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Name of the tenant, which is created if it does not exist.
    pub tenant: String,
    /// A label for people; the tenant's name if absent.
    pub name: Option<String>,
    pub role: Role,
    pub expires_at: Option<OffsetDateTime>,
    /// Within the limit of the tenant.
    pub requests_per_minute: Option<u32>,
}

impl Grant {
    /// Problems of the values; without any, `create` can be called.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (path, text) in [
            ("tenant", Some(self.tenant.as_str())),
            ("name", self.name.as_deref()),
        ] {
            let Some(text) = text else { continue };
            // Names are printed in tables and logs.
            let fits = (1..=KEY_NAME_CHARACTERS).contains(&text.chars().count())
                && text.trim() == text
                && !text.chars().any(char::is_control);
            if !fits {
                let message = format!(
                    "must be 1 to {KEY_NAME_CHARACTERS} characters without control characters, and without spaces \
                     at its ends"
                );
                problems.push(Problem::new(path, codes::INVALID_VALUE, message));
            }
        }
        if let Some(expires_at) = self.expires_at
            && expires_at <= OffsetDateTime::now_utc()
        {
            let message = "must be in the future, in Unix seconds";
            problems.push(Problem::new("expires_at", codes::OUT_OF_RANGE, message));
        }
        if self
            .requests_per_minute
            .is_some_and(|limit| limit > REQUESTS_PER_MINUTE)
        {
            let message = format!("must be from 0 to {REQUESTS_PER_MINUTE}");
            problems.push(Problem::new(
                "requests_per_minute",
                codes::OUT_OF_RANGE,
                message,
            ));
        }
        problems
    }

    /// Generates and stores a key, and creates its tenant if there is none of this name. Returns
    /// the key's row and its text.
    pub async fn create(&self, pool: &PgPool) -> sqlx::Result<(Key, String)> {
        let tenant = db::tenants::find_or_create(pool, &self.tenant).await?;
        let NewKey { text, id, sha256 } = NewKey::new();
        let row = NewRow {
            id: &id,
            tenant,
            sha256: &sha256,
            name: self.name.as_deref().unwrap_or(&self.tenant),
            role: self.role,
            expires_at: self.expires_at,
            requests_per_minute: self.requests_per_minute,
        };
        Ok((db::keys::create(pool, row).await?, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_shape() {
        let key = NewKey::new();
        assert_eq!(id_of(&key.text), Some(key.id.clone()));
        assert_eq!(key.id.to_string().parse::<KeyId>().ok(), Some(key.id));
        for wrong in [
            "",
            "rh_",
            "rh__",
            &key.text[1..],
            &key.text.to_uppercase(),
            &format!("{}0", key.text),
            "rh_é_",
        ] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn grant_names_are_short_and_printable() {
        let grant = |tenant: &str| Grant {
            tenant: tenant.to_owned(),
            name: None,
            role: Role::User,
            expires_at: None,
            requests_per_minute: None,
        };
        for good in ["a", "Team 7", &"n".repeat(KEY_NAME_CHARACTERS)] {
            assert!(grant(good).problems().is_empty(), "{good}");
        }
        for bad in [
            "",
            " a",
            "a\nb",
            "\u{1b}[0m",
            &"n".repeat(KEY_NAME_CHARACTERS + 1),
        ] {
            assert_eq!(grant(bad).problems().len(), 1, "{bad:?}");
        }
    }
}
