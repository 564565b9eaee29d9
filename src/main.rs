//! `rehead`: the service and its client. The only place that wires the parts together. It does not
//! link torch: what needs torch runs in `rehead-trainer`, the executable beside this one.

mod admin;
mod commands;

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use rehead::{client, config, domain::job::Control, exit, telemetry};

/// Run a self-hosted transfer-learning service, or use one: submit a fine-tuning job, get a model
#[derive(Debug, Parser)]
#[command(name = "rehead", version, after_help = exit::help())]
struct Cli {
    #[command(flatten)]
    log: config::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on one machine: a private Postgres, the API, a worker
    Up(Box<config::UpArgs>),
    /// Run the HTTP API
    Serve {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        serve: Box<config::ServeArgs>,
    },
    /// Run a worker, which claims jobs and trains
    Work {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        outgoing: config::OutgoingArgs,
        #[command(flatten)]
        folder: config::WorkDirArgs,
        #[command(flatten)]
        metrics: config::MetricsArgs,
        #[command(flatten)]
        work: Box<config::WorkArgs>,
    },
    /// Apply pending database migrations
    Migrate(config::DatabaseArgs),
    /// Manage the database
    #[command(subcommand)]
    Database(commands::Database),
    /// Remove orphaned objects, and report rows whose objects are missing
    Gc {
        #[command(flatten)]
        store: config::StoreArgs,
        #[command(flatten)]
        gc: config::GcArgs,
    },
    /// Manage API keys: create, list, revoke
    #[command(subcommand)]
    Keys(admin::Keys),
    /// Manage tenants: their shares and limits
    #[command(subcommand)]
    Tenants(admin::Tenants),
    /// Print the OpenAPI description of the HTTP API (openapi.yaml)
    Openapi {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Upload a folder or an archive, and print the id of the file
    Upload(client::upload::UploadArgs),
    /// Submit a job, uploading its data where needed, and print its id
    Submit(Box<client::submit::SubmitArgs>),
    /// Follow a job until it ends and print its model; fails if the job does
    Watch(client::watch::WatchArgs),
    /// Print what happened to a job, and the end of its trainers' logs
    Logs(client::logs::LogsArgs),
    /// Print the evaluation of a finished job
    Report(client::report::ReportArgs),
    /// Rank base models by the results of their jobs on the same data
    Compare(client::compare::CompareArgs),
    /// Rank base models by how well their features fit a data set, without training
    Rank(client::rank::RankArgs),
    /// List jobs, with what they do or why they wait
    Jobs(client::jobs::JobsArgs),
    /// Manage base models: list, add
    #[command(subcommand)]
    Models(client::models::Models),
    /// List workers
    Workers(client::workers::WorkersArgs),
    /// Cancel a job
    Cancel(client::control::ControlArgs),
    /// Pause a job: save its state and free its device
    Pause(client::control::ControlArgs),
    /// Resume a paused job where it was
    Resume(client::control::ControlArgs),
    /// Stop training early and keep the best model
    Stop(client::control::ControlArgs),
    /// Run predictions on images
    Predict(client::predict::PredictArgs),
    /// Download a model as one file
    Export(client::export::ExportArgs),
    /// Push a model to a repository of the hub, where timm loads it by its name
    Push(client::push::PushArgs),
    /// Run the trainer on a job folder (for debugging)
    Train {
        /// Job folder with a plan.json
        folder: std::path::PathBuf,
    },
    /// Validate a data set or weights in a folder (for debugging)
    Validate {
        /// Folder with a plan.json
        folder: std::path::PathBuf,
    },
    /// Compare an unpacked bundle with its golden logits (for debugging)
    Verify {
        /// Folder of the bundle
        folder: std::path::PathBuf,
    },
    /// Answer prediction requests on standard input (for debugging)
    Infer,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = telemetry::log::start(&cli.log).and_then(|_log| run(cli.command));
    match ended {
        Ok(()) => exit::Exit::Done,
        Err(error) => {
            // Whoever reads the log as JSON gets the end of the process as a record, too.
            if cli.log.log_json {
                tracing::error!("{error:#}");
            } else {
                let _ = writeln!(stderr(), "error: {error:#}");
            }
            exit::Exit::of(&error)
        }
    }
    .into()
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => commands::up(&args),
        Command::Serve { store, serve } => commands::serve(&store, &serve),
        Command::Work {
            store,
            outgoing,
            folder,
            metrics,
            work,
        } => commands::work(&store, &outgoing, &folder, &metrics, &work),
        Command::Migrate(args) => commands::migrate(&args),
        Command::Database(command) => commands::database(command),
        Command::Gc { store, gc } => commands::gc(&store, &gc),
        Command::Keys(keys) => admin::keys(&keys),
        Command::Tenants(tenants) => admin::tenants(&tenants),
        Command::Openapi { json } => commands::openapi(json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rehead", &mut script);
            commands::announce(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Upload(args) => commands::client(client::upload::run(&args)),
        Command::Submit(args) => commands::client(client::submit::run(&args)),
        Command::Watch(args) => commands::client(client::watch::run(&args)),
        Command::Logs(args) => commands::client(client::logs::run(&args)),
        Command::Report(args) => commands::client(client::report::run(&args)),
        Command::Compare(args) => commands::client(client::compare::run(&args)),
        Command::Rank(args) => commands::client(client::rank::run(&args)),
        Command::Jobs(args) => commands::client(client::jobs::run(&args)),
        Command::Models(models) => commands::client(client::models::run(&models)),
        Command::Workers(args) => commands::client(client::workers::run(&args)),
        Command::Cancel(args) => commands::client(client::control::run(&args, Control::Cancel)),
        Command::Pause(args) => commands::client(client::control::run(&args, Control::Pause)),
        Command::Resume(args) => commands::client(client::control::run(&args, Control::Resume)),
        Command::Stop(args) => commands::client(client::control::run(&args, Control::Stop)),
        Command::Predict(args) => commands::client(client::predict::run(&args)),
        Command::Export(args) => commands::client(client::export::run(&args)),
        Command::Push(args) => commands::client(client::push::run(&args)),
        Command::Train { folder } => commands::child("train", Some(&folder)),
        Command::Validate { folder } => commands::child("validate", Some(&folder)),
        Command::Verify { folder } => commands::child("verify", Some(&folder)),
        Command::Infer => commands::child("serve", None),
    }
}
