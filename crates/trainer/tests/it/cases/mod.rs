//! Inputs that people were seen to send (tests/cases), each with what is right for it: read, or
//! refused in words that say what it is and what to do. Requests are in the service's tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use rehead_domain::{
    base_model::AskedPreprocessing, file::FileReport, progress::Validated, recipe::Task,
    work::DatasetLimits,
};
use rehead_trainer::{
    data::validate,
    models::import::{self, Import},
};
use tempfile::TempDir;

mod first;
mod more;

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 10_000,
    unpacked_bytes: 64 << 20,
    entry_bytes: 16 << 20,
    ratio: 100,
    page_bytes: 16 << 20,
    pixels: 1_000_000,
    report_problems: 100,
    thumbnails: 100,
};

/// The right outcome for an input.
enum Right {
    /// A data set of one label an image with these classes and as many samples, without warnings.
    Classes(&'static [(&'static str, u64)]),
    /// The same, with warnings of these codes alone; each holds its phrase.
    Warned(
        &'static [(&'static str, u64)],
        &'static [(&'static str, &'static str)],
    ),
    /// A data set of another task.
    Task(Task, u64, &'static [&'static str]),
    /// Many classes and samples of one label.
    Many(usize, u64),
    /// A data set that is refused by one problem of this code, which holds these phrases.
    Refused(&'static str, &'static [&'static str]),
    /// Weights of this architecture.
    Weights(&'static str),
    /// Weights that are refused, first by a problem of this code, which holds these phrases.
    NoWeights(&'static str, &'static str, &'static [&'static str]),
}

/// A file of `tests/cases`, and its right outcome.
type Case = (&'static str, Right);

/// Files made by a script of `tests/cases`.
struct Made(TempDir);

impl Made {
    fn by(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
        let made = Command::new("python3")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(scripts.join(script))
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{script}: {said}");
        Self(folder)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

static FIRST: LazyLock<Made> = LazyLock::new(|| Made::by("make_cases.py"));
static MORE: LazyLock<Made> = LazyLock::new(|| Made::by("more_cases.py"));

/// All cases that went wrong, with how; each of the files but those of requests has a case.
fn check(made: &Made, cases: &[Case]) {
    let is_of_a_request = |name: &str| name.starts_with('g');
    for name in made.names() {
        let has_case = cases.iter().any(|(case, _)| *case == name);
        assert!(has_case || is_of_a_request(&name), "{name} has no case");
    }
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(name, right)| {
            let how = wrong(&made.path(name), right)?;
            Some(format!("{name}: {how}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases are wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    println!("{} cases", cases.len());
}

/// How the outcome differs from what is right.
fn wrong(input: &Path, right: &Right) -> Option<String> {
    if let Right::Weights(architecture) | Right::NoWeights(architecture, ..) = right {
        return wrong_weights(input, architecture, right);
    }
    let folder = tempfile::tempdir().unwrap();
    let said = validate::run(input, &LIMITS, 2, folder.path());
    let report = std::fs::read(folder.path().join("report.json")).unwrap();
    let report: FileReport = serde_json::from_slice(&report).unwrap();
    let found = Found::of(&report);
    let as_expected = match right {
        Right::Classes(classes) => found.has_classes(classes) && report.warnings.is_empty(),
        Right::Warned(classes, warnings) => {
            let covered = |code: &str, message: &str| {
                warnings
                    .iter()
                    .any(|(known, phrase)| *known == code && message.contains(phrase))
            };
            let all = report
                .warnings
                .iter()
                .all(|one| covered(&one.code, &one.message));
            let each = warnings.iter().all(|(code, phrase)| {
                report
                    .warnings
                    .iter()
                    .any(|one| one.code == *code && one.message.contains(phrase))
            });
            found.has_classes(classes) && all && each
        }
        Right::Task(task, samples, classes) => report.dataset.as_ref().is_some_and(|dataset| {
            let names = dataset.classes.iter().map(|class| class.name.as_str());
            dataset.task == *task
                && dataset.samples == *samples
                && names.eq(classes.iter().copied())
        }),
        Right::Many(classes, samples) => report.dataset.as_ref().is_some_and(|dataset| {
            dataset.classes.len() == *classes && dataset.samples == *samples
        }),
        Right::Refused(code, phrases) => match (&said, &report.errors[..]) {
            (Validated::Refused { .. }, [problem]) => {
                problem.code == *code
                    && phrases.iter().all(|phrase| {
                        problem.message.contains(phrase) || problem.path.contains(phrase)
                    })
            }
            _ => false,
        },
        Right::Weights(_) | Right::NoWeights(..) => unreachable!("checked above"),
    };
    (!as_expected).then(|| format!("{found:?} {:?} {:?}", report.warnings, report.errors))
}

/// The outcome of a data set.
#[derive(Debug)]
struct Found<'a> {
    classes: Vec<(&'a str, u64)>,
    task: Option<Task>,
}

impl<'a> Found<'a> {
    fn of(report: &'a FileReport) -> Self {
        let dataset = report.dataset.iter();
        let classes = dataset.flat_map(|dataset| &dataset.classes);
        let classes = classes.map(|class| {
            let samples = class.train + class.validation + class.test;
            (class.name.as_str(), samples)
        });
        Self {
            classes: classes.collect(),
            task: report.dataset.as_ref().map(|dataset| dataset.task),
        }
    }

    fn has_classes(&self, classes: &[(&str, u64)]) -> bool {
        self.task == Some(Task::SingleLabelClassification) && self.classes == classes
    }
}

fn wrong_weights(input: &Path, architecture: &str, right: &Right) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let plan = Import {
        input,
        architecture,
        max_bytes: 1 << 30,
        preprocessing: &AskedPreprocessing::default(),
    };
    match (import::run(&plan, folder.path()).unwrap(), right) {
        (Validated::Accepted, Right::Weights(_)) => None,
        (Validated::Refused { problems }, Right::NoWeights(_, code, phrases)) => {
            let first = &problems[0];
            let is_right = first.code == *code
                && problems.len() <= 10
                && phrases.iter().all(|phrase| first.message.contains(phrase));
            (!is_right).then(|| format!("{} problems, the first: {first:?}", problems.len()))
        }
        (outcome, _) => {
            let text = format!("{outcome:?}");
            Some(text.chars().take(600).collect())
        }
    }
}
