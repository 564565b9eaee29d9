//! `rehead report`: prints a job's evaluation as tables.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;

use super::api::{self, Api};
use crate::{
    config::ClientArgs,
    domain::report::{
        Forgetting, LabelForgetting, MultiLabelScores, RegressionScores, Report, Scores,
        SingleLabelScores,
    },
};

/// Characters of a class name in a column header.
const HEAD_CHARACTERS: usize = 10;
/// Most classes of a confusion matrix; a larger one would be wider than a terminal.
const MATRIX_CLASSES: usize = 20;

/// `rehead report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Job id
    pub job: String,
}

/// Prints the report of a job that succeeded.
///
/// # Errors
/// There is no such job, or no report yet.
pub async fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let path = format!("/v1/fine_tuning/jobs/{}/report", args.job);
    let body = Api::new(&args.client).get(&path).await?;
    let report: Report = serde_json::from_value(body)
        .context("cannot read the report; use a client of the service's version")?;
    api::print(render(&report).trim_end())
}

fn render(report: &Report) -> String {
    let split = serde_json::to_value(report.split).unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Best checkpoint: step {}, epoch {}; {} {} samples\n",
        report.step,
        report.epoch,
        report.samples,
        split.as_str().unwrap_or_default()
    );
    let _ = match &report.scores {
        Scores::SingleLabelClassification(scores) => single_label(&mut text, scores),
        Scores::MultiLabelClassification(scores) => multi_label(&mut text, scores),
        Scores::Regression(scores) => regression(&mut text, scores),
    };
    text
}

fn single_label(text: &mut String, scores: &SingleLabelScores) -> std::fmt::Result {
    let [low, high] = scores.accuracy_interval;
    writeln!(
        text,
        "accuracy            {:.3}   95 % interval {low:.3} to {high:.3}",
        scores.accuracy
    )?;
    writeln!(
        text,
        "majority baseline   {:.3}   always predicting the most frequent class",
        scores.majority_baseline
    )?;
    writeln!(text, "balanced accuracy   {:.3}", scores.balanced_accuracy)?;
    writeln!(text, "macro F1            {:.3}", scores.macro_f1)?;
    writeln!(text, "ROC-AUC             {}", share(scores.roc_auc))?;
    writeln!(text, "log loss            {:.3}   nats\n", scores.log_loss)?;
    let width = width(scores.classes.iter().map(|class| class.name.as_str()));
    writeln!(
        text,
        "{:width$}  precision  recall     F1  support",
        "class"
    )?;
    for class in &scores.classes {
        writeln!(
            text,
            "{}  {:>9}  {:>6}  {:>5}  {:>7}",
            cell(&class.name, width),
            share(class.precision),
            share(class.recall),
            share(class.f1),
            class.support
        )?;
    }
    match &scores.confusion {
        Some(counts) if scores.classes.len() <= MATRIX_CLASSES => {
            writeln!(text, "\n{:width$}  predicted", "true")?;
            confusion(text, scores, counts, width);
        }
        _ => {}
    }
    scores
        .forgetting
        .as_ref()
        .map_or(Ok(()), |forgetting| known_classes(text, forgetting))
}

/// Forgetting: the classes that the parent model knew, before and after.
fn known_classes(text: &mut String, forgetting: &Forgetting) -> std::fmt::Result {
    writeln!(
        text,
        "\nKnown before: accuracy {} -> {} on {} validation samples of these classes",
        share(forgetting.accuracy_before),
        share(forgetting.accuracy_after),
        forgetting.samples
    )?;
    let width = width(forgetting.classes.iter().map(|class| class.name.as_str()));
    writeln!(text, "{:width$}  recall before  after  support", "class")?;
    for class in &forgetting.classes {
        writeln!(
            text,
            "{}  {:>13}  {:>5}  {:>7}",
            cell(&class.name, width),
            share(class.recall_before),
            share(class.recall_after),
            class.support
        )?;
    }
    Ok(())
}

/// Forgetting in multi-label classification.
fn known_labels(text: &mut String, forgetting: &LabelForgetting) -> std::fmt::Result {
    writeln!(
        text,
        "\nKnown before: mean average precision {} -> {} on {} validation samples",
        share(forgetting.mean_average_precision_before),
        share(forgetting.mean_average_precision_after),
        forgetting.samples
    )?;
    let width = width(forgetting.classes.iter().map(|class| class.name.as_str()));
    writeln!(text, "{:width$}  AP before  after  support", "label")?;
    for class in &forgetting.classes {
        writeln!(
            text,
            "{}  {:>9}  {:>5}  {:>7}",
            cell(&class.name, width),
            share(class.average_precision_before),
            share(class.average_precision_after),
            class.support
        )?;
    }
    Ok(())
}

