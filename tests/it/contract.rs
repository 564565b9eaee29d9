//! openapi.yaml is current, complete, and true of a running service.

use std::collections::{HashMap, HashSet};

use regex::Regex;
use reqwest::{Client, Method, StatusCode, header::LOCATION, redirect::Policy};

use crate::support::openapi::CONTRACT;

#[test]
fn the_committed_contract_is_the_generated_one() {
    let generated = rehead::http::openapi().to_yaml().unwrap();
    let committed = include_str!("../../openapi.yaml");
    assert!(
        generated == committed,
        "openapi.yaml is stale: run `make openapi`, or `target/release/rehead openapi > openapi.yaml`"
    );
}

#[test]
fn every_operation_is_described() {
    for (path, item) in CONTRACT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{place} has no summary"
            );
            assert!(
                operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.len() == 1),
                "{place} has no tag"
            );
            assert!(
                operation["responses"]["default"].is_object(),
                "{place} has no errors"
            );
            for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = parameter.trim_end_matches('}');
                let described = operation["parameters"].as_array().into_iter().flatten();
                assert!(
                    described.into_iter().any(|one| one["name"] == name),
                    "{place} does not describe {name}"
                );
            }
        }
    }
}

/// Client generators name functions by operation ids and types by schemas.
#[test]
fn operation_ids_and_schemas_are_unique_and_used() {
    let operations = CONTRACT["paths"].as_object().unwrap().values();
    let mut ids: Vec<&str> = operations
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operation id is not unique: {ids:?}");

    let schemas = CONTRACT["components"]["schemas"].as_object().unwrap();
    let mut by_text = HashMap::new();
    for (name, schema) in schemas {
        if let Some(other) = by_text.insert(schema.to_string(), name) {
            // Ids have one form, and so have small objects of one number.
            let is_object = schema["properties"]
                .as_object()
                .is_some_and(|all| all.len() > 1);
            assert!(!is_object, "{name} and {other} are the same schema");
        }
    }
    let text = CONTRACT.to_string();
    let pattern = Regex::new(r##""#/components/schemas/([^"]+)""##).unwrap();
    let used: HashSet<&str> = pattern
        .captures_iter(&text)
        .map(|found| found.get(1).unwrap().as_str())
        .collect();
    for name in &used {
        assert!(schemas.contains_key(*name), "no schema {name}");
    }
    for name in schemas.keys() {
        assert!(used.contains(name.as_str()), "nothing uses schema {name}");
    }
}

/// Routes and contract are one registration as long as nobody adds a route beside it.
#[test]
fn no_route_is_added_beside_the_contract() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http");
    for path in crate::support::data::files_below(std::path::Path::new(sources)) {
        // The dashboard's files are no part of the contract.
        if path.ends_with("/http/ui.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for beside in [".route(", ".route_service(", ".nest(", "axum::routing"] {
            assert!(
                !text.contains(beside),
                "{path} adds a route with `{beside}`"
            );
        }
    }
}

#[tokio::test]
async fn the_service_has_exactly_the_routes_of_the_contract() {
    let service = crate::support::service::Service::start().await;
    let methods = [
        Method::GET,
        Method::POST,
        Method::DELETE,
        Method::PUT,
        Method::PATCH,
    ];
    for (template, item) in CONTRACT["paths"].as_object().unwrap() {
        let path: Vec<&str> = template
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    "nothing"
                } else {
                    part
                }
            })
            .collect();
        let path = path.join("/");
        for method in &methods {
            let answer = service.send(method.clone(), &path, |request| request).await;
            if item.get(method.as_str().to_lowercase()).is_some() {
                assert_ne!(
                    answer.status,
                    StatusCode::METHOD_NOT_ALLOWED,
                    "{method} {template}"
                );
                assert!(
                    answer.status.is_success() || !answer.text().contains("unknown_route"),
                    "{method} {template}"
                );
            } else {
                answer.error(405, "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn the_service_hands_out_its_contract_and_its_page() {
    let service = crate::support::service::Service::start().await;
    let yaml = service.get("/openapi.yaml").await;
    assert_eq!(yaml.text(), include_str!("../../openapi.yaml"));
    let page = service.get("/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    // Everything that the page loads comes from the service itself.
    let html = page.text();
    for attribute in ["src=\"", "href=\""] {
        for (at, _) in html.match_indices(attribute) {
            let target = html[at + attribute.len()..].split('"').next().unwrap();
            assert!(!target.contains("//"), "the page loads {target}");
            let path = format!("/docs/{}", target.trim_start_matches("./"));
            assert_eq!(service.get(&path).await.status, StatusCode::OK, "{path}");
        }
    }
}

/// A reverse proxy may serve everything below `/rehead/`: all addresses must be relative.
#[tokio::test]
async fn the_page_works_below_a_path_prefix() {
    let service = crate::support::service::Service::start().await;
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    let docs = format!("{}/docs", service.url);
    let redirect = client.get(docs).send().await.unwrap();
    assert_eq!(redirect.status(), StatusCode::SEE_OTHER);
    assert_eq!(redirect.headers()[LOCATION], "docs/");
    let script = service.get("/docs/swagger-initializer.js").await.text();
    assert!(script.contains(r#""../openapi.yaml""#), "{script}");
    assert_eq!(CONTRACT["servers"][0]["url"], ".");
}
