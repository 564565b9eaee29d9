//! `rehead predict`: asks a model about image files, one line for each.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::Form;

use super::api::{self, Api};
use crate::config::ClientArgs;

/// `rehead predict`
#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The model's id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    #[arg(long)]
    pub model: String,
    /// Image files
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
}

/// Prints file, label and probability, separated by tabs.
///
/// # Errors
/// What the service says: no such model, too many images, or one that cannot be read.
pub async fn run(args: &PredictArgs) -> anyhow::Result<()> {
    let mut form = Form::new();
    for image in &args.images {
        form = form.part("image", api::file_part(image).await?);
    }
    let path = format!("/v1/models/{}/predict", args.model);
    let answer = Api::new(&args.client).post_form(&path, form).await?;
    let predictions = answer["data"]
        .as_array()
        .context("the answer has no `data`")?;
    for (image, prediction) in args.images.iter().zip(predictions) {
        let label = prediction["label"].as_str().unwrap_or("?");
        let probability = prediction["probability"].as_f64().unwrap_or(f64::NAN);
        api::print(&format!("{}\t{label}\t{probability:.3}", image.display()))?;
    }
    Ok(())
}
