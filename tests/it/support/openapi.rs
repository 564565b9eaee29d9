//! Holds every answer of the suite against openapi.yaml: the route, the status, the content type,
//! and the body's schema.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::Value;

/// The committed contract.
pub(crate) static CONTRACT: LazyLock<Value> = LazyLock::new(|| {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml")).unwrap();
    serde_yaml_ng::from_str(&text).unwrap()
});

static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

/// Panics, saying what differs, unless an answer is as the contract says. `path` may hold a query.
pub(crate) fn check(
    method: &Method,
    path: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) {
    let path = path.split('?').next().unwrap();
    let place = format!("{method} {path} answered {status}");
    assert!(
        headers.contains_key("x-request-id"),
        "{place} without x-request-id"
    );
    // What is not built in does not come by waiting.
    let is_page = path.starts_with("/ui");
    if [429, 503].contains(&status.as_u16()) && !is_page {
        assert!(
            headers.contains_key("retry-after"),
            "{place} without retry-after"
        );
    }
    let response = match operation(method, path) {
        Some(operation) => response(operation, status, &place),
        // Unknown routes and methods have the envelope all the same; pages of /docs are no part of
        // the contract.
        None if path.starts_with("/docs") || is_page => return,
        None => {
            assert!(
                status.is_client_error(),
                "{place}, though the contract has no such route"
            );
            &CONTRACT["components"]["responses"]["Error"]
        }
    };
    let Some(contents) = response["content"].as_object() else {
        assert!(
            body.is_empty(),
            "{place} with a body that the contract does not have"
        );
        return;
    };
    if method == Method::HEAD {
        return;
    }
    let said = headers
        .get(CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap());
    let essence = said.split(';').next().unwrap().trim();
    let content = contents
        .get(essence)
        .unwrap_or_else(|| panic!("{place} as `{essence}`, not as {:?}", contents.keys()));
    if essence == "application/json" {
        let value: Value = serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("{place} with broken JSON: {error}"));
        validate(&content["schema"], &value, &place);
    }
}

/// The operation behind a real path; paths without parameters first.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let paths = CONTRACT["paths"].as_object().unwrap();
    let mut matching: Vec<&String> = paths
        .keys()
        .filter(|template| matches(template, path))
        .collect();
    matching.sort_by_key(|template| template.matches('{').count());
    let item = &paths[*matching.first()?];
    // axum answers HEAD by what GET says.
    let name = if method == Method::HEAD {
        "get".to_owned()
    } else {
        method.as_str().to_lowercase()
    };
    item.get(name)
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(&path)
            .all(|(part, real)| part == real || (part.starts_with('{') && !real.is_empty()))
}

fn response(operation: &'static Value, status: StatusCode, place: &str) -> &'static Value {
    let responses = &operation["responses"];
    let found = responses.get(status.as_str()).or_else(|| {
        // What is not listed must be an error.
        (status.is_client_error() || status.is_server_error()).then(|| &responses["default"])
    });
    let response = found.unwrap_or_else(|| panic!("{place}, which the contract does not list"));
    match response["$ref"].as_str() {
        Some(reference) => CONTRACT
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap(),
        None => response,
    }
}

/// Compiled schemas, by their text.
#[derive(Default)]
struct Compiled {
    schemas: Schemas,
    by_text: HashMap<String, SchemaIndex>,
}

/// Panics with every difference between a value and a schema of the contract.
pub(crate) fn validate(schema: &Value, value: &Value, place: &str) {
    let mut compiled = COMPILED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let Compiled { schemas, by_text } = &mut *compiled;
    let index = *by_text.entry(schema.to_string()).or_insert_with(|| {
        let mut document = schema.clone();
        // References are from the root of the contract.
        document["components"] = CONTRACT["components"].clone();
        let url = format!("https://contract.invalid/{}", schemas.size());
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource(&url, document).unwrap();
        compiler.compile(&url, schemas).unwrap()
    });
    if let Err(error) = schemas.validate(value, index) {
        panic!("{place}, not as the contract says:\n{error:#}\n{value:#}");
    }
}
