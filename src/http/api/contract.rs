//! openapi.yaml: generated from the routes and their types, committed at the root, held current by `tests/it/contract.rs`.

use std::sync::Arc;

use axum::Router;
use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::http::api::{error::ErrorBody, state::AppState};

/// What stands above the routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Rehead", description = "Transfer learning as a service: post a fine-tuning job, get back a model. \
        Shaped as OpenAI's fine-tuning API; times are Unix seconds, unknown request fields are refused by name."),
    components(schemas(ErrorBody)),
    tags(
        (name = "files", description = "Data sets and weights."),
        (name = "models", description = "Base models and fine-tuned ones."),
        (name = "jobs", description = "Fine-tuning jobs, and what they leave."),
        (name = "workers", description = "Who trains."),
        (name = "service", description = "For operators and tools.")
    )
)]
pub(crate) struct Head;

/// The contract as text, for `GET /openapi.yaml`.
#[derive(Clone)]
pub(crate) struct Contract(pub Arc<str>);

/// Adds to a description of the routes what no route has by itself: keys, the shape of errors.
pub(crate) fn complete(mut openapi: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let components = openapi.components.get_or_insert_with(Components::new);
    let key = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("rh_…");
    let description =
        "Made with `rehead keys create`. A service without keys is open, on loopback only.";
    components.security_schemes.insert(
        "key".to_owned(),
        SecurityScheme::Http(key.description(Some(description)).build()).into(),
    );
    let error = ResponseBuilder::new()
        .description("Every answer that is not a success; codes are listed in docs/errors.md.")
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
    openapi.security = Some(vec![
        SecurityRequirement::new("key", [] as [&str; 0]),
        SecurityRequirement::default(),
    ]);
    for item in openapi.paths.paths.values_mut() {
        for operation in operations(item) {
            operation.responses.responses.insert(
                "default".to_owned(),
                RefOr::Ref(Ref::new("#/components/responses/Error")),
            );
        }
    }
    openapi
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

/// `/docs`: the contract as a page. Everything it loads comes from this service.
pub(crate) fn page() -> Router<AppState> {
    use utoipa_swagger_ui::{Config, SwaggerUi};
    SwaggerUi::new("/docs")
        .config(Config::new(["/openapi.yaml"]))
        .into()
}
