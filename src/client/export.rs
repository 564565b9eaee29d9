//! `rehead export`: downloads a model as one file.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde_json::json;

use super::api::{self, Api};
use crate::{config::ClientArgs, domain::export::ExportFormat};

/// `rehead export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Model id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    pub model: String,
    /// File format
    #[arg(long, default_value_t = ExportFormat::Zip, value_parser = format())]
    pub format: ExportFormat,
    /// Output file; an existing one is replaced
    #[arg(long, short)]
    pub output: PathBuf,
}

fn format() -> impl TypedValueParser<Value = ExportFormat> {
    let formats = ExportFormat::ALL.map(|format| {
        PossibleValue::new(format.as_str()).help(match format {
            ExportFormat::Zip => {
                "Model bundle: weights, configuration, labels, metrics, model card"
            }
            ExportFormat::Torchscript => "TorchScript for `torch.jit.load`; needs no other code",
            ExportFormat::Onnx => "ONNX for ONNX Runtime, OpenVINO, browsers and phones",
        })
    });
    PossibleValuesParser::new(formats).try_map(|word| word.parse::<ExportFormat>())
}

/// Prints the file's path once it is complete.
///
/// # Errors
/// The service refuses; the file cannot be written.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let format = args.format.as_str();
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
