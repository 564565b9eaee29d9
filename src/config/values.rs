//! Values of flags that several settings have.

use std::time::Duration;

use clap::builder::TypedValueParser;

/// Reads a number of milliseconds.
pub(super) fn millis() -> impl TypedValueParser<Value = Duration> {
    clap::value_parser!(u64).map(Duration::from_millis)
}

/// Reads the weight of a tenant.
pub(super) fn positive(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(weight) if (0.001..=1_000.0).contains(&weight) => Ok(weight),
        _ => Err("must be a number from 0.001 to 1000".to_owned()),
    }
}

/// Reads the address of a service, without a slash or `/v1` at its end.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let base = text.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| base.strip_prefix(scheme));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(['/', ':']) => Ok(base.to_owned()),
        _ => Err("must be a URL such as http://127.0.0.1:8080".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_given_by_its_url() {
        for (text, base) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://host/prefix/v1/", "https://host/prefix"),
            ("http://host/v1", "http://host"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(base));
        }
        for wrong in ["", "host:8080", "http://", "http://:80", "ftp://host"] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
    }
}
