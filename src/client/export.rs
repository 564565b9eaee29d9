//! `rehead export`: brings a model as one file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::api::{self, Api};
use crate::config::ClientArgs;

/// `rehead export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The model's id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    pub model: String,
    #[arg(long, value_enum, default_value_t = Format::Zip)]
    pub format: Format,
    /// Where to; replaced when it is there
    #[arg(long, short)]
    pub output: PathBuf,
}

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The bundle: weights, configuration, labels, metrics, model card
    Zip,
    /// For `torch.jit.load`, without any code of ours
    Torchscript,
}

/// Prints the file's path once it is whole.
///
/// # Errors
/// What the service says; a disk that is full.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let format = match args.format {
        Format::Zip => "zip",
        Format::Torchscript => "torchscript",
    };
    let path = format!("/v1/models/{}/export?format={format}", args.model);
    Api::new(&args.client).download(&path, &args.output).await?;
    api::print(&args.output.display().to_string())
}
