//! openapi.yaml: generated from the routes and their types, committed at the root, held current by
//! `tests/it/contract.rs`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::Response,
};
use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, PathItem},
        schema::{ArrayItems, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
        server::Server,
    },
};

use crate::http::api::{error::ErrorBody, flat_schemas, session, state::AppState};

/// The contract without its routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Rehead", description = "Transfer learning as a service: post a fine-tuning job, get back a model. \
        Shaped as OpenAI's fine-tuning API; times are Unix seconds, unknown request fields are refused by name."),
    components(schemas(ErrorBody)),
    tags(
        (name = "files", description = "Data sets and weights."),
        (name = "uploads", description = "Large files, in parts."),
        (name = "models", description = "Base models and fine-tuned models."),
        (name = "jobs", description = "Fine-tuning jobs and their results."),
        (name = "webhooks", description = "URLs that are told when jobs end."),
        (name = "workers", description = "Worker processes."),
        (name = "keys", description = "API keys, for admins."),
        (name = "service", description = "For operators and tools.")
    )
)]
pub(crate) struct Head;

/// The contract as text, for `GET /openapi.yaml`.
#[derive(Clone)]
pub(crate) struct Contract(pub Arc<str>);

/// Completes the generated description: keys, errors, descriptions of responses, references.
pub(crate) fn complete(mut openapi: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let components = openapi.components.get_or_insert_with(Components::new);
    let key = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("rh_…");
    let description =
        "Created with `rehead keys create`. A service without keys is open, on loopback only.";
    components.security_schemes.insert(
        "key".to_owned(),
        SecurityScheme::Http(key.description(Some(description)).build()).into(),
    );
    let description = "Begun by `POST /v1/session`, for pages of this service. What changes something also needs \
        the header `x-rehead-ui: 1`.";
    components.security_schemes.insert(
        "session".to_owned(),
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
            session::COOKIE,
            description,
        )))
        .into(),
    );
    let error = ResponseBuilder::new()
        .description("Any error; docs/errors.md lists the codes.")
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorBody")))
                .build(),
        )
        .build();
    components
        .responses
        .insert("Error".to_owned(), RefOr::T(error));
    refer_to_items(&mut components.schemas);
    openapi.security = Some(vec![
        SecurityRequirement::new("key", [] as [&str; 0]),
        SecurityRequirement::new("session", [] as [&str; 0]),
        SecurityRequirement::default(),
    ]);
    // Relative to this document, so that it holds below any path prefix.
    openapi.servers = Some(vec![Server::new(".")]);
    for item in openapi.paths.paths.values_mut() {
        for operation in operations(item) {
            complete_responses(operation);
        }
    }
    flatten(&mut openapi);
    openapi
}

/// Flattens the schemas, and removes those that are then parts of others only.
fn flatten(openapi: &mut utoipa::openapi::OpenApi) {
    if let Some(components) = &mut openapi.components {
        flat_schemas::flatten(&mut components.schemas);
    }
    loop {
        let document =
            serde_json::to_string(&openapi).expect("the contract is JSON: this is a bug");
        let Some(components) = &mut openapi.components else {
            return;
        };
        let unused = flat_schemas::unused(&components.schemas, &document);
        if unused.is_empty() {
            return;
        }
        for name in unused {
            components.schemas.remove(&name);
        }
    }
}

/// Names the schema of `T` in `List<T>`, which utoipa copies into it.
fn refer_to_items(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    for (name, schema) in schemas {
        if let Some(item) = name.strip_prefix("List_")
            && let RefOr::T(Schema::Object(list)) = schema
            && let Some(RefOr::T(Schema::Array(data))) = list.properties.get_mut("data")
        {
            let item = Ref::from_schema_name(item).into();
            data.items = ArrayItems::RefOrSchema(Box::new(item));
        }
    }
}

/// Adds the response to errors, the descriptions that OpenAPI requires, and the schema of binary
/// bodies, which utoipa takes for lists of numbers.
fn complete_responses(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    for (status, response) in &mut *responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if response.description.is_empty() {
            let status = status.parse().ok().map(StatusCode::from_u16);
            let reason = status
                .and_then(Result::ok)
                .and_then(|status| status.canonical_reason());
            response.description = reason.unwrap_or_default().to_owned();
        }
        for (media_type, content) in &mut response.content {
            let is_binary = media_type.starts_with("image/") && media_type != "image/svg+xml"
                || ["application/octet-stream", "application/zip"].contains(&media_type.as_str());
            if let RefOr::T(content) = content
                && is_binary
            {
                let bytes = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
                content.schema = Some(bytes.into());
            }
        }
    }
    let error = || RefOr::Ref(Ref::new("#/components/responses/Error"));
    responses.insert("4XX".to_owned(), error());
    responses.insert("default".to_owned(), error());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.delete,
        &mut item.put,
        &mut item.patch,
        &mut item.head,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// `/docs`: the contract as a page. It loads everything from this service, by relative addresses,
/// so that it works below a path prefix.
pub(crate) fn page() -> Router<AppState> {
    use utoipa_swagger_ui::{Config, SwaggerUi};
    let page = SwaggerUi::new("/docs").config(Config::new(["../openapi.yaml"]));
    Router::from(page).layer(map_response(async |mut response: Response| {
        if let Some(location) = response.headers_mut().get_mut(header::LOCATION) {
            *location = HeaderValue::from_static("docs/");
        }
        response
    }))
}
