//! Requests of pages of other sites, and of other machines, that are refused.
//!
//! An open service trusts every process of its machine; but web pages of other sites run there too,
//! their names may resolve to 127.0.0.1 (DNS rebinding), and a proxy on this machine passes on
//! requests of others. A service with keys trusts the cookie of a session only from its own pages.

use std::net::IpAddr;

use axum::http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri, header, request::Parts, uri::Authority,
};

use crate::http::api::{error::ApiError, peer::Peer};

/// Headers that proxies add, besides all that begin with `x-forwarded-`.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "via", "x-real-ip", "x-original-host"];

/// The header that pages of this service send with what changes something. Pages of other origins
/// cannot send it without asking first.
const UI: &str = "x-rehead-ui";

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

/// Refuses a request that a page of another origin may have sent with this service's cookie.
///
/// # Errors
/// 403, with the reason.
pub(crate) fn check_page(parts: &Parts, trusted_proxies: &[IpAddr]) -> Result<(), ApiError> {
    let named_by_proxy = is_from(parts, trusted_proxies)
        .then(|| single(&parts.headers, &HeaderName::from_static("x-forwarded-host")))
        .flatten();
    let Some(why) = find_other_page(&parts.method, &parts.headers, named_by_proxy) else {
        return Ok(());
    };
    let message = format!(
        "{why}: a session is for pages of this service only; send the key as `Authorization: Bearer rh_…` from elsewhere"
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "other_site", message))
}

/// Why a page of another origin may have sent this. `named_by_proxy` is the host that a trusted
/// proxy was asked for.
fn find_other_page(
    method: &Method,
    headers: &HeaderMap,
    named_by_proxy: Option<&str>,
) -> Option<&'static str> {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_ours = match site {
        Some(b"same-origin") => true,
        // Typed by the user, or a bookmark.
        Some(b"none") => method.is_safe(),
        Some(_) => false,
        // Browsers send none to `http://` names other than localhost.
        None if headers.contains_key(header::ORIGIN) => {
            let origin = single(headers, &header::ORIGIN);
            let origin = origin.and_then(|origin| origin.split_once("://"));
            let hosts = [single(headers, &header::HOST), named_by_proxy];
            let is_host = |origin: &str| hosts.iter().flatten().any(|host| is_same(host, origin));
            origin.is_some_and(|(_, origin)| is_host(origin))
        }
        None => method.is_safe(),
    };
    if !is_ours {
        return Some("a page of another site or port sent the request, or it does not say which");
    }
    let has_header = || headers.get(UI).is_some_and(|value| value == "1");
    (!method.is_safe() && !has_header()).then_some("the header `x-rehead-ui: 1` is missing")
}

fn is_same(host: &str, origin: &str) -> bool {
    host.eq_ignore_ascii_case(origin)
}

/// True if the browser reached this service by https: a page says so in its origin, a trusted proxy
/// in `x-forwarded-proto`.
pub(crate) fn is_https(parts: &Parts, trusted_proxies: &[IpAddr]) -> bool {
    let origin = single(&parts.headers, &header::ORIGIN);
    let proto = single(
        &parts.headers,
        &HeaderName::from_static("x-forwarded-proto"),
    );
    origin.is_some_and(|origin| origin.starts_with("https://"))
        || is_from(parts, trusted_proxies) && proto == Some("https")
}

/// True for a request of one of these proxies.
fn is_from(parts: &Parts, proxies: &[IpAddr]) -> bool {
    let peer = parts.extensions.get::<Peer>();
    peer.is_some_and(|peer| proxies.contains(&peer.0))
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

    type Pairs = &'static [(&'static str, &'static str)];

    fn headers_of(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            all.append(name, value.parse().unwrap());
        }
        all
    }

    fn foreign(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        find_foreign(&Uri::from_static("/v1/files"), &headers_of(pairs))
    }

    #[test]
    fn cookies_are_for_pages_of_this_service() {
        const UI: (&str, &str) = ("x-rehead-ui", "1");
        const HOST: (&str, &str) = ("host", "rehead.lan:8080");
        const OURS: (&str, &str) = ("origin", "http://rehead.lan:8080");
        let why = |method: &Method, pairs: Pairs| {
            find_other_page(method, &headers_of(pairs), Some("rehead.example"))
        };
        let good: [(Method, Pairs); 8] = [
            (Method::GET, &[HOST]),
            (Method::GET, &[HOST, ("sec-fetch-site", "none")]),
            (Method::GET, &[HOST, ("sec-fetch-site", "same-origin")]),
            (Method::GET, &[HOST, OURS]),
            (Method::POST, &[HOST, OURS, UI]),
            (
                Method::DELETE,
                &[HOST, ("origin", "https://REHEAD.lan:8080"), UI],
            ),
            (Method::POST, &[HOST, ("sec-fetch-site", "same-origin"), UI]),
            (
                Method::POST,
                &[HOST, ("origin", "https://rehead.example"), UI],
            ),
        ];
        for (method, pairs) in good {
            assert_eq!(why(&method, pairs), None, "{method} {pairs:?}");
        }
        let bad: [(Method, Pairs); 12] = [
            (Method::GET, &[HOST, ("sec-fetch-site", "cross-site")]),
            (Method::GET, &[HOST, ("sec-fetch-site", "same-site")]),
            (Method::GET, &[HOST, ("origin", "http://rehead.lan:8081")]),
            (Method::GET, &[HOST, ("origin", "null")]),
            (Method::POST, &[HOST, UI]),
            (Method::POST, &[HOST, OURS]),
            (Method::POST, &[HOST, OURS, ("x-rehead-ui", "0")]),
            (Method::POST, &[HOST, ("sec-fetch-site", "none"), UI]),
            (
                Method::POST,
                &[HOST, OURS, ("sec-fetch-site", "same-site"), UI],
            ),
            (Method::POST, &[HOST, ("origin", "http://rehead.lan"), UI]),
            (Method::POST, &[HOST, OURS, ("origin", "null"), UI]),
            (Method::POST, &[OURS, UI]),
        ];
        for (method, pairs) in bad {
            assert!(why(&method, pairs).is_some(), "{method} {pairs:?}");
        }
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
