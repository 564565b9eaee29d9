//! `POST /v1/models/{id}/predict`: predictions of a model or checkpoint for images. The images are
//! written to files, which the inference process decodes; this process never does.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{body::Bytes, extract::Request};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::io::StreamReader;
use utoipa::ToSchema;

use crate::{
    db::{models::Owner, tenants::TenantId},
    domain::{
        codes,
        id::CheckpointId,
        problem::{Problem, quoted},
        work::{self, ImageOutcome},
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, refuse_any},
            extract::{Json, ModelName, is_json, parse_json, read_body},
            multipart,
            state::AppState,
        },
        models::{catalog, checkpoint},
    },
    serving::bundles::Source,
    telemetry::metrics::{PREDICTION_SECONDS, PREDICTIONS},
};

/// Images to predict, as JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
    ModelName(id): ModelName,
    request: Request,
) -> Result<axum::Json<Predictions>, ApiError> {
    let source = find(&state, tenant, &id).await?;
    let _permit = state.predictor.admit()?;
    let spool = state.predictor.spool().await?;
    let images = if is_json(request.headers()) {
        from_json(&state, request, spool.path()).await?
    } else {
        from_form(&state, request, spool.path()).await?
    };
    if images.is_empty() {
        let message = "is required: send at least one image";
        return Err(ApiError::invalid("image", codes::MISSING_FIELD, message));
    }
    let asked = Instant::now();
    let predicted = state.predictor.predict(&source, &images).await;
    PREDICTION_SECONDS.record([], asked.elapsed());
    let (outcome, answered) = match predicted {
        Ok(predictions) => match answer(id, predictions) {
            Ok(answer) => ("predicted", Ok(axum::Json(answer))),
            Err(refused) => ("refused", Err(refused)),
        },
        Err(error) => ("failed", Err(error.into())),
    };
    PREDICTIONS.add([outcome.into()], images.len() as u64);
    answered
}

/// The model or checkpoint with this id.
async fn find(state: &AppState, tenant: TenantId, id: &str) -> Result<Source, ApiError> {
    if let Ok(id) = id.parse::<CheckpointId>() {
        let checkpoint = checkpoint::find(state, tenant, id).await?;
        return Ok(Source::Checkpoint(Box::new(checkpoint)));
    }
    let (model, prefix) = catalog::find_ready(state, tenant, id).await?;
    if model.owned_by == Owner::Base {
        let message = format!("`{id}` is a base model, which has no head; fine-tune it first");
        return Err(ApiError::invalid("model", "not_fine_tuned", message));
    }
    Ok(Source::Bundle(prefix))
}

/// Reads any number of parts named `image`, each a file.
async fn from_form(
    state: &AppState,
    request: Request,
    spool: &Path,
) -> Result<Vec<PathBuf>, ApiError> {
    let limits = &state.limits;
    let idle = Duration::from_secs(limits.body_seconds);
    let expected = "multipart/form-data` or `application/json";
    let mut parts = multipart::open(request, state, expected).await?;
    let mut images = Vec::new();
    while let Some(field) = multipart::next(&mut parts, idle).await? {
        let name = field.name().unwrap_or_default();
        if !matches!(name, "image" | "images" | "image[]" | "images[]" | "file") {
            let message = "unknown field; send images as `image`";
            return Err(ApiError::invalid(
                quoted(name),
                codes::UNKNOWN_FIELD,
                message,
            ));
        }
        check_count(images.len() + 1, limits.max_predict_images)?;
        let path = spool.join(images.len().to_string());
        let bytes = multipart::bytes(field, limits.max_predict_image_bytes as u64, idle);
        write_file(&path, bytes)
            .await
            .map_err(|error| multipart::explain(error, "image"))?;
        images.push(path);
    }
    Ok(images)
}

/// Reads `{"images": ["…"]}`.
async fn from_json(
    state: &AppState,
    request: Request,
    spool: &Path,
) -> Result<Vec<PathBuf>, ApiError> {
    let limits = &state.limits;
    // Enough for one image of the largest size in base64; more are sent as a form, which is never
    // held in memory.
    let limit = limits.max_predict_image_bytes / 3 * 4 + (64 << 10);
    let body = read_body(request.into_body(), limit, limits.body_seconds).await?;
    let PredictRequest { images } = Json(parse_json(&body)?).read()?;
    drop(body);
    check_count(images.len(), limits.max_predict_images)?;
    let mut problems = Vec::new();
    let mut paths = Vec::new();
    for (index, text) in images.into_iter().enumerate() {
        let encoded = match text.split_once(";base64,") {
            Some((mark, rest)) if mark.starts_with("data:") => rest,
            _ => &text,
        };
        let Ok(bytes) = decode_base64(encoded) else {
            let path = format!("images[{index}]");
            let message = "must be the base64 of an image file";
            problems.push(Problem::new(path, "invalid_base64", message));
            continue;
        };
        let path = spool.join(index.to_string());
        tokio::fs::write(&path, bytes)
            .await
            .map_err(|error| multipart::explain(error, "images"))?;
        paths.push(path);
    }
    refuse_any(problems)?;
    Ok(paths)
}

/// Decodes base64 in lines, with or without padding, in the usual or the URL-safe alphabet: GNU's
/// `base64` breaks lines after 76 characters, and browsers' encoders leave out the padding.
fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    let usual = |byte: u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    ENGINE.decode(bytes.map(usual).collect::<Vec<u8>>())
}

fn check_count(count: usize, limit: usize) -> Result<(), ApiError> {
    if count <= limit {
        return Ok(());
    }
    let message =
        format!("a request takes at most {limit} images; send the others in further requests");
    Err(ApiError::too_large("image", message))
}

async fn write_file(path: &Path, bytes: impl Stream<Item = io::Result<Bytes>>) -> io::Result<u64> {
    let mut file = tokio::fs::File::create(path).await?;
    let bytes = std::pin::pin!(bytes);
    tokio::io::copy(&mut StreamReader::new(bytes), &mut file).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_programs_write_it() {
        let image = b"\xfb\xff\xfe image";
        for text in [
            "+//+IGltYWdl",
            "-__-IGltYWdl",
            "+//+\r\nIGlt\nYWdl\n",
            " +//+ IGltYWdl ",
        ] {
            assert_eq!(decode_base64(text).as_deref(), Ok(&image[..]), "{text}");
        }
        for text in ["QQ==", "QQ", "QQ=="] {
            assert_eq!(decode_base64(text).as_deref(), Ok(&b"A"[..]), "{text}");
        }
        for text in ["Q", "Q=Q=", "a*b", "é"] {
            assert!(decode_base64(text).is_err(), "{text}");
        }
    }
}
