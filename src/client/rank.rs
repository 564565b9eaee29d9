//! `rehead rank`: ranks base models by how well their features fit a data set.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    api::{self, Api, given},
    table::render,
    upload::{self, HubPart},
};
use crate::{config::ClientArgs, domain::file::UploadPurpose};

/// Longest wait for a ranking in one request (s).
const WAIT: u64 = 30;
/// Pause before a ranking that has not ended is asked for again.
const PAUSE: Duration = Duration::from_millis(300);

/// `rehead rank`
#[derive(Debug, Args)]
pub struct RankArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Folder with a folder of images per class, an archive, or a data set of the hub, such as
    /// `hf://datasets/org/pets`
    #[arg(value_name = "PATH", required_unless_present_any = ["data", "file"])]
    pub path: Option<PathBuf>,
    /// The same as PATH
    #[arg(long, value_name = "PATH", conflicts_with = "path")]
    pub data: Option<PathBuf>,
    /// Id of an uploaded data set
    #[arg(long, conflicts_with_all = ["path", "data"])]
    pub file: Option<String>,
    /// Ids of base models; all when left out
    #[arg(long, value_delimiter = ',')]
    pub models: Option<Vec<String>>,
    /// Licenses, as the models name them
    #[arg(long, value_delimiter = ',')]
    pub licenses: Option<Vec<String>>,
    /// Most parameters of a model
    #[arg(long)]
    pub max_parameters: Option<u64>,
    /// Most multiplications for one image
    #[arg(long)]
    pub max_macs: Option<u64>,
}

/// Prints the base models, the most promising one first.
///
/// # Errors
/// The service refuses; the ranking fails.
pub async fn run(args: &RankArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let file = match (&args.file, args.path.as_ref().or(args.data.as_ref())) {
        (Some(id), _) => id.clone(),
        (None, Some(path)) => {
            let file =
                upload::upload(&api, path, UploadPurpose::FineTune, HubPart::default()).await?;
            api::id_of(&file)?
        }
        (None, None) => anyhow::bail!("no data set: give a folder, an archive or --file"),
    };
    upload::validated(&api, &file).await?;
    let body = given(json!({
        "training_file": file,
        "candidates": {
            "models": args.models,
            "licenses": args.licenses,
            "max_parameters": args.max_parameters,
            "max_macs": args.max_macs,
        },
    }));
    let mut ranking = api.post("/v1/model_rankings", &body).await?;
    let id = api::id_of(&ranking)?;
    api::report(&format!(
        "{id}: ranking {} base models for {file}",
        ranking["candidates"]
    ));
    while ranking["finished_at"].is_null() {
        tokio::time::sleep(PAUSE).await;
        let path = format!("/v1/model_rankings/{id}?wait={WAIT}");
        ranking = api.get(&path).await?;
    }
    if ranking["status"] != "succeeded" {
        let message = ranking["error"]["message"].as_str().unwrap_or_default();
        anyhow::bail!("ranking {id} failed: {message}");
    }
    if args.client.json {
        return api::print_json(&ranking);
    }
    let rows = ranking["data"].as_array().map_or(&[][..], Vec::as_slice);
    let heads = [
        "RANK",
        "MODEL",
        "SCORE",
        "TIED",
        "SAMPLES",
        "KNN",
        "LOGME",
        "PARAMETERS",
        "LICENSE",
    ];
    api::print(&render(&heads, rows.iter().map(row)))?;
    for excluded in ranking["excluded"].as_array().into_iter().flatten() {
        let text = |name: &str| excluded[name].as_str().unwrap_or_default();
        api::report(&format!(
            "not ranked: {}: {}",
            text("model"),
            text("detail")
        ));
    }
    Ok(())
}

fn row(model: &Value) -> Vec<String> {
    let number = |name: &str| model[name].as_f64().map(|value| format!("{value:.3}"));
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let text = |name: &str| model[name].as_str().map(str::to_owned);
    vec![
        model["rank"].to_string(),
        shown(text("model")),
        format!(
            "{} ±{}",
            shown(number("score")),
            shown(number("standard_error"))
        ),
        if model["tied"] == true { "with 1" } else { "" }.to_owned(),
        model["samples"].to_string(),
        shown(number("knn_accuracy")),
        shown(number("log_me")),
        model["parameters"].to_string(),
        shown(text("license")),
    ]
}
