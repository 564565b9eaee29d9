//! `rehead report`: prints a job's evaluation as tables.

use clap::Args;

use super::{
    api::{self, Api},
    table::render_numbers,
};
use crate::{
    config::ClientArgs,
    domain::report::{
        Forgetting, LabelForgetting, MultiLabelScores, RegressionScores, Report, Scores,
        SingleLabelScores,
    },
};

/// Characters of a class name in a column header.
const HEAD_CHARACTERS: usize = 10;
/// Characters of a class name in front of its row.
const NAME_CHARACTERS: usize = 32;
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
    let api = Api::new(&args.client);
    if args.client.json {
        let path = format!("{}/report", api::job_path(&args.job));
        return api::print_json(&api.get(&path).await?);
    }
    let report = api.report(&args.job).await?;
    api::print(render(&report).trim_end())
}

fn render(report: &Report) -> String {
    let Report {
        split,
        samples,
        step,
        epoch,
        scores,
    } = report;
    let scores = match scores {
        Scores::SingleLabelClassification(scores) => single_label(scores),
        Scores::MultiLabelClassification(scores) => multi_label(scores),
        Scores::Regression(scores) => regression(scores),
    };
    format!("Best checkpoint: step {step}, epoch {epoch}; {samples} {split} samples\n\n{scores}")
}

fn single_label(scores: &SingleLabelScores) -> String {
    let SingleLabelScores {
        accuracy,
        accuracy_interval: [low, high],
        majority_baseline,
        balanced_accuracy,
        macro_f1,
        log_loss,
        ..
    } = scores;
    let roc_auc = share(scores.roc_auc);
    let classes = scores.classes.iter().map(|class| {
        let shares = [class.precision, class.recall, class.f1];
        scored_row(&class.name, shares, class.support)
    });
    let headers = ["class", "precision", "recall", "   F1", "support"];
    let classes = render_numbers(&headers, classes);
    let mut text = format!(
        "\
accuracy            {accuracy:.3}   95 % interval {low:.3} to {high:.3}
majority baseline   {majority_baseline:.3}   always predicting the most frequent class
balanced accuracy   {balanced_accuracy:.3}
macro F1            {macro_f1:.3}
ROC-AUC             {roc_auc}
log loss            {log_loss:.3}   nats

{classes}
"
    );
    if let Some(counts) = &scores.confusion
        && scores.classes.len() <= MATRIX_CLASSES
    {
        text += &confusion(scores, counts);
    }
    text + &scores
        .forgetting
        .as_ref()
        .map_or_else(String::new, known_classes)
}

/// Forgetting: the classes that the parent model knew, before and after.
fn known_classes(forgetting: &Forgetting) -> String {
    let classes = forgetting.classes.iter().map(|class| {
        let recalls = [class.recall_before, class.recall_after];
        scored_row(&class.name, recalls, class.support)
    });
    format!(
        "\nKnown before: accuracy {} -> {} on {} validation samples of these classes\n{}\n",
        share(forgetting.accuracy_before),
        share(forgetting.accuracy_after),
        forgetting.samples,
        render_numbers(&["class", "recall before", "after", "support"], classes)
    )
}

/// Forgetting in multi-label classification.
fn known_labels(forgetting: &LabelForgetting) -> String {
    let labels = forgetting.classes.iter().map(|class| {
        let precisions = [
            class.average_precision_before,
            class.average_precision_after,
        ];
        scored_row(&class.name, precisions, class.support)
    });
    format!(
        "\nKnown before: mean average precision {} -> {} on {} validation samples\n{}\n",
        share(forgetting.mean_average_precision_before),
        share(forgetting.mean_average_precision_after),
        forgetting.samples,
        render_numbers(&["label", "AP before", "after", "support"], labels)
    )
}

fn multi_label(scores: &MultiLabelScores) -> String {
    let average = share(scores.mean_average_precision);
    let [roc_auc, micro_f1, macro_f1] =
        [scores.roc_auc, scores.micro_f1, scores.macro_f1].map(share);
    let MultiLabelScores {
        subset_accuracy,
        log_loss,
        ..
    } = scores;
    let labels = scores.classes.iter().map(|class| {
        let numbers = [
            class.precision,
            class.recall,
            class.f1,
            Some(class.threshold),
            class.roc_auc,
            class.average_precision,
        ];
        scored_row(&class.name, numbers, class.support)
    });
    let headers = [
        "label",
        "precision",
        "recall",
        "   F1",
        "threshold",
        "ROC-AUC",
        "   AP",
        "support",
    ];
    let labels = render_numbers(&headers, labels);
    let text = format!(
        "\
mean average precision  {average}
ROC-AUC                 {roc_auc}
micro F1                {micro_f1}
macro F1                {macro_f1}
subset accuracy         {subset_accuracy:.3}   all labels correct
log loss                {log_loss:.3}   nats

{labels}
"
    );
    text + &scores
        .forgetting
        .as_ref()
        .map_or_else(String::new, known_labels)
}

fn regression(scores: &RegressionScores) -> String {
    let interval = scores.mae_interval.map_or_else(String::new, |[low, high]| {
        format!("   95 % interval {low:.4} to {high:.4}")
    });
    let r2 = share(scores.r2);
    let RegressionScores { mae, rmse, .. } = scores;
    let (baseline, target) = (scores.baseline, scores.target);
    format!(
        "\
R2              {r2}
MAE             {mae:.4}{interval}
RMSE            {rmse:.4}
mean baseline   MAE {:.4}, RMSE {:.4}: always predicting the training mean
true values     {:.4} to {:.4}, mean {:.4}, deviation {:.4}
",
        baseline.mae, baseline.rmse, target.min, target.max, target.mean, target.std
    )
}

/// A row of a table: a name and its numbers.
fn row(name: &str, numbers: impl IntoIterator<Item = String>) -> Vec<String> {
    let name = [beginning(name, NAME_CHARACTERS)];
    name.into_iter().chain(numbers).collect()
}

/// A row of a table: a name, its scores, and its number of samples.
fn scored_row<const N: usize>(name: &str, scores: [Option<f64>; N], support: u64) -> Vec<String> {
    row(
        name,
        scores.map(share).into_iter().chain([support.to_string()]),
    )
}

fn beginning(name: &str, characters: usize) -> String {
    name.chars().take(characters).collect()
}

fn confusion(scores: &SingleLabelScores, counts: &[Vec<u64>]) -> String {
    let names = scores.classes.iter().map(|class| class.name.as_str());
    let longest = names.clone().map(|name| name.chars().count()).max();
    let width = longest.unwrap_or(0).clamp(5, NAME_CHARACTERS);
    let heads = names
        .clone()
        .map(|name| format!("{:>5}", beginning(name, HEAD_CHARACTERS)));
    let heads: Vec<String> = [" ".repeat(width)].into_iter().chain(heads).collect();
    let rows = names
        .zip(counts)
        .map(|(name, counts)| row(name, counts.iter().map(u64::to_string)));
    let table = render_numbers(&heads, rows);
    format!("\n{:width$}  predicted\n{table}\n", "true")
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
