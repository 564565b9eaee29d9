//! `rehead predict`: predicts image files with a model, a line each.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::Form;
use serde_json::Value;

use super::api::{self, Api};
use crate::config::ClientArgs;

/// `rehead predict`
#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Model id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    #[arg(long)]
    pub model: String,
    /// Image files
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
}

/// Prints file, label and probability, separated by tabs; with several labels each of them, and for
/// a regression the number.
///
/// # Errors
/// There is no such model; there are too many images, or one cannot be read.
pub async fn run(args: &PredictArgs) -> anyhow::Result<()> {
    let mut form = Form::new();
    for image in &args.images {
        form = form.part("image", api::file_part(image).await?);
    }
    let path = format!("{}/predict", api::model_path(&args.model));
    let answer = Api::new(&args.client).post_form(&path, form).await?;
    if args.client.json {
        return api::print_json(&answer);
    }
    let predictions = answer["data"]
        .as_array()
        .context("the response has no `data`; use a client of the service's version")?;
    for (image, prediction) in args.images.iter().zip(predictions) {
        api::print(&format!("{}\t{}", image.display(), describe(prediction)))?;
    }
    Ok(())
}

fn describe(prediction: &Value) -> String {
    if let Some(value) = prediction["value"].as_f64() {
        return value.to_string();
    }
    let share = |share: &Value| format!("{:.3}", share.as_f64().unwrap_or(f64::NAN));
    if let Some(labels) = prediction["labels"].as_array() {
        let labels = labels.iter().filter_map(Value::as_str);
        let each = labels.map(|label| {
            let probability = share(&prediction["probabilities"][label]);
            format!("{label}\t{probability}")
        });
        return each.collect::<Vec<_>>().join("\t");
    }
    let label = prediction["label"].as_str().unwrap_or("?");
    format!("{label}\t{}", share(&prediction["probability"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_task_has_its_own_line() {
        let one = json!({"label": "cat", "probability": 0.9});
        assert_eq!(describe(&one), "cat\t0.900");
        let several = json!({"labels": ["cat", "dog"], "probabilities": {"cat": 0.9, "dog": 0.5, "owl": 0.1}});
        assert_eq!(describe(&several), "cat\t0.900\tdog\t0.500");
        assert_eq!(describe(&json!({"labels": [], "probabilities": {}})), "");
        assert_eq!(describe(&json!({"value": -2.5})), "-2.5");
    }
}
