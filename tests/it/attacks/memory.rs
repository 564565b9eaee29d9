//! Memory and time of a validation process under attack. Claims of a file must cost neither: what
//! is allocated follows from the bytes that are there. Rows of A3, A4, A9 and A11 of
//! docs/security.md.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rehead_domain::{
    file::FileReport,
    progress::Validated,
    work::{DatasetLimits, PLAN, ValidatePlan},
};
use tempfile::TempDir;

use crate::support::process::trainer;

/// Resident memory of a process that has loaded libtorch and read a small file: 0.3 GB are
/// measured.
const MEMORY_KIB: u64 = 700 << 10;
/// The longest that a validation of a small file may take on a machine that is busy. Attacks on
/// time take minutes.
const TIME: Duration = Duration::from_secs(60);

/// A validation that has ended.
pub(super) struct Validation {
    _folder: TempDir,
    pub(super) verdict: Validated,
    /// The report on a data set.
    pub(super) report: Option<FileReport>,
}

impl Validation {
    /// Codes and paths of all problems, warnings too.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let refused = match &self.verdict {
            Validated::Refused { problems } => &problems[..],
            _ => &[],
        };
        let warnings = self.report.iter().flat_map(|report| &report.warnings);
        let problems = refused.iter().chain(warnings);
        problems
            .map(|one| (one.path.clone(), one.code.clone()))
            .collect()
    }
}

/// Runs `rehead-trainer validate` on bytes, and holds its memory and time to their limits.
pub(super) fn validate(
    name: &str,
    bytes: &[u8],
    plan: impl FnOnce(std::path::PathBuf) -> ValidatePlan,
) -> Validation {
    let folder = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    let input = folder.path().join("input");
    fs::write(&input, bytes).unwrap();
    fs::write(
        folder.path().join(PLAN),
        serde_json::to_vec(&plan(input)).unwrap(),
    )
    .unwrap();
    let started = Instant::now();
    let mut child = Command::new(trainer())
        .arg("validate")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(high.unwrap_or(0));
        assert!(started.elapsed() < TIME, "{name} takes more than {TIME:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(peak < MEMORY_KIB, "{name} took {peak} KiB");
    let output = child.wait_with_output().unwrap();
    assert!(status.success(), "{name}: {status}");
    // The lines before it say that the child works.
    let mut lines = output.stdout.split(|&byte| byte == b'\n');
    let answer = lines.rfind(|line| !line.is_empty());
    let verdict = serde_json::from_slice(answer.unwrap_or_default());
    let report = fs::read(folder.path().join("report.json")).ok();
    Validation {
        verdict: verdict.unwrap_or_else(|error| panic!("{name}: {error}")),
        report: report.map(|report| serde_json::from_slice(&report).unwrap()),
        _folder: folder,
    }
}

/// Limits of a service as it is delivered, where tests do not need smaller ones.
pub(super) const LIMITS: DatasetLimits = DatasetLimits {
    entries: 2_000_000,
    unpacked_bytes: 4 << 30,
    entry_bytes: 256 << 20,
    ratio: 100,
    page_bytes: 1 << 30,
    pixels: 50_000_000,
    report_problems: 1_000,
    thumbnails: 100,
};

pub(super) fn dataset(name: &str, bytes: &[u8], limits: DatasetLimits) -> Validation {
    validate(name, bytes, |input| ValidatePlan::Dataset {
        input,
        limits,
        threads: 2,
    })
}

#[test]
fn claims_of_weights_cost_no_memory_and_no_time() {
    let attacks = super::weights::pickles()
        .into_iter()
        .chain(super::weights::headers());
    for attack in attacks {
        let validation = validate(attack.name, &attack.bytes, |input| ValidatePlan::Weights {
            input,
            architecture: "resnet18".to_owned(),
            max_bytes: 20 << 30,
            preprocessing: None,
        });
        let problems = validation.problems();
        let has_code = problems.iter().any(|(_, code)| code == attack.code);
        assert!(has_code, "{}: {problems:?}", attack.name);
    }
}

#[test]
fn claims_of_archives_cost_no_memory_and_no_time() {
    for attack in super::archives::bombs() {
        let validation = dataset(attack.name, &attack.bytes, LIMITS);
        let problems = validation.problems();
        let has_code = problems.iter().any(|(_, code)| code == attack.code);
        assert!(has_code, "{}: {problems:?}", attack.name);
        assert!(
            !matches!(validation.verdict, Validated::Accepted),
            "{}",
            attack.name
        );
    }
}
