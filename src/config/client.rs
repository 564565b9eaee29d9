//! Settings of the commands that ask a service.

use clap::Args;

use super::values::base_url;

/// The address of the service, and the API key.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Base URL of the service
    #[arg(long, env = "REHEAD_URL", default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    pub url: String,
    /// API key, when the service requires one
    #[arg(long, env = "REHEAD_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
