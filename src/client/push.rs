//! `rehead push`: pushes a model to a repository of the hub.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::api::{self, Api, given};
use crate::config::ClientArgs;

/// Longest wait for a push in one request (s).
const WAIT: u64 = 30;
/// Pause before a push that has not ended is asked for again.
const PAUSE: Duration = Duration::from_millis(300);

/// `rehead push`
#[derive(Debug, Args)]
pub struct PushArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Model id, such as `ft:efficientnet_lite0:mine:1a2b3c4d`
    pub model: String,
    /// Repository of the hub, such as `my-org/flowers`; it is created if there is none
    pub repository: String,
    /// Branch that gets the commit
    #[arg(long, default_value = "main")]
    pub branch: String,
    /// Create a private repository
    #[arg(long)]
    pub private: bool,
    /// First line of the commit
    #[arg(long)]
    pub message: Option<String>,
}

/// Prints the repository's page once the hub has the model.
///
/// # Errors
/// The service refuses; the push fails.
pub async fn run(args: &PushArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let body = given(json!({
        "repository": args.repository,
        "branch": args.branch,
        "private": args.private,
        "message": args.message,
    }));
    let path = format!("{}/push", api::model_path(&args.model));
    let mut push = api.post(&path, &body).await?;
    let id = api::id_of(&push)?;
    api::report(&format!(
        "{id}: pushing {} to {}",
        args.model, args.repository
    ));
    while push["finished_at"].is_null() {
        tokio::time::sleep(PAUSE).await;
        push = api
            .get(&format!("/v1/model_pushes/{id}?wait={WAIT}"))
            .await?;
    }
    if push["status"] != "succeeded" {
        let message = push["error"]["message"].as_str().unwrap_or_default();
        anyhow::bail!("push {id} failed: {message}");
    }
    if args.client.json {
        return api::print_json(&push);
    }
    api::print(push["url"].as_str().unwrap_or_default())
}
