//! `rehead-trainer`: the child process that works with torch, images and archives. It is given a
//! folder, reports progress as JSON lines on its standard output, and exits with a code of
//! `domain::progress::exit`.

use std::{
    io::{self, BufReader, Read, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use rehead_domain::{
    export::NetworkFormat,
    progress::{Failure, Progress, ScoreAnswer, Validated, Verified, exit},
    work::{Assignment, PLAN, SelfTested, ValidatePlan},
};
use rehead_trainer::{
    data,
    models::import,
    process::{
        device,
        error::TrainError,
        json,
        memory::guarded,
        protocol::{Interrupt, Reporter, report_work},
        warm_trainer,
    },
    serve::{golden, network_file, requests},
    train::{run, score},
};
use serde::Serialize;

/// The exit code of a failure that another attempt may pass.
const RETRYABLE: i32 = 1;

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
        /// Compare this file instead, which the bundle was exported to
        #[arg(long, requires = "format")]
        file: Option<PathBuf>,
        /// Format of that file
        #[arg(long, requires = "file")]
        format: Option<NetworkFormat>,
    },
    /// Write the bundle in FOLDER to TARGET, then verify the file
    Export {
        folder: PathBuf,
        target: PathBuf,
        /// Format of the file
        #[arg(long)]
        format: NetworkFormat,
    },
    /// Score the base model of the scoring plan in FOLDER: how well its features fit the data set
    Score { folder: PathBuf },
    /// Answer prediction requests, one JSON object a line, until standard input is closed
    Serve {
        /// Device: `auto`, `cpu` or `cuda:N`
        #[arg(long, default_value = "cpu")]
        device: String,
        /// Memory of the models that stay loaded (bytes)
        #[arg(long, default_value_t = 1 << 30)]
        memory_bytes: u64,
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
        } => train(&folder, &Interrupt::default()),
        Command::Train {
            folder,
            detached: false,
        } => train_attached(&folder, io::stdin()),
        Command::Validate { folder } => validate(&folder),
        Command::Verify {
            folder,
            file,
            format,
        } => verify(|| match file.zip(format) {
            Some((file, format)) => network_file::verify(format, &folder, &file),
            None => golden::verify(&folder),
        }),
        Command::Export {
            folder,
            target,
            format,
        } => verify(|| {
            network_file::write(format, &folder, &target)?;
            let failed = TrainError::io("cannot start `rehead-trainer verify`");
            Err(failed(become_verifier(&folder, &target, format)))
        }),
        Command::Score { folder } => score(&folder),
        Command::Serve {
            device,
            memory_bytes,
        } => {
            let served = device::open(&device).and_then(|device| {
                let input = BufReader::new(io::stdin());
                requests::serve(input, io::stdout(), device, memory_bytes)
            });
            served.map_or_else(|error| failed(&error), |()| exit::DONE)
        }
        Command::Devices => respond(&device::all(), exit::DONE),
        Command::WarmTrainer { device } => warm_trainer(&device),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Writes one line to the parent. Returns the exit code `code`, or that of a failure when the
/// parent cannot be reached.
fn respond(line: &impl Serialize, code: i32) -> i32 {
    let written = json::write_line(&mut io::stdout().lock(), line);
    if written.is_ok() { code } else { RETRYABLE }
}

fn warm_trainer(device: &str) -> i32 {
    let outcome = guarded(|| warm_trainer::warm(device)).map_err(|error| error.failure());
    let code = outcome.as_ref().map_or(RETRYABLE, |_| exit::DONE);
    let code = respond(&SelfTested { outcome }, code);
    if code != exit::DONE {
        return code;
    }
    let mut input = BufReader::new(io::stdin());
    match warm_trainer::assignment(&mut input) {
        Ok(Some(Assignment::Train { folder })) => train_attached(&folder, input),
        Ok(Some(Assignment::Validate { folder })) => validate(&folder),
        Ok(None) => exit::DONE,
        Err(error) => failed(&error),
    }
}

/// Trains until `input` is closed at the latest.
fn train_attached(folder: &Path, input: impl Read + Send + 'static) -> i32 {
    let interrupt = Interrupt::default();
    interrupt.listen(input);
    train(folder, &interrupt)
}

fn train(folder: &Path, interrupt: &Interrupt) -> i32 {
    report_work();
    let mut reporter = Reporter::new(io::stdout(), interrupt.clone());
    match guarded(|| run::run(folder, interrupt, &mut reporter)) {
        Ok(()) => exit::DONE,
        Err(TrainError::Interrupted) => exit::YIELDED,
        Err(error) => {
            let failure = error.failure();
            let code = code_of(&failure);
            reporter.send(&Progress::Failed(failure));
            code
        }
    }
}

/// Replaces this process by a fresh one, which knows nothing of an export but its file. Returns
/// only when that fails.
fn become_verifier(folder: &Path, file: &Path, format: NetworkFormat) -> io::Error {
    // By this name it is found wherever it lies.
    std::process::Command::new("/proc/self/exe")
        .arg0("rehead-trainer")
        .arg("verify")
        .arg(folder)
        .arg("--file")
        .arg(file)
        .args(["--format", format.as_str()])
        .exec()
}

fn verify(check: impl FnOnce() -> Result<f64, TrainError>) -> i32 {
    report_work();
    match guarded(check).map_err(|error| error.failure()) {
        Ok(error) => respond(&Verified::Same { error }, exit::DONE),
        Err(failure) => {
            let code = code_of(&failure);
            respond(&Verified::Failed(failure), code)
        }
    }
}

fn score(folder: &Path) -> i32 {
    report_work();
    match guarded(|| score::run(folder)).map_err(|error| error.failure()) {
        Ok(scores) => respond(&ScoreAnswer::Scores(scores), exit::DONE),
        Err(failure) => {
            let code = code_of(&failure);
            respond(&ScoreAnswer::Failed(failure), code)
        }
    }
}

fn validate(folder: &Path) -> i32 {
    report_work();
    let validated = guarded(|| run_validation(folder));
    let validated = validated.unwrap_or_else(|error| Validated::Failed(error.failure()));
    let code = match &validated {
        Validated::Failed(failure) => code_of(failure),
        Validated::Accepted | Validated::Refused { .. } => exit::DONE,
    };
    respond(&validated, code)
}

fn run_validation(folder: &Path) -> Result<Validated, TrainError> {
    Ok(match json::read(&folder.join(PLAN))? {
        ValidatePlan::Dataset {
            input,
            limits,
            threads,
        } => data::validate::run(&input, &limits, threads as usize, folder),
        ValidatePlan::Corrected {
            input,
            corrections,
            limits,
            threads,
        } => data::corrected::run((&input, &corrections), &limits, threads as usize, folder),
        ValidatePlan::Thumbnails {
            input,
            limits,
            threads,
        } => data::validate::thumbnails(&input, &limits, threads as usize, folder),
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
                Validated::Failed(Failure::retryable(code, format!("{error:#}")))
            })
        }
    })
}

/// Writes an error to standard error, where nobody waits for a line.
fn failed(error: &TrainError) -> i32 {
    let _ = writeln!(io::stderr(), "{error}");
    code_of(&error.failure())
}

fn code_of(failure: &Failure) -> i32 {
    if failure.retryable {
        RETRYABLE
    } else {
        exit::PERMANENT
    }
}
