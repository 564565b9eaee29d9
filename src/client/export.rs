//! `rehead export`: downloads a model as one file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::api::{self, Api};
use crate::config::ClientArgs;

/// `rehead export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Model id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    pub model: String,
    /// File format
    #[arg(long, value_enum, default_value_t = Format::Zip)]
    pub format: Format,
    /// Output file; an existing one is replaced
    #[arg(long, short)]
    pub output: PathBuf,
}

/// Format of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Model bundle: weights, configuration, labels, metrics, model card
    Zip,
    /// TorchScript for `torch.jit.load`; needs no other code
    Torchscript,
}

/// Prints the file's path once it is complete.
///
/// # Errors
/// The service refuses; the file cannot be written.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let format = match args.format {
        Format::Zip => "zip",
        Format::Torchscript => "torchscript",
    };
    let path = format!("{}/export?format={format}", api::model_path(&args.model));
    Api::new(&args.client).download(&path, &args.output).await?;
    if args.client.json {
        let bytes = std::fs::metadata(&args.output).map_or(0, |file| file.len());
        return api::print_json(&json!({
            "model": args.model, "format": format, "path": args.output, "bytes": bytes,
        }));
    }
    api::print(&args.output.display().to_string())
}
