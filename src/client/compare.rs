//! `rehead compare`: ranks base models by the jobs that started from them on the same data.

use std::cmp::Ordering;

use clap::Args;
use serde_json::{Value, json};

use super::{
    api::{self, Api},
    table::render,
};
use crate::{
    config::ClientArgs,
    domain::report::{Scores, SingleLabelScores},
};

/// The most jobs that can be compared at once.
const MAX_JOBS: usize = 100;

/// `rehead compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Ids of at most 100 jobs that succeeded on the same data
    #[arg(required = true, num_args = 1..=MAX_JOBS)]
    pub jobs: Vec<String>,
}

/// Prints the jobs, the one with the most promising base model first.
///
/// # Errors
/// The service refuses; the jobs used different data, or are not single-label classification.
pub async fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let mut entries = Vec::new();
    for id in &args.jobs {
        entries.push(entry(&api, id).await?);
    }
    if let Some(other) = entries.iter().find(|one| one.data != entries[0].data) {
        anyhow::bail!(
            "jobs {} and {} used different data; compare jobs with the same training and validation file",
            entries[0].job,
            other.job
        );
    }
    let ranked = rank(entries);
    if args.client.json {
        let list: Vec<Value> = ranked.iter().map(object).collect();
        return api::print_json(&list);
    }
    api::print(&render(
        &[
            "MODEL", "RIDGE", "LOGME", "KNN", "H-SCORE", "ACCURACY", "95 %", "JOB",
        ],
        ranked.iter().map(row),
    ))
}

/// One job of the comparison.
#[derive(Debug, Clone)]
struct Entry {
    job: String,
    model: String,
    /// Training and validation file.
    data: [Value; 2],
    scores: SingleLabelScores,
}

async fn entry(api: &Api, id: &str) -> anyhow::Result<Entry> {
    let mut job = api.get(&api::job_path(id)).await?;
    let Scores::SingleLabelClassification(scores) = api.report(id).await?.scores else {
        anyhow::bail!(
            "job {id} is not single-label classification; only such jobs can be compared"
        );
    };
    Ok(Entry {
        job: id.to_owned(),
        model: job["model"].as_str().unwrap_or_default().to_owned(),
        data: ["training_file", "validation_file"].map(|file| job[file].take()),
        scores,
    })
}

/// Sorts by ridge accuracy. Jobs without it come last, sorted by accuracy.
fn rank(mut entries: Vec<Entry>) -> Vec<Entry> {
    let score = |entry: &Entry| {
        let ridge = entry.scores.transferability;
        (
            ridge.map(|found| found.ridge_accuracy),
            entry.scores.accuracy,
        )
    };
    entries.sort_by(|one, other| {
        // `None` is less than any score.
        let order = score(other).partial_cmp(&score(one));
        order.unwrap_or(Ordering::Equal)
    });
    entries
}

fn row(entry: &Entry) -> Vec<String> {
    let scores = &entry.scores;
    let [low, high] = scores.accuracy_interval;
    let found = scores.transferability;
    let score = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        entry.model.clone(),
        score(found.map(|found| {
            let error = found.ridge_standard_error;
            format!("{:.3} ±{error:.3}", found.ridge_accuracy)
        })),
        score(found.map(|found| format!("{:.3}", found.log_me))),
        score(found.map(|found| format!("{:.3}", found.knn_accuracy))),
        score(found.map(|found| format!("{:.3}", found.h_score))),
        format!("{:.3}", scores.accuracy),
        format!("{low:.3} to {high:.3}"),
        entry.job.clone(),
    ]
}

fn object(entry: &Entry) -> Value {
    json!({
        "job": entry.job,
        "model": entry.model,
        "transferability": entry.scores.transferability,
        "accuracy": entry.scores.accuracy,
        "accuracy_interval": entry.scores.accuracy_interval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::report::Transferability;

    /// `found` is ridge accuracy, its standard error and LogME; `accuracy` is the job's.
    fn entry(model: &str, found: Option<[f64; 3]>, accuracy: f64) -> Entry {
        let transferability = |[ridge, error, log_me]: [f64; 3]| Transferability {
            samples: 120,
            features: 1280,
            knn_accuracy: 0.5,
            ridge_accuracy: ridge,
            ridge_standard_error: error,
            log_me,
            h_score: 2.5,
        };
        Entry {
            job: format!("ftjob-{model}"),
            model: model.to_owned(),
            data: [json!("file-1"), Value::Null],
            scores: SingleLabelScores {
                accuracy,
                accuracy_interval: [0.25, 0.75],
                majority_baseline: 0.2,
                balanced_accuracy: 0.5,
                macro_f1: 0.5,
                roc_auc: None,
                log_loss: 1.0,
                calibration: None,
                classes: Vec::new(),
                confusion: None,
                forgetting: None,
                transferability: found.map(transferability),
            },
        }
    }

    #[test]
    fn jobs_without_a_ridge_accuracy_come_last() {
        let entries = vec![
            entry("tuned-low", None, 0.6),
            entry("behind", Some([0.79, 0.04, 0.9]), 0.9),
            entry("best", Some([0.9, 0.03, 0.1]), 0.5),
            entry("next", Some([0.87, 0.05, 0.3]), 0.4),
            entry("tuned-high", None, 0.99),
        ];
        let ranked = rank(entries);
        let names: Vec<&str> = ranked.iter().map(|entry| entry.model.as_str()).collect();
        assert_eq!(names, ["best", "next", "behind", "tuned-high", "tuned-low"]);
    }

    #[test]
    fn a_row_shows_missing_scores_as_dashes() {
        let shown = row(&entry("a", Some([0.9, 0.03, -0.25]), 0.5));
        let expected = [
            "a",
            "0.900 ±0.030",
            "-0.250",
            "0.500",
            "2.500",
            "0.500",
            "0.250 to 0.750",
            "ftjob-a",
        ];
        assert_eq!(shown, expected);
        assert_eq!(row(&entry("b", None, 0.5))[1..5], ["-", "-", "-", "-"]);
    }
}
