//! `rehead-trainer`: the child process that works with torch, images and archives. It is given a
//! folder, reports progress as JSON lines on its standard output, and exits with a code of
//! `domain::progress::exit`.

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
    process::{
        device,
        error::TrainError,
        protocol::{Ending, Interrupt, Reporter},
        warm_trainer,
    },
    serve::{golden, requests, torchscript},
    train::run,
};
use serde::Serialize;

/// Train, validate uploads and predict, as a child of `rehead` or by hand
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the training plan in FOLDER; closing standard input saves the state and exits
    Train {
        folder: PathBuf,
        /// Continue when standard input is closed
        #[arg(long)]
        detached: bool,
    },
    /// Run the validation plan in FOLDER: validate a data set, or convert weights
    Validate { folder: PathBuf },
    /// Load the bundle in FOLDER and compare it with its golden logits
    Verify {
        folder: PathBuf,
        /// Compare this TorchScript file of the bundle instead
        #[arg(long)]
        script: Option<PathBuf>,
    },
    /// Write the bundle in FOLDER as TorchScript to TARGET, then verify the file
    Script { folder: PathBuf, target: PathBuf },
    /// Answer prediction requests, one JSON object a line, until standard input is closed
    Serve {
        /// Device: `auto`, `cpu` or `cuda:N`
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// Print the devices that `auto` stands for, as a JSON list
    Devices,
    /// Load torch, test the device, then wait for one line with the assignment
    WarmTrainer {
        /// auto, cpu, or cuda:N
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
        Command::Serve { device } => {
            let served = device::open(&device).and_then(|device| {
                requests::serve(BufReader::new(io::stdin()), io::stdout(), device)
            });
            match served {
                Ok(()) => exit::DONE,
                Err(error) => failed(&error),
            }
        }
        Command::Devices => respond(&device::all(), exit::DONE),
        Command::WarmTrainer { device } => warm_trainer(&device),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Runs `work`. A C++ exception, which tch turns into a panic, becomes an error; nothing of the
/// work may be used after it.
fn guarded<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(TrainError::from_panic(&*payload)))
}

/// Writes one line to the parent. Returns the exit code `code`, or that of a failure when the
/// parent cannot be reached.
fn respond(line: &impl Serialize, code: i32) -> i32 {
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer(&mut out, line)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out));
    if written.is_ok() { code } else { code_of(true) }
}

fn warm_trainer(device: &str) -> i32 {
    let outcome = guarded(|| warm_trainer::warm(device)).map_err(|error| error.failure());
    let code = if outcome.is_ok() {
        exit::DONE
    } else {
        code_of(true)
    };
    let code = respond(&SelfTested { outcome }, code);
    if code != exit::DONE {
        return code;
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
    let interrupt = Interrupt::default();
    if !detached {
        interrupt.listen(input);
    }
    let mut reporter = Reporter::new(io::stdout(), interrupt.clone());
    match guarded(|| run::run(folder, &interrupt, &mut reporter)) {
        Ok(Ending::Finished) => exit::DONE,
        Ok(Ending::Interrupted) => exit::YIELDED,
        Err(error) => {
            reporter.send(&Progress::Failed(error.failure()));
            code_of(error.retryable())
        }
    }
}

/// Replaces this process by a fresh one, which knows nothing of a script but its file. Returns only
/// when that fails.
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
    TrainError::io("cannot start `rehead-trainer verify`")(error)
}

fn verify(check: impl FnOnce() -> Result<f64, TrainError>) -> i32 {
    match guarded(check) {
        Ok(error) => respond(&Verified::Same { error }, exit::DONE),
        Err(error) => respond(
            &Verified::Failed(error.failure()),
            code_of(error.retryable()),
        ),
    }
}

fn validate(folder: &Path) -> i32 {
    let validated = guarded(|| run_validation(folder));
    let validated = validated.unwrap_or_else(|error| Validated::Failed(error.failure()));
    let code = match &validated {
        Validated::Failed(Failure { retryable, .. }) => code_of(*retryable),
        Validated::Accepted | Validated::Refused { .. } => exit::DONE,
    };
    respond(&validated, code)
}

fn run_validation(folder: &Path) -> Result<Validated, TrainError> {
    let path = folder.join(PLAN);
    let text = fs::read(&path);
    let text = text.map_err(TrainError::io(format!("cannot read {}", path.display())))?;
    let plan = serde_json::from_slice(&text)
        .map_err(|error| TrainError::Plan(format!("{}: {error}", path.display())))?;
    Ok(match plan {
        ValidatePlan::Dataset {
            input,
            limits,
            threads,
        } => data::validate::run(&input, &limits, threads as usize, folder),
        ValidatePlan::Weights {
            input,
            architecture,
            max_bytes,
            preprocessing,
        } => {
            let plan = import::Import {
                input: &input,
                architecture: &architecture,
                max_bytes,
                preprocessing: &preprocessing.unwrap_or_default(),
            };
            import::run(&plan, folder).unwrap_or_else(|error| {
                let full = error
                    .chain()
                    .filter_map(|cause| cause.downcast_ref::<io::Error>())
                    .any(|error| error.kind() == io::ErrorKind::StorageFull);
                let code = if full { "storage_full" } else { "io_error" };
                Validated::Failed(Failure {
                    code: code.to_owned(),
                    message: format!("{error:#}"),
                    retryable: true,
                })
            })
        }
    })
}

/// Writes an error to standard error, where nobody waits for a line.
fn failed(error: &TrainError) -> i32 {
    let _ = writeln!(io::stderr(), "{error}");
    code_of(error.retryable())
}

fn code_of(retryable: bool) -> i32 {
    if retryable { 1 } else { exit::PERMANENT }
}
