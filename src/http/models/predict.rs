//! `POST /v1/models/{id}/predict`: predictions of a model or checkpoint for images. The images are
//! written to files, which the inference process decodes; this process never does.

use std::time::Instant;

use anyhow::Context as _;
use axum::extract::Request;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    db::{models::Owner, tenants::TenantId},
    domain::{
        id::CheckpointId,
        problem::Problem,
        work::{self, ImageOutcome},
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, refuse_any, unless_deleted},
            extract::ModelName,
            identity::Identity,
            state::AppState,
        },
        models::{catalog, checkpoint, predict_images::Images},
    },
    serving::bundles::Source,
    telemetry::metrics::{PREDICTION_SECONDS, PREDICTIONS},
};

/// Images to predict, as JSON.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "read by `predict_images`; only its schema is used"
)]
pub(crate) struct PredictRequest {
    /// Image files in base64, with or without `data:image/…;base64,` before it.
    #[schema(min_items = 1)]
    images: Vec<String>,
}

/// Images to predict, as a form: any number of parts named `image`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read part by part; only its schema is used")]
pub(crate) struct PredictForm {
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<Vec<u8>>,
}

/// Predictions of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Predictions {
    /// `list`.
    object: &'static str,
    model: String,
    /// A prediction per image, in order.
    data: Vec<Prediction>,
}

/// Prediction for an image; fields that the task does not have are absent.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Prediction {
    /// Index of the image in the request, from 0.
    index: usize,
    /// Most probable class, in single-label classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Probability of that class.
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    /// Labels whose probability reaches the threshold, in multi-label classification; in label
    /// order.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// Probability of every class, in label order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
    probabilities: Option<Map<String, Value>>,
    /// Predicted value, in regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

/// Predict with a fine-tuned model or a checkpoint
///
/// A checkpoint (`ftckpt_…`) predicts as it was at its step. Its probabilities are not calibrated,
/// and the threshold of each label is one half.
#[utoipa::path(post, path = "/v1/models/{id}/predict", tag = "models", operation_id = "predict", params(("id" = String, Path)),
    request_body(content((PredictForm = "multipart/form-data"), (PredictRequest = "application/json"))),
    responses((status = 200, body = Predictions)))]
pub(crate) async fn predict(
    Caller { state, tenant }: Caller,
    identity: Identity,
    ModelName(id): ModelName,
    request: Request,
) -> Result<axum::Json<Predictions>, ApiError> {
    let source = find(&state, tenant, &id).await?;
    // Places are taken once the images are here: a slow client must not hold one.
    let images = Images::receive(&state, &identity, request).await?;
    let _place = state.quotas.predict(&identity)?;
    let _permit = state.predictor.admit()?;
    let asked = Instant::now();
    let predicted = state.predictor.predict(&source, &images.paths).await;
    PREDICTION_SECONDS.record([], asked.elapsed());
    let found = find(&state, tenant, &id);
    let (outcome, answered) = match unless_deleted(predicted.map_err(ApiError::from), found).await {
        Ok(predictions) => match answer(id.clone(), predictions) {
            Ok(answer) => ("predicted", Ok(axum::Json(answer))),
            Err(refused) => ("refused", Err(refused)),
        },
        Err(error) => ("failed", Err(error)),
    };
    PREDICTIONS.add([outcome.into()], images.paths.len() as u64);
    answered
}

/// The model or checkpoint with this id.
async fn find(state: &AppState, tenant: TenantId, id: &str) -> Result<Source, ApiError> {
    if let Ok(id) = id.parse::<CheckpointId>() {
        let checkpoint = checkpoint::find(state, tenant, id).await?;
        return Ok(Source::Checkpoint(Box::new(checkpoint)));
    }
    let (model, bundle) = catalog::find_ready(state, tenant, id).await?;
    if model.owned_by == Owner::Base {
        let message = format!("`{id}` is a base model, which has no head; fine-tune it first");
        return Err(ApiError::invalid("model", "not_fine_tuned", message));
    }
    Ok(Source::Bundle(bundle))
}

fn answer(model: String, predictions: work::Predictions) -> Result<Predictions, ApiError> {
    let work::Predictions { labels, images } = predictions;
    let mut data = Vec::with_capacity(images.len());
    let mut problems = Vec::new();
    for (index, outcome) in images.into_iter().enumerate() {
        match outcome {
            ImageOutcome::Unreadable(why) => {
                let path = format!("image[{index}]");
                problems.push(Problem::new(path, "unreadable_image", why));
            }
            outcome => data.push(prediction(index, &labels, outcome)?),
        }
    }
    refuse_any(problems)?;
    Ok(Predictions {
        object: "list",
        model,
        data,
    })
}

/// The prediction for an image that could be read.
fn prediction(
    index: usize,
    labels: &[String],
    outcome: ImageOutcome,
) -> anyhow::Result<Prediction> {
    let mut prediction = Prediction {
        index,
        ..Prediction::default()
    };
    match outcome {
        ImageOutcome::Unreadable(why) => anyhow::bail!("an image cannot be read: {why}"),
        ImageOutcome::Probabilities(probabilities) => {
            prediction.probabilities = Some(named(labels, &probabilities)?);
            let classes = labels.iter().zip(probabilities);
            let likeliest = classes.max_by(|a, b| a.1.total_cmp(&b.1));
            let (label, probability) = likeliest.context("the model has no classes")?;
            prediction.label = Some(label.clone());
            prediction.probability = Some(f64::from(probability));
        }
        ImageOutcome::Labels {
            probabilities,
            chosen,
        } => {
            prediction.probabilities = Some(named(labels, &probabilities)?);
            let chosen = chosen.into_iter().filter_map(|label| labels.get(label));
            prediction.labels = Some(chosen.cloned().collect());
        }
        ImageOutcome::Value(value) => {
            anyhow::ensure!(value.is_finite(), "the model answered {value}");
            prediction.value = Some(value);
        }
    }
    Ok(prediction)
}

fn named(labels: &[String], probabilities: &[f32]) -> anyhow::Result<Map<String, Value>> {
    let (got, classes) = (probabilities.len(), labels.len());
    anyhow::ensure!(
        got == classes && probabilities.iter().all(|p| p.is_finite()),
        "the model answered {got} numbers, not all sound, for {classes} classes"
    );
    let pairs = labels.iter().zip(probabilities);
    Ok(pairs
        .map(|(label, &p)| (label.clone(), f64::from(p).into()))
        .collect())
}
