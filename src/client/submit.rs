//! `rehead submit`: has the service check the options, uploads a data set if one is given, creates
//! a job, prints the job's id.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};

use super::{
    api::{self, Api, given},
    upload::{self, HubPart},
    watch,
};
use crate::{
    config::ClientArgs,
    domain::{file::UploadPurpose, recipe::Schedule, words::Words as _},
};

/// The id of a file that does not exist, for a request of which everything else is to be checked.
const NO_FILE: &str = "file-00000000000000000000000000000000";

/// `rehead submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Data set to upload: a folder with a folder of images per class, which is packed while it is
    /// sent, without hidden files; an archive of one; or a data set of the hub, which the service
    /// downloads, such as `hf://datasets/org/pets`
    #[arg(value_name = "DATA", required_unless_present_any = ["data", "file"], conflicts_with_all = ["data", "file"])]
    pub path: Option<PathBuf>,
    /// Base model id; the id of a fine-tuned model or checkpoint to continue from; or `auto`, the
    /// base model whose features fit the data best
    #[arg(long)]
    pub model: String,
    /// When continuing from a model: `keep` its labels, `extend` them with the new ones, or
    /// `replace` them
    #[arg(long)]
    pub labels: Option<String>,
    /// The same as DATA
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Id of an uploaded file
    #[arg(long, conflicts_with = "data")]
    pub file: Option<String>,
    /// Suffix of the new model's name
    #[arg(long)]
    pub suffix: Option<String>,
    /// Random seed; drawn when left out
    #[arg(long)]
    pub seed: Option<u64>,
    /// Frozen part of the backbone: `all`, `none`, `all-but-last=2` (train the last 2 stages), or
    /// the API's object as JSON
    #[arg(long)]
    pub freeze: Option<String>,
    /// `lora`, `lora=16` for its rank, or the API's object as JSON
    #[arg(long)]
    pub adapter: Option<String>,
    /// Passes over the training split
    #[arg(long)]
    pub epochs: Option<u64>,
    /// Samples per batch
    #[arg(long)]
    pub batch_size: Option<u64>,
    /// Peak learning rate of the head
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Peak learning rate of the backbone's trained part
    #[arg(long)]
    pub backbone_learning_rate: Option<f64>,
    /// Optimizer: `sgd`, `nesterov` or `adamw`
    #[arg(long)]
    pub optimizer: Option<String>,
    /// Weight decay
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Learning rate schedule
    #[arg(long, value_parser = PossibleValuesParser::new(Schedule::WORDS))]
    pub schedule: Option<String>,
    /// Dropout probability before the new layer
    #[arg(long)]
    pub dropout: Option<f64>,
    /// Show progress until the job ends
    #[arg(long)]
    pub watch: bool,
}

/// Submits a job, and watches it with `--watch`. Nothing is uploaded for a job that would be
/// refused whatever its data is.
///
/// # Errors
/// The service refuses the request; the watched job fails.
pub async fn run(args: &SubmitArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let file = match (&args.file, args.path.as_ref().or(args.data.as_ref())) {
        (Some(id), _) => id.clone(),
        (None, Some(path)) => {
            let checked = body(args, NO_FILE)?;
            let plan = "/v1/fine_tuning/jobs/plan";
            api.problems_beside("training_file", plan, &checked).await?;
            let file =
                upload::upload(&api, path, UploadPurpose::FineTune, HubPart::default()).await?;
            let id = api::id_of(&file)?;
            api::report(&format!("uploaded {} as {id}", path.display()));
            id
        }
        (None, None) => {
            anyhow::bail!("no data set: give a folder, an archive, a data set of the hub or --file")
        }
    };
    let job = api
        .post("/v1/fine_tuning/jobs", &body(args, &file)?)
        .await?;
    let id = api::id_of(&job)?;
    match (args.watch, args.client.json) {
        // The job at its end is the result.
        (true, true) => api::report(&id),
        (false, true) => api::print_json(&job)?,
        (_, false) => api::print(&id)?,
    }
    if args.watch {
        watch::until_terminal(&api, &id, args.client.json).await?;
    }
    Ok(())
}

