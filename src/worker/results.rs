//! The result file of a job that succeeded: its steps and evaluations as CSV, for clients that read
//! `result_files` as OpenAI's have them.

use std::{collections::BTreeMap, fmt::Write as _, io};

use futures_util::stream;

use super::{context::Worker, fault::Fault};
use crate::{
    db::{
        self,
        queue::{Claimed, ResultFile},
    },
    domain::{id::FileId, progress::Step, recipe::Metric},
};

/// Steps per query.
const BATCH: u32 = 5_000;

/// A step, its evaluation, or both.
#[derive(Default)]
struct Row {
    step: Option<Step>,
    metrics: Option<db::metrics::Evaluation>,
}

/// Stores the file of a job whose last metrics are written.
///
/// # Errors
/// A full disk; the database cannot be read.
pub(super) async fn store(worker: &Worker, claimed: &Claimed) -> Result<ResultFile, Fault> {
    let csv = csv(&read(worker, claimed).await?);
    let id = FileId::new();
    let key = db::files::content_key(id);
    let bytes = stream::iter([io::Result::Ok(csv.into())]);
    let stored = worker.objects.put_stream(&key, bytes).await?;
    Ok(ResultFile {
        id,
        bytes: stored.bytes,
        sha256: stored.sha256,
    })
}

async fn read(worker: &Worker, claimed: &Claimed) -> Result<BTreeMap<u64, Row>, Fault> {
    let (pool, tenant, job) = (&worker.pool, claimed.tenant, claimed.job);
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    let mut last = 0;
    loop {
        let steps = db::metrics::steps_after(pool, tenant, job, last, BATCH).await?;
        let Some(newest) = steps.last() else {
            break;
        };
        last = newest.step;
        for step in steps {
            let row = rows.entry(step.step).or_default();
            row.step = Some(step);
        }
    }
    for evaluation in db::metrics::evaluations_after(pool, tenant, job, None).await? {
        rows.entry(evaluation.metrics.step).or_default().metrics = Some(evaluation);
    }
    Ok(rows)
}

/// A row per step, with the metrics that any evaluation has; what a step lacks is empty.
fn csv(rows: &BTreeMap<u64, Row>) -> String {
    let evaluations = || rows.values().filter_map(|row| row.metrics.as_ref());
    let metrics: Vec<Metric> = Metric::ALL
        .into_iter()
        .filter(|&metric| evaluations().any(|one| one.metrics.get(metric).is_some()))
        .collect();
    let mut text = "step,epoch,learning_rate,train_loss".to_owned();
    for metric in &metrics {
        text += ",";
        text += metric.as_str();
    }
    text += "\n";
    for (
        number,
        Row {
            step,
            metrics: found,
        },
    ) in rows
    {
        let found = found.map(|one| one.metrics);
        let epoch = step.as_ref().map(|step| step.epoch);
        let epoch = epoch.or(found.map(|metrics| metrics.epoch));
        let train_loss = step.as_ref().and_then(|step| step.train_loss);
        let _ = write!(text, "{number},{}", epoch.unwrap_or_default());
        push(&mut text, step.as_ref().map(|step| step.learning_rate));
        push(
            &mut text,
            train_loss.or(found.and_then(|metrics| metrics.train_loss)),
        );
        for &metric in &metrics {
            push(&mut text, found.and_then(|found| found.get(metric)));
        }
        text += "\n";
    }
    text
}

fn push(text: &mut String, number: Option<f64>) {
    text.push(',');
    if let Some(number) = number {
        let _ = write!(text, "{number}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checkpoint::Metrics;

    #[test]
    fn steps_and_evaluations_share_rows() {
        let metrics = |step, accuracy| db::metrics::Evaluation {
            metrics: Metrics {
                step,
                epoch: 1,
                train_loss: Some(0.5),
                valid_loss: 0.25,
                valid_accuracy: accuracy,
                ..Metrics::default()
            },
            best: true,
        };
        let step = |step| Step {
            step,
            epoch: 0,
            train_loss: Some(0.125),
            learning_rate: 0.01,
            samples_per_second: 3.0,
        };
        let rows = BTreeMap::from([
            (
                0,
                Row {
                    step: None,
                    metrics: Some(metrics(0, None)),
                },
            ),
            (
                1,
                Row {
                    step: Some(step(1)),
                    metrics: None,
                },
            ),
            (
                2,
                Row {
                    step: Some(step(2)),
                    metrics: Some(metrics(2, Some(0.75))),
                },
            ),
        ]);
        assert_eq!(
            csv(&rows),
            "step,epoch,learning_rate,train_loss,valid_loss,valid_accuracy\n\
             0,1,,0.5,0.25,\n1,0,0.01,0.125,,\n2,0,0.01,0.125,0.25,0.75\n"
        );
    }
}