fn multi_label(text: &mut String, scores: &MultiLabelScores) -> std::fmt::Result {
    let average = share(scores.mean_average_precision);
    writeln!(text, "mean average precision  {average}")?;
    writeln!(text, "ROC-AUC                 {}", share(scores.roc_auc))?;
    writeln!(text, "micro F1                {}", share(scores.micro_f1))?;
    writeln!(text, "macro F1                {}", share(scores.macro_f1))?;
    writeln!(
        text,
        "subset accuracy         {:.3}   all labels correct",
        scores.subset_accuracy
    )?;
    writeln!(
        text,
        "log loss                {:.3}   nats\n",
        scores.log_loss
    )?;
    let width = width(scores.classes.iter().map(|class| class.name.as_str()));
    writeln!(
        text,
        "{:width$}  precision  recall     F1  threshold  ROC-AUC     AP  support",
        "label"
    )?;
    for class in &scores.classes {
        writeln!(
            text,
            "{}  {:>9}  {:>6}  {:>5}  {:>9.3}  {:>7}  {:>5}  {:>7}",
            cell(&class.name, width),
            share(class.precision),
            share(class.recall),
            share(class.f1),
            class.threshold,
            share(class.roc_auc),
            share(class.average_precision),
            class.support
        )?;
    }
    scores
        .forgetting
        .as_ref()
        .map_or(Ok(()), |forgetting| known_labels(text, forgetting))
}

fn regression(text: &mut String, scores: &RegressionScores) -> std::fmt::Result {
    let interval = scores.mae_interval.map_or_else(String::new, |[low, high]| {
        format!("   95 % interval {low:.4} to {high:.4}")
    });
    let baseline = scores.baseline;
    writeln!(text, "R2              {}", share(scores.r2))?;
    writeln!(text, "MAE             {:.4}{interval}", scores.mae)?;
    writeln!(text, "RMSE            {:.4}", scores.rmse)?;
    writeln!(
        text,
        "mean baseline   MAE {:.4}, RMSE {:.4}: always predicting the training mean",
        baseline.mae, baseline.rmse
    )?;
    let target = scores.target;
    writeln!(
        text,
        "true values     {:.4} to {:.4}, mean {:.4}, deviation {:.4}",
        target.min, target.max, target.mean, target.std
    )
}

/// Width of the column of names.
fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let longest = names.map(|name| name.chars().count()).max();
    longest.unwrap_or(0).clamp(5, 32)
}

fn cell(name: &str, width: usize) -> String {
    let name: String = name.chars().take(width).collect();
    format!("{name:width$}")
}

fn confusion(text: &mut String, scores: &SingleLabelScores, counts: &[Vec<u64>], width: usize) {
    let head = |name: &str| name.chars().take(HEAD_CHARACTERS).collect::<String>();
    let heads: Vec<String> = scores
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
    for (class, counts) in scores.classes.iter().zip(counts) {
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
    use crate::domain::{
        file::Split,
        report::{ClassReport, KnownClass},
    };

    #[test]
    fn a_report_is_printed_as_tables() {
        let class = |name: &str, precision, support| ClassReport {
            name: name.to_owned(),
            precision,
            recall: Some(0.5),
            f1: None,
            roc_auc: None,
            support,
        };
        let report = Report {
            split: Split::Validation,
            samples: 6,
            step: 40,
            epoch: 4,
            scores: Scores::SingleLabelClassification(SingleLabelScores {
                accuracy: 0.5,
                accuracy_interval: [0.1881, 0.8119],
                majority_baseline: 0.25,
                balanced_accuracy: 0.5,
                macro_f1: 0.4,
                roc_auc: None,
                log_loss: 1.1,
                calibration: None,
                classes: vec![
                    class("cats", Some(1.0), 4),
                    class("transportation", None, 2),
                ],
                confusion: Some(vec![vec![2, 2], vec![1, 1]]),
                forgetting: Some(Forgetting {
                    samples: 4,
                    accuracy_before: Some(0.75),
                    accuracy_after: Some(0.5),
                    classes: vec![KnownClass {
                        name: "cats".to_owned(),
                        support: 4,
                        recall_before: Some(0.75),
                        recall_after: Some(0.5),
                    }],
                }),
                transferability: None,
            }),
        };
        let expected = "\
Best checkpoint: step 40, epoch 4; 6 validation samples

accuracy            0.500   95 % interval 0.188 to 0.812
majority baseline   0.250   always predicting the most frequent class
balanced accuracy   0.500
macro F1            0.400
ROC-AUC             -
log loss            1.100   nats

class           precision  recall     F1  support
cats                1.000   0.500      -        4
transportation          -   0.500      -        2

true            predicted
                 cats  transporta
cats                2           2
transportation      1           1

Known before: accuracy 0.750 -> 0.500 on 4 validation samples of these classes
class  recall before  after  support
cats           0.750  0.500        4
";
        assert_eq!(render(&report), expected);
    }
}
