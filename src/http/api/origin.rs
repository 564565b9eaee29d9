//! Requests that an open service refuses. It trusts every process of its machine; but web pages of
//! other sites run there too, their names may resolve to 127.0.0.1 (DNS rebinding), and a proxy on
//! this machine passes on requests of others.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};

use crate::http::api::error::ApiError;

/// Headers that proxies add, besides all that begin with `x-forwarded-`.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "via", "x-real-ip", "x-original-host"];

/// Refuses a request that is not plainly one of this machine to this machine.
///
/// # Errors
/// 403, naming the header.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    match find_foreign(uri, headers) {
        Some(why) => Err(refusal(&why)),
        None => Ok(()),
    }
}

fn refusal(why: &str) -> ApiError {
    let message = format!(
        "{why}: a service without API keys answers only requests from this machine, to `localhost` or a loopback \
         address, without a proxy; create a key with `rehead keys create` to use it from elsewhere"
    );
    ApiError::new(StatusCode::FORBIDDEN, "other_site", message)
}

/// Why the request may come from elsewhere.
fn find_foreign(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let is_proxy = |name: &&HeaderName| {
        let name = name.as_str();
        PROXY_HEADERS.contains(&name) || name.starts_with("x-forwarded-")
    };
    if let Some(name) = headers.keys().find(is_proxy) {
        return Some(format!(
            "the header `{name}` says that a proxy passed the request on"
        ));
    }
    let Some(host) = single(headers, &header::HOST) else {
        return Some("the request has no `host`, or several".to_owned());
    };
    // A request line with a whole URL names the host a second time.
    if !is_local(host) || uri.authority().is_some_and(|named| named.as_str() != host) {
        return Some("the `host` of the request is not this machine".to_owned());
    }
    if headers.contains_key(header::ORIGIN) {
        let origin =
            single(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
        if !origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
            return Some("the `origin` of the request is a web page of another site".to_owned());
        }
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    match site {
        None | Some(b"same-origin" | b"none") => None,
        Some(_) => Some("`sec-fetch-site` says that a web page of another site sent it".to_owned()),
    }
}

/// The value of a header that occurs once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// True for `localhost` and loopback addresses, with or without a port. 0.0.0.0 reaches this
/// machine as well, but browsers let pages of other sites use it.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().map(|address| address.to_canonical());
    let has_user = host.contains('@');
    !has_user && (name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let headers = pairs.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let mut all = HeaderMap::new();
        headers.for_each(|(name, value)| {
            all.append(name, value);
        });
        find_foreign(&Uri::from_static("/v1/files"), &all)
    }

    #[test]
    fn requests_of_this_machine_pass() {
        for good in [
            &[("host", "127.0.0.1:8080")][..],
            &[("host", "127.1.2.3")],
            &[("host", "localhost:1")],
            &[("host", "LOCALHOST")],
            &[("host", "[::1]:80")],
            &[("host", "[::ffff:127.0.0.1]:80")],
            &[("host", "localhost:80"), ("origin", "http://localhost:80")],
            &[("host", "localhost"), ("sec-fetch-site", "none")],
            &[("host", "localhost"), ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(foreign(good), None, "{good:?}");
        }
    }

    #[test]
    fn requests_of_other_sites_and_proxies_are_refused() {
        const LOCAL: (&str, &str) = ("host", "127.0.0.1:80");
        for bad in [
            &[][..],
            &[("host", "")],
            &[("host", "evil.example:8080")],
            &[("host", "0.0.0.0:80")],
            &[("host", "[::]:80")],
            &[("host", "192.168.0.1")],
            &[("host", "localhost.")],
            &[("host", "localhost.evil.example")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "127.0.0.1@evil.example")],
            &[("host", "0x7f.1")],
            &[LOCAL, ("host", "evil.example")],
            &[LOCAL, ("origin", "null")],
            &[LOCAL, ("origin", "http://evil.example")],
            &[LOCAL, ("origin", "http://127.0.0.1:81")],
            &[LOCAL, ("origin", "https://127.0.0.1:80")],
            &[LOCAL, ("origin", "file://")],
            &[LOCAL, ("origin", "http://127.0.0.1:80"), ("origin", "null")],
            &[LOCAL, ("sec-fetch-site", "cross-site")],
            &[LOCAL, ("sec-fetch-site", "same-site")],
            &[LOCAL, ("forwarded", "for=1.2.3.4")],
            &[LOCAL, ("x-forwarded-for", "1.2.3.4")],
            &[LOCAL, ("x-forwarded-proto", "https")],
            &[LOCAL, ("x-real-ip", "1.2.3.4")],
            &[LOCAL, ("via", "1.1 proxy")],
        ] {
            assert!(foreign(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn whole_url_of_another_host_is_refused() {
        let headers = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
        let uri = Uri::from_static("http://evil.example/v1/files");
        assert!(find_foreign(&uri, &headers).is_some());
    }
}