/// The request's body: only the options given, so that the service applies its own defaults.
fn body(args: &SubmitArgs, file: &str) -> anyhow::Result<Value> {
    let freeze = args.freeze.as_deref().map(freeze).transpose()?;
    let adapter = args.adapter.as_deref().map(adapter).transpose()?;
    let head = args
        .dropout
        .map(|share| json!({"layers": [{"dropout": share}]}));
    Ok(given(json!({
        "model": args.model,
        "training_file": file,
        "suffix": args.suffix,
        "seed": args.seed,
        "method": {"type": "transfer", "transfer": {
            "hyperparameters": {
                "n_epochs": args.epochs,
                "batch_size": args.batch_size,
                "learning_rate": args.learning_rate,
                "backbone_learning_rate": args.backbone_learning_rate,
                "optimizer": args.optimizer,
                "weight_decay": args.weight_decay,
                "schedule": args.schedule,
            },
            "freeze": freeze,
            "adapter": adapter,
            "labels": args.labels,
            "head": head,
        }},
    })))
}

/// A word as it is, `name=value` as an object of one entry, JSON as JSON. The service checks the
/// value.
fn freeze(text: &str) -> anyhow::Result<Value> {
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .context("--freeze begins with `{` but is not valid JSON");
    }
    Ok(match text.split_once('=') {
        None => json!(text),
        Some(("all-but-last", stages)) => json!({"all_but_last_stages": json_or_text(stages)}),
        Some((name, value)) => json!({name: json_or_text(value)}),
    })
}

/// A type, a type and its rank, or JSON as JSON. The service checks the value.
fn adapter(text: &str) -> anyhow::Result<Value> {
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .context("--adapter begins with `{` but is not valid JSON");
    }
    Ok(match text.split_once('=') {
        None => json!({"type": text}),
        Some((kind, rank)) => json!({"type": kind, "rank": json_or_text(rank)}),
    })
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::domain::{id::FileId, request};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SubmitArgs,
    }

    fn args(line: &str) -> SubmitArgs {
        Line::parse_from(line.split(' ')).args
    }

    #[test]
    fn the_body_is_a_valid_request() {
        let file = FileId::new();
        let args = args(&format!(
            "submit --model m --file {file} --freeze all-but-last=2 --epochs 3 --optimizer sgd --dropout 0.2 --seed 7"
        ));
        let request = request::parse(&body(&args, &file.to_string()).unwrap()).unwrap();
        assert_eq!(
            request.transfer.freeze,
            request::Auto::Value(request::Freeze::AllButLastStages(2))
        );
        assert_eq!(request.transfer.head.layers().len(), 1);
        assert_eq!(request.seed, Some(7));
    }

    #[test]
    fn an_option_left_out_is_not_sent() {
        let args = args("submit --model m --file f");
        let sent = body(&args, "f").unwrap();
        assert_eq!(sent["method"]["transfer"], json!({"hyperparameters": {}}));
        assert!(sent.get("seed").is_none());
    }

    #[test]
    fn adapter_accepts_a_type_a_rank_and_json() {
        assert_eq!(adapter("lora").unwrap(), json!({"type": "lora"}));
        let ranked = json!({"type": "lora", "rank": 16});
        assert_eq!(adapter("lora=16").unwrap(), ranked);
        assert_eq!(adapter(&ranked.to_string()).unwrap(), ranked);
        assert!(adapter("{").is_err());
        let file = FileId::new();
        let args = args(&format!("submit --model m --file {file} --adapter lora=4"));
        let request = request::parse(&body(&args, &file.to_string()).unwrap()).unwrap();
        assert_eq!(request.transfer.adapter.unwrap().rank, 4);
    }

    #[test]
    fn freeze_accepts_words_pairs_and_json() {
        assert_eq!(freeze("all").unwrap(), json!("all"));
        assert_eq!(freeze("fraction=0.8").unwrap(), json!({"fraction": 0.8}));
        assert_eq!(freeze("regex=^a").unwrap(), json!({"regex": "^a"}));
        assert_eq!(
            freeze("{\"blocks\":[\"x\"]}").unwrap(),
            json!({"blocks": ["x"]})
        );
        assert!(freeze("{x").is_err());
    }
}
