//! The best evaluation so far, and early stopping: pure functions of the evaluations.

use crate::{
    domain::{
        checkpoint::Metrics,
        recipe::{EarlyStopping, Metric},
    },
    train::counters::{Counters, Exact},
};

/// Takes an evaluation into the counters: `best`, and how long there was no gain. Returns whether
/// it is the best so far.
///
/// The better metric wins; of equals the lower validation loss, then the earlier step. Patience is
/// counted from the last gain of more than `min_delta`.
pub fn judge(counters: &mut Counters, metrics: Metrics, rule: &EarlyStopping) -> bool {
    let value = goodness(metrics, rule.metric);
    let is_best = counters
        .best
        .as_ref()
        .map(Metrics::from)
        .is_none_or(|best| {
            let best_value = goodness(best, rule.metric);
            value > best_value || (value == best_value && metrics.valid_loss < best.valid_loss)
        });
    if is_best {
        counters.best = Some(metrics.into());
    }
    if counters
        .gain_from
        .is_none_or(|Exact(from)| value > from + rule.min_delta)
    {
        counters.gain_from = Some(Exact(value));
        counters.evaluations_without_gain = 0;
    } else {
        counters.evaluations_without_gain += 1;
    }
    counters.stopped_early = rule
        .patience
        .is_some_and(|patience| counters.evaluations_without_gain >= patience);
    is_best
}

/// Higher is better, whatever the metric.
fn goodness(metrics: Metrics, metric: Metric) -> f64 {
    // Where the metric does not exist (an R2 of numbers that are all the same), the loss decides.
    match metrics.get(metric) {
        Some(value) if metric.is_higher_better() => value,
        Some(value) => -value,
        None => f64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[(f64, f64)], rule: &EarlyStopping) -> Vec<(bool, bool)> {
        let mut counters = Counters::default();
        let judged = (1..)
            .zip(values)
            .map(|(step, &(valid_accuracy, valid_loss))| {
                let metrics = Metrics {
                    step,
                    epoch: step as u32,
                    valid_loss,
                    valid_accuracy: Some(valid_accuracy),
                    valid_balanced_accuracy: Some(1.0 - valid_accuracy),
                    valid_rmse: Some(valid_accuracy),
                    ..Metrics::default()
                };
                (judge(&mut counters, metrics, rule), counters.stopped_early)
            });
        judged.collect()
    }

    #[test]
    fn ties_go_to_the_lower_loss_and_patience_ends_training() {
        let rule = EarlyStopping {
            patience: Some(2),
            metric: Metric::ValidAccuracy,
            min_delta: 0.0,
        };
        let values = [(0.5, 1.0), (0.5, 0.9), (0.6, 1.1), (0.6, 1.1), (0.6, 1.0)];
        let expected = [
            (true, false),
            (true, false),
            (true, false),
            (false, false),
            (true, true),
        ];
        assert_eq!(run(&values, &rule), expected);
    }

    #[test]
    fn a_gain_within_min_delta_is_best_but_not_a_gain() {
        let rule = EarlyStopping {
            patience: Some(1),
            metric: Metric::ValidLoss,
            min_delta: 0.1,
        };
        assert_eq!(
            run(&[(0.5, 1.0), (0.5, 0.95)], &rule),
            [(true, false), (true, true)]
        );
        let rule = EarlyStopping {
            patience: None,
            metric: Metric::ValidBalancedAccuracy,
            min_delta: 0.0,
        };
        assert_eq!(
            run(&[(0.5, 1.0), (0.6, 0.1), (0.4, 2.0)], &rule),
            [(true, false), (false, false), (true, false)]
        );
    }

    #[test]
    fn metrics_have_a_direction_and_missing_ones_choose_nothing() {
        let rule = |metric| EarlyStopping {
            patience: None,
            metric,
            min_delta: 0.0,
        };
        let values = [(0.5, 1.0), (0.4, 1.1), (0.6, 0.9)];
        let best = |metric| {
            run(&values, &rule(metric))
                .into_iter()
                .map(|one| one.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(best(Metric::ValidAccuracy), [true, false, true]);
        assert_eq!(best(Metric::ValidRmse), [true, true, false]);
        // Not measured here: the loss decides.
        assert_eq!(best(Metric::ValidR2), [true, false, true]);
    }
}
