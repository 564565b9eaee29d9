//! `rehead models`: lists models, and registers base models from a hub or a folder.

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    api::{self, Api, in_path},
    model_folder::upload_model,
    table::render,
};
use crate::{config::ClientArgs, exit::Exit};

/// Pause before a model that is still being imported is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// `rehead models`
#[derive(Debug, Subcommand)]
pub enum Models {
    /// List models, base models first
    List(ListArgs),
    /// Register a base model, of a hub by its repository's name or of a folder, and print its id
    Add(AddArgs),
}

/// `rehead models list`
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `rehead models add`
#[derive(Debug, Args)]
pub struct AddArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Repository of a hub, such as `timm/resnet50.a1_in1k`; or a folder that timm or transformers
    /// saved a model to, whose weights are uploaded
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// Branch, tag or commit of the repository
    #[arg(long)]
    pub revision: Option<String>,
    /// Id of the base model; the repository's name when left out
    #[arg(long)]
    pub id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The service refuses.
pub async fn run(command: &Models) -> anyhow::Result<()> {
    match command {
        Models::List(args) => list(args).await,
        Models::Add(args) => add(args).await,
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let answer = Api::new(&args.client).get("/v1/models").await?;
    let mut models = answer["data"].as_array().cloned().unwrap_or_default();
    models.sort_by_key(|model| model["owned_by"] != "base");
    if args.client.json {
        return api::print_json(&models);
    }
    if models.is_empty() {
        return api::print("there are no models; add one with `rehead models add REPOSITORY`");
    }
    let heads = [
        "ID",
        "OWNER",
        "STATUS",
        "ARCHITECTURE",
        "INPUT",
        "PARAMETERS",
        "TRAINED ON",
        "LICENSE",
    ];
    api::print(&render(&heads, models.iter().map(row)))
}

fn row(model: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let side = model["input"]["input_size"].as_u64();
    let parameters = model["parameters"].as_u64();
    vec![
        text(&model["id"]),
        text(&model["owned_by"]),
        text(&model["status"]),
        text(&model["architecture"]),
        side.map(|side| side.to_string()).unwrap_or_default(),
        parameters
            .map(|count| format!("{:.1} M", count as f64 / 1e6))
            .unwrap_or_default(),
        text(&model["source_task"]["dataset"]),
        text(&model["license"]),
    ]
}

async fn add(args: &AddArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let folder = Path::new(&args.repository);
    let mut body = match folder.is_dir() {
        true => upload_model(&api, folder).await?,
        false => json!({"hub": args.repository}),
    };
    if let Some(revision) = &args.revision {
        body["revision"] = json!(revision);
    }
    if let Some(id) = &args.id {
        body["id"] = json!(id);
    }
    let mut model = api.post("/v1/base_models", &body).await?;
    let id = api::id_of(&model)?;
    while model["status"] == "importing" {
        tokio::time::sleep(PAUSE).await;
        let path = format!("/v1/models/{}?wait=60", in_path(&id));
        model = api.get(&path).await?;
    }
    if model["status"] != "ready" {
        let problems = model["problems"].as_array().cloned().unwrap_or_default();
        let messages = problems
            .iter()
            .filter_map(|problem| problem["message"].as_str());
        let messages: Vec<&str> = messages.collect();
        return Err(Exit::Refused.error(format!(
            "{} is refused: {}",
            args.repository,
            messages.join("; ")
        )));
    }
    match args.client.json {
        true => api::print_json(&model),
        false => api::print(&id),
    }
}
