//! The dashboard's files, as the service sends them. The page itself is tested in a browser
//! (`make test-ui`); this holds with and without `ui/dist` in the executable.

use reqwest::{Client, StatusCode, redirect::Policy};

use crate::support::service::Service;

/// Sends a browser's request.
async fn browse(service: &Service, path: &str) -> reqwest::Response {
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    let request = client.get(format!("{}{path}", service.url));
    let accept = "text/html,application/xhtml+xml,*/*;q=0.8";
    request.header("accept", accept).send().await.unwrap()
}

#[tokio::test]
async fn browsers_are_led_to_the_page_by_a_relative_address() {
    let service = Service::start().await;
    for path in ["/", "/ui"] {
        let response = browse(&service, path).await;
        assert_eq!(response.status(), StatusCode::FOUND, "{path}");
        assert_eq!(response.headers()["location"], "ui/", "{path}");
    }
    service.get("/").await.error(404, "unknown_route");
}

#[tokio::test]
async fn page_has_its_headers_or_says_how_to_build_it() {
    let service = Service::start().await;
    let response = browse(&service, "/ui/").await;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        let error = service.get("/ui/").await.error(503, "ui_not_built");
        assert!(error.contains("make ui"), "{error}");
        return;
    }
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "script-src 'self';",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
    let page = response.text().await.unwrap();
    assert!(
        !page.contains("=\"/"),
        "an address of the page is absolute: {page}"
    );
    let asset = page.split('"').find(|part| part.starts_with("./assets/"));
    let path = format!("/ui/{}", asset.unwrap().trim_start_matches("./"));
    let asset = browse(&service, &path).await;
    assert_eq!(asset.status(), StatusCode::OK, "{path}");
    let lifetime = asset.headers()["cache-control"].to_str().unwrap();
    assert!(lifetime.contains("immutable"), "{lifetime}");
    service
        .get("/ui/nothing.js")
        .await
        .error(404, "unknown_route");
}
