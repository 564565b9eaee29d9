//! `rehead`: the service and its client. The only place that wires the parts together. Links no torch: what needs torch
//! runs in `rehead-trainer`, the executable beside this one.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rehead::{client, config, domain::job::Control};

/// A self-hosted transfer-learning service: post a fine-tuning job, get back a model.
#[derive(Debug, Parser)]
#[command(name = "rehead", version)]
struct Cli {
    #[command(flatten)]
    log: config::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on one machine: a private Postgres, the API, one worker
    Up(config::UpArgs),
    /// The HTTP API
    Serve {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        serve: config::ServeArgs,
    },
    /// A worker: claims jobs and runs them
    Work {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        work: config::WorkArgs,
    },
    /// Apply the database migrations that are missing
    Migrate(config::DatabaseArgs),
    /// Remove objects that nothing needs; `--dry-run` only says which
    Gc {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        gc: config::GcArgs,
    },
    /// API keys
    #[command(subcommand)]
    Keys(commands::Keys),
    /// Tenants: their shares and caps
    #[command(subcommand)]
    Tenants(commands::Tenants),
    /// Print openapi.yaml
    Openapi,
    /// Upload data if need be, submit a job, print its id
    Submit(Box<client::submit::SubmitArgs>),
    /// Show a job's progress until it ends, print its model; fails when the job does
    Watch(client::watch::WatchArgs),
    /// Print the evaluation of a job that succeeded
    Report(client::report::ReportArgs),
    /// Rank the models that jobs on the same data started from
    Compare(client::compare::CompareArgs),
    /// Print what runs and what waits, and why it does
    Jobs(client::jobs::JobsArgs),
    /// Print who trains
    Workers(client::workers::WorkersArgs),
    /// End a job without a model
    Cancel(client::control::ControlArgs),
    /// Have a job save its state and free its device
    Pause(client::control::ControlArgs),
    /// Have a paused job go on, exactly where it was
    Resume(client::control::ControlArgs),
    /// Have a job train no further and keep its best model
    Stop(client::control::ControlArgs),
    /// Ask a model about images
    Predict(client::predict::PredictArgs),
    /// Bring a model as one file
    Export(client::export::ExportArgs),
    /// Run the trainer on a job folder, by hand
    Train { folder: std::path::PathBuf },
    /// Validate a data set or weights in a folder, by hand
    Validate { folder: std::path::PathBuf },
    /// Load an unpacked bundle and compare it with its golden logits, by hand
    Verify { folder: std::path::PathBuf },
    /// Answer predictions on standard input, by hand
    Infer,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    commands::start_log(&cli.log);
    let result = match cli.command {
        Command::Up(args) => commands::up(&args),
        Command::Serve { store, serve } => commands::serve(&store, &serve),
        Command::Work { store, work } => commands::work(&store, &work),
        Command::Migrate(args) => commands::migrate(&args),
        Command::Gc { store, gc } => commands::gc(&store, &gc),
        Command::Keys(keys) => commands::keys(keys),
        Command::Tenants(tenants) => commands::tenants(tenants),
        Command::Openapi => commands::openapi(),
        Command::Submit(args) => commands::client(client::submit::run(&args)),
        Command::Watch(args) => commands::client(client::watch::run(&args)),
        Command::Report(args) => commands::client(client::report::run(&args)),
        Command::Compare(args) => commands::client(client::compare::run(&args)),
        Command::Jobs(args) => commands::client(client::jobs::run(&args)),
        Command::Workers(args) => commands::client(client::workers::run(&args)),
        Command::Cancel(args) => commands::client(client::control::run(&args, Control::Cancel)),
        Command::Pause(args) => commands::client(client::control::run(&args, Control::Pause)),
        Command::Resume(args) => commands::client(client::control::run(&args, Control::Resume)),
        Command::Stop(args) => commands::client(client::control::run(&args, Control::Stop)),
        Command::Predict(args) => commands::client(client::predict::run(&args)),
        Command::Export(args) => commands::client(client::export::run(&args)),
        Command::Train { folder } => commands::child("train", Some(&folder)),
        Command::Validate { folder } => commands::child("validate", Some(&folder)),
        Command::Verify { folder } => commands::child("verify", Some(&folder)),
        Command::Infer => commands::child("infer", None),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
