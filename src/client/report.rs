//! `rehead report`: a job's evaluation as tables.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;

use super::api::{self, Api};
use crate::{config::ClientArgs, domain::report::Report};

/// Characters of a class name in a column's head.
const HEAD_CHARACTERS: usize = 10;
/// Classes beyond which the confusion matrix is left out: it would be wider than a terminal.
const MATRIX_CLASSES: usize = 20;

/// `rehead report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The job's id
    pub job: String,
}

/// Prints the report of a job that succeeded.
///
/// # Errors
/// What the service says: no such job, or no report yet.
pub async fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let path = format!("/v1/fine_tuning/jobs/{}/report", args.job);
    let body = Api::new(&args.client).get(&path).await?;
    let report: Report = serde_json::from_value(body)
        .context("the report is of another version than this client")?;
    api::print(render(&report).trim_end())
}

fn render(report: &Report) -> String {
    let split = serde_json::to_value(report.split).unwrap_or_default();
    let mut text = String::new();
    let [low, high] = report.accuracy_interval;
    let _ = writeln!(
        text,
        "Best checkpoint: step {}, epoch {}; {} {} samples\n",
        report.step,
        report.epoch,
        report.samples,
        split.as_str().unwrap_or_default()
    );
    let _ = writeln!(
        text,
        "accuracy            {:.3}   95 % interval {low:.3} to {high:.3}",
        report.accuracy
    );
    let _ = writeln!(
        text,
        "majority baseline   {:.3}   always answering the commonest class",
        report.majority_baseline
    );
    let _ = writeln!(text, "balanced accuracy   {:.3}", report.balanced_accuracy);
    let _ = writeln!(text, "macro F1            {:.3}", report.macro_f1);
    let _ = writeln!(text, "log loss            {:.3}   nats\n", report.log_loss);

    let width = report
        .classes
        .iter()
        .map(|class| class.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(5, 32);
    let _ = writeln!(
        text,
        "{:width$}  precision  recall     F1  support",
        "class"
    );
    for class in &report.classes {
        let name: String = class.name.chars().take(width).collect();
        let _ = writeln!(
            text,
            "{name:width$}  {:>9}  {:>6}  {:>5}  {:>7}",
            share(class.precision),
            share(class.recall),
            share(class.f1),
            class.support
        );
    }
    if report.classes.len() <= MATRIX_CLASSES {
        let _ = writeln!(text, "\n{:width$}  predicted", "true");
        confusion(&mut text, report, width);
    }
    text
}

fn confusion(text: &mut String, report: &Report, width: usize) {
    let head = |name: &str| name.chars().take(HEAD_CHARACTERS).collect::<String>();
    let heads: Vec<String> = report
        .classes
        .iter()
        .map(|class| head(&class.name))
        .collect();
    let columns: Vec<usize> = heads
        .iter()
        .map(|head| head.chars().count().max(5))
        .collect();
    let _ = write!(text, "{:width$}", "");
    for (head, column) in heads.iter().zip(&columns) {
        let _ = write!(text, "  {head:>column$}");
    }
    let _ = writeln!(text);
    for (class, counts) in report.classes.iter().zip(&report.confusion) {
        let name: String = class.name.chars().take(width).collect();
        let _ = write!(text, "{name:width$}");
        for (count, column) in counts.iter().zip(&columns) {
            let _ = write!(text, "  {count:>column$}");
        }
        let _ = writeln!(text);
    }
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{file::Split, report::ClassReport};

    #[test]
    fn a_report_reads_as_tables() {
        let class = |name: &str, precision, support| ClassReport {
            name: name.to_owned(),
            precision,
            recall: Some(0.5),
            f1: None,
            support,
        };
        let report = Report {
            split: Split::Validation,
            samples: 6,
            step: 40,
            epoch: 4,
            accuracy: 0.5,
            accuracy_interval: [0.1881, 0.8119],
            majority_baseline: 0.25,
            balanced_accuracy: 0.5,
            macro_f1: 0.4,
            log_loss: 1.1,
            classes: vec![
                class("cats", Some(1.0), 4),
                class("transportation", None, 2),
            ],
            confusion: vec![vec![2, 2], vec![1, 1]],
            forgetting: None,
        };
        let expected = "\
Best checkpoint: step 40, epoch 4; 6 validation samples

accuracy            0.500   95 % interval 0.188 to 0.812
majority baseline   0.250   always answering the commonest class
balanced accuracy   0.500
macro F1            0.400
log loss            1.100   nats

class           precision  recall     F1  support
cats                1.000   0.500      -        4
transportation          -   0.500      -        2

true            predicted
                 cats  transporta
cats                2           2
transportation      1           1
";
        assert_eq!(render(&report), expected);
    }
}
