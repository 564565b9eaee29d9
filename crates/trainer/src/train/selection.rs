//! Which evaluation is the best so far, and whether training should go on: pure functions of the evaluations.

use super::checkpoint::{Counters, Exact};
use crate::domain::{
    checkpoint::Metrics,
    recipe::{EarlyStopping, Metric},
};

/// Takes an evaluation into the counters: `best`, and how long there was no gain. Returns whether it is the best so far.
///
/// The better metric wins; of equals the lower validation loss, then the earlier step. Patience is counted from the last
/// gain of more than `min_delta`.
pub fn judge(counters: &mut Counters, metrics: Metrics, rule: &EarlyStopping) -> bool {
    let value = goodness(metrics, rule.metric);
    let is_best = counters.best.map(Metrics::from).is_none_or(|best| {
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

/// Higher is better.
fn goodness(metrics: Metrics, metric: Metric) -> f64 {
    match metric {
        Metric::ValidAccuracy => metrics.valid_accuracy,
        Metric::ValidBalancedAccuracy => metrics.valid_balanced_accuracy,
        Metric::ValidLoss => -metrics.valid_loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[(f64, f64)], rule: &EarlyStopping) -> Vec<(bool, bool)> {
        let mut counters = Counters::start();
        let judged = (1..)
            .zip(values)
            .map(|(step, &(valid_accuracy, valid_loss))| {
                let metrics = Metrics {
                    step,
                    epoch: step as u32,
                    train_loss: None,
                    valid_loss,
                    valid_accuracy,
                    valid_balanced_accuracy: 1.0 - valid_accuracy,
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
}
