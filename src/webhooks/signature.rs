//! Signatures of the Standard Webhooks specification, which OpenAI's clients verify: HMAC-SHA256 of
//! `id.timestamp.body`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::db::webhooks::Secret;

/// A secret as users and their libraries have it.
pub fn secret_text(secret: &Secret) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// The header `webhook-signature`: a signature by each secret, of which one must fit.
pub(super) fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &str) -> String {
    let signed = secrets.iter().map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac`, `hashlib` and `base64`.
    #[test]
    fn signature_is_the_hmac_of_id_timestamp_and_body() {
        let secret = [7; 32];
        assert_eq!(
            secret_text(&secret),
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
        );
        let of = |secrets: &[Secret]| signatures(secrets, "evt_1", 1_700_000_000, "{\"a\":\"ü\"}");
        let one = "v1,yKSqWipIMNDUWgYlBEpW49Yb+oKfprnOTgd6esOPeTg=";
        assert_eq!(of(&[secret]), one);
        let both = of(&[[8; 32], secret]);
        assert!(both.ends_with(&format!(" {one}")), "{both}");
    }
}
