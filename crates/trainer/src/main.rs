//! `rehead-trainer`: the child process that works with torch, images and archives. It is given a folder, says what
//! happens as JSON lines on its standard output, and ends with an exit code of `domain::progress::exit`.

use std::{
    fs,
    io::{self, BufReader, Read, Write},
    os::unix::process::CommandExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use rehead_domain::{
    progress::{Failure, Progress, Validated, Verified, exit},
    work::{Assignment, PLAN, SelfTested, ValidatePlan},
};
use rehead_trainer::{
    data,
    models::import,
    train::{
        error::TrainError,
        golden, infer,
        protocol::{Ending, Reporter, Stop},
        run, torchscript, warm_trainer,
    },
};

/// Trains, validates uploads and predicts, as a child of `rehead`; can also be run by hand.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the training plan in FOLDER. Closing standard input saves the state and stops
    Train {
        folder: PathBuf,
        /// Go on when standard input is closed
        #[arg(long)]
        detached: bool,
    },
    /// Runs the validation plan in FOLDER: validates a data set, or converts weights
    Validate { folder: PathBuf },
    /// Loads the bundle in FOLDER and compares with its golden logits; or the TorchScript that was made of it
    Verify {
        folder: PathBuf,
        #[arg(long)]
        script: Option<PathBuf>,
    },
    /// Makes a TorchScript file of the bundle in FOLDER, then verifies it
    Script { folder: PathBuf, target: PathBuf },
    /// Answers requests to predict, one JSON object a line, until standard input is closed
    Infer,
    /// Loads what is slow to load, computes something, then waits for one line that says what to become
    WarmTrainer {
        /// auto, cpu, cuda:0
        #[arg(long, default_value = "auto")]
        device: String,
    },
}

fn main() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Train {
            folder,
            detached: true,
        } => train(&folder, io::empty(), true),
        Command::Train {
            folder,
            detached: false,
        } => train(&folder, io::stdin(), false),
        Command::Validate { folder } => validate(&folder),
        Command::Verify { folder, script } => verify(|| match &script {
            Some(script) => torchscript::verify(&folder, script),
            None => golden::verify(&folder),
        }),
        Command::Script { folder, target } => verify(|| {
            torchscript::write(&folder, &target)?;
            Err(become_verifier(&folder, &target))
        }),
        Command::Infer => match infer::serve(BufReader::new(io::stdin()), io::stdout()) {
            Ok(()) => exit::DONE,
            Err(error) => failed(&error),
        },
        Command::WarmTrainer { device } => warm_trainer(&device),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn warm_trainer(device: &str) -> i32 {
    let tested = catch_unwind(AssertUnwindSafe(|| warm_trainer::warm(device)))
        .unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)));
    let outcome = tested.map_err(|error| error.failure());
    let (is_fit, line) = (outcome.is_ok(), SelfTested { outcome });
    let mut out = io::stdout().lock();
    let said = serde_json::to_writer(&mut out, &line)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out));
    drop(out);
    if said.is_err() || !is_fit {
        return code_of(true);
    }
    let mut input = BufReader::new(io::stdin());
    match warm_trainer::assignment(&mut input) {
        Ok(Some(Assignment::Train { folder })) => train(&folder, input, false),
        Ok(Some(Assignment::Validate { folder })) => validate(&folder),
        Ok(None) => exit::DONE,
        Err(error) => failed(&error),
    }
}

fn train(folder: &Path, input: impl Read + Send + 'static, detached: bool) -> i32 {
    let stop = Stop::default();
    if !detached {
        stop.listen(input);
    }
    let mut say = Reporter::new(io::stdout(), stop.clone());
    // The one place where a C++ exception, which tch turns into a panic, becomes an answer. Nothing of the run is used
    // after it.
    let ended = catch_unwind(AssertUnwindSafe(|| run::run(folder, &stop, &mut say)))
        .unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)));
    match ended {
        Ok(Ending::Finished) => exit::DONE,
        Ok(Ending::Stopped) => exit::YIELDED,
        Err(error) => {
            say.say(&Progress::Failed(error.failure()));
            code_of(error.retryable())
        }
    }
}

/// Replaces this process by a fresh one, which knows of a script nothing but its file. Returns only when that fails.
fn become_verifier(folder: &Path, script: &Path) -> TrainError {
    let error = std::env::current_exe().map_or_else(
        |error| error,
        |executable| {
            std::process::Command::new(executable)
                .arg("verify")
                .arg(folder)
                .arg("--script")
                .arg(script)
                .exec()
        },
    );
    TrainError::io("cannot start the check")(error)
}

/// Says what a check found.
fn verify(check: impl FnOnce() -> Result<f64, TrainError>) -> i32 {
    let checked = catch_unwind(AssertUnwindSafe(check))
        .unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)));
    let verified = match &checked {
        Ok(error) => Verified::Same { error: *error },
        Err(error) => Verified::Failed(error.failure()),
    };
    let mut out = io::stdout().lock();
    let said = serde_json::to_writer(&mut out, &verified)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out));
    match checked {
        _ if said.is_err() => code_of(true),
        Ok(_) => exit::DONE,
        Err(error) => code_of(error.retryable()),
    }
}

fn validate(folder: &Path) -> i32 {
    let validated = catch_unwind(AssertUnwindSafe(|| run_validation(folder)))
        .unwrap_or_else(|payload| Validated::Failed(TrainError::from_panic(&*payload).failure()));
    let mut out = io::stdout().lock();
    let said = serde_json::to_writer(&mut out, &validated)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out));
    match validated {
        _ if said.is_err() => code_of(true),
        Validated::Failed(Failure { retryable, .. }) => code_of(retryable),
        Validated::Accepted | Validated::Refused { .. } => exit::DONE,
    }
}

fn run_validation(folder: &Path) -> Validated {
    let path = folder.join(PLAN);
    let plan = fs::read(&path)
        .map_err(TrainError::io(format!("cannot read {}", path.display())))
        .and_then(|text| {
            serde_json::from_slice(&text).map_err(|error| TrainError::Plan(error.to_string()))
        });
    match plan {
        Ok(ValidatePlan::Dataset {
            input,
            limits,
            threads,
        }) => data::validate::run(&input, &limits, threads as usize, folder),
        Ok(ValidatePlan::Weights {
            input,
            architecture,
            max_bytes,
            preprocessing,
        }) => {
            let plan = import::Import {
                input: &input,
                architecture: &architecture,
                max_bytes,
                preprocessing: &preprocessing.unwrap_or_default(),
            };
            import::run(&plan, folder).unwrap_or_else(|error| {
                let full = error
                    .chain()
                    .filter_map(|cause| cause.downcast_ref::<io::Error>());
                let full = full
                    .map(io::Error::kind)
                    .any(|kind| kind == io::ErrorKind::StorageFull);
                let code = if full { "storage_full" } else { "io_error" };
                Validated::Failed(Failure {
                    code: code.to_owned(),
                    message: format!("{error:#}"),
                    retryable: true,
                })
            })
        }
        Err(error) => Validated::Failed(error.failure()),
    }
}

/// Says what went wrong where nobody waits for a line.
fn failed(error: &TrainError) -> i32 {
    let _ = writeln!(io::stderr(), "{error}");
    code_of(error.retryable())
}

fn code_of(retryable: bool) -> i32 {
    if retryable { 1 } else { exit::PERMANENT }
}
