//! The dashboard: the files of `ui/dist`, which `make ui` builds, part of the executable. They are
//! the same for everybody and hold no data, so that they need no key; what the page shows it asks
//! the API for. A debug build reads them from the folder.
//!
//! Every file lies in the folder a second time, compressed (`.gz`): only that one is built in, and
//! unpacked for clients that do not take it. Names below `assets/` contain a hash of the content,
//! and never change theirs.

use std::{borrow::Cow, io::Read as _};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use flate2::read::GzDecoder;
use rust_embed::Embed;
use sha2::{Digest as _, Sha256};

use crate::http::api::{conditional, error::ApiError, state::AppState};

#[derive(Embed)]
#[folder = "ui/dist"]
#[allow_missing = true]
#[include = "*.gz"]
struct Dist;

const INDEX: &str = "index.html";
/// Cache lifetime of files whose names contain a hash: a year.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");
/// Bytes of the hash in an entity tag.
const TAG_BYTES: usize = 16;

/// Nothing is loaded from elsewhere or executed but the page's own scripts, and no other page
/// frames it. Svelte writes its templates through the one policy of trusted types.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=()",
    ),
];

/// The routes of the dashboard. They are no part of the contract.
pub(crate) fn page() -> Router<AppState> {
    Router::new()
        .route("/ui", get(async || found("ui/")))
        .route(
            "/ui/",
            get(async |headers: HeaderMap| file(INDEX, &headers)),
        )
        .route(
            "/ui/{*path}",
            get(async |Path(path): Path<String>, headers: HeaderMap| file(&path, &headers)),
        )
}

/// The redirect of a browser that opens the service's address, below any path prefix.
pub(crate) fn redirect(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let accepts = headers.get(header::ACCEPT)?.to_str().ok()?;
    let is_browser = method == Method::GET && uri.path() == "/" && accepts.contains("text/html");
    is_browser.then(|| found("ui/"))
}

fn found(location: &'static str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let find = |name: &str| Dist::get(&format!("{name}.gz")).map(|file| file.data);
    respond(path, headers, find)
}

/// The response to a request for a file, whose compressed form `find` finds.
///
/// # Errors
/// 404, or 503 where there is no page.
fn respond(
    path: &str,
    headers: &HeaderMap,
    find: impl Fn(&str) -> Option<Cow<'static, [u8]>>,
) -> Result<Response, ApiError> {
    let Some(compressed) = find(path).filter(|_| media_type(path).is_some()) else {
        return Err(match find(INDEX) {
            Some(_) => ApiError::unknown_route(None),
            None => not_built(),
        });
    };
    let hash = hex::encode(&Sha256::digest(&compressed)[..TAG_BYTES]);
    let etag = format!("W/\"{hash}\"");
    let mut response = if conditional::is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if accepts_gzip(headers) {
        let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        ([encoding], compressed.into_owned()).into_response()
    } else {
        unpacked(&compressed)?.into_response()
    };
    let all = response.headers_mut();
    if let Some(media_type) = media_type(path) {
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    all.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        all.insert(header::ETAG, etag);
    }
    let is_hashed = path.starts_with("assets/");
    let lifetime = if is_hashed { IMMUTABLE } else { REVALIDATE };
    all.insert(header::CACHE_CONTROL, lifetime);
    for (name, value) in HEADERS {
        all.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn unpacked(compressed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut plain)?;
    Ok(plain)
}

fn not_built() -> ApiError {
    let message = "this executable was built without the dashboard; run `make ui`, which needs Node, and build again. \
        The API works without it, see /docs/";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ui_not_built", message)
}

/// The media type of a file that the page consists of. Others, such as the compressed forms, are
/// not served by their names.
fn media_type(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

/// True for a client that takes gzip (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_gzip = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            is_gzip && weight.is_none_or(|weight| weight > 0.0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &[u8] = b"<!doctype html>";

    fn built(name: &str) -> Option<Cow<'static, [u8]>> {
        let text = match name {
            "index.html" => PAGE,
            "assets/index-1a2b.js" => b"let a;",
            _ => return None,
        };
        let mut compressed = Vec::new();
        let mut encoder = flate2::bufread::GzEncoder::new(text, flate2::Compression::best());
        encoder.read_to_end(&mut compressed).unwrap();
        Some(Cow::Owned(compressed))
    }

    fn ask(path: &str, pairs: &[(HeaderName, &str)]) -> Result<Response, ApiError> {
        let headers = pairs.iter().cloned();
        let headers = headers.map(|(name, value)| (name, value.parse().unwrap()));
        respond(path, &headers.collect(), built)
    }

    #[test]
    fn an_executable_without_the_files_says_how_to_build_them() {
        for path in [INDEX, "assets/index-1a2b.js"] {
            let error = respond(path, &HeaderMap::new(), |_| None).unwrap_err();
            assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(error.body.code, "ui_not_built");
            assert!(
                error.body.message.contains("make ui"),
                "{}",
                error.body.message
            );
        }
    }

    #[test]
    fn the_page_is_revalidated_and_its_assets_are_not() {
        let page = ask(INDEX, &[]).unwrap();
        assert_eq!(page.headers()[header::CACHE_CONTROL], "no-cache");
        let etag = page.headers()[header::ETAG].to_str().unwrap();
        let again = ask(INDEX, &[(header::IF_NONE_MATCH, etag)]).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(
            again
                .headers()
                .contains_key(header::CONTENT_SECURITY_POLICY)
        );
        let asset = ask("assets/index-1a2b.js", &[]).unwrap();
        assert_eq!(asset.headers()[header::CACHE_CONTROL], IMMUTABLE);
        assert_eq!(
            asset.headers()[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
    }

    #[tokio::test]
    async fn compressed_forms_go_to_clients_that_take_them() {
        let accept = |value| ask(INDEX, &[(header::ACCEPT_ENCODING, value)]).unwrap();
        let body = async |response: Response| {
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
            body.unwrap()
        };
        for yes in ["gzip", "br, GZIP;q=0.5", "deflate, gzip"] {
            let response = accept(yes);
            let encoding = &response.headers()[header::CONTENT_ENCODING];
            assert_eq!(encoding, "gzip", "{yes}");
            assert_eq!(body(response).await, *built(INDEX).unwrap());
        }
        for no in ["", "br", "gzip;q=0", "xgzip"] {
            let response = accept(no);
            let headers = response.headers();
            assert!(!headers.contains_key(header::CONTENT_ENCODING), "{no}");
            assert_eq!(body(response).await, PAGE);
        }
    }

    #[test]
    fn names_that_are_not_there_are_unknown() {
        for path in ["index.html.gz", "nothing.js", "../Cargo.toml", "assets", ""] {
            let error = ask(path, &[]).unwrap_err();
            assert_eq!(error.body.code, "unknown_route", "{path}");
        }
    }

    #[test]
    fn browsers_are_led_to_the_page_and_programs_are_not() {
        let led = |method: Method, path: &'static str, accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
            redirect(&method, &Uri::from_static(path), &headers)
        };
        let response = led(Method::GET, "/", "text/html,application/xhtml+xml").unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.headers()[header::LOCATION], "ui/");
        assert!(led(Method::GET, "/", "*/*").is_none());
        assert!(led(Method::GET, "/v1", "text/html").is_none());
        assert!(led(Method::POST, "/", "text/html").is_none());
    }
}
