//! A number a sample: errors in the target's unit.

use crate::domain::{
    checkpoint::Metrics,
    file::TargetStatistics,
    recipe::Loss,
    report::{Baseline, RegressionScores},
};

/// Standard errors on each side of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Predictions for some samples beside the true numbers, all in the target's unit.
#[derive(Debug, Clone)]
pub struct Regression {
    pub predictions: Vec<f64>,
    pub values: Vec<f64>,
    /// Standard deviation of the training split: the unit of the loss.
    pub std: f64,
    pub loss: Loss,
}

impl Regression {
    pub(super) fn measure(&self, metrics: &mut Metrics) {
        metrics.valid_loss = self.loss();
        metrics.valid_mae = Some(self.mae());
        metrics.valid_rmse = Some(self.rmse());
        metrics.valid_r2 = self.r2();
    }

    /// `mean` is that of the training split.
    pub(super) fn report(&self, mean: f64) -> RegressionScores {
        let baseline = Self {
            predictions: vec![mean; self.values.len()],
            ..self.clone()
        };
        RegressionScores {
            r2: self.r2(),
            mae: self.mae(),
            mae_interval: self.mae_interval(),
            rmse: self.rmse(),
            baseline: Baseline {
                mae: baseline.mae(),
                rmse: baseline.rmse(),
            },
            target: TargetStatistics::of(&self.values)
                .expect("a split that is reported on has samples: this is a bug"),
        }
    }

    fn errors(&self) -> impl Iterator<Item = f64> {
        let pairs = self.predictions.iter().zip(&self.values);
        pairs.map(|(prediction, value)| prediction - value)
    }

    fn mean(&self, of_error: impl Fn(f64) -> f64) -> f64 {
        self.errors().map(of_error).sum::<f64>() / self.values.len() as f64
    }

    pub(in crate::train::eval) fn loss(&self) -> f64 {
        match self.loss {
            Loss::Huber => self.mean(|error| {
                let deviations = (error / self.std).abs();
                if deviations < 1.0 {
                    deviations * deviations / 2.0
                } else {
                    deviations - 0.5
                }
            }),
            _ => self.mean(|error| (error / self.std).powi(2)),
        }
    }

    fn mae(&self) -> f64 {
        self.mean(f64::abs)
    }

    fn rmse(&self) -> f64 {
        self.mean(|error| error * error).sqrt()
    }

    fn mae_interval(&self) -> Option<[f64; 2]> {
        let n = self.values.len() as f64;
        if n < 2.0 {
            return None;
        }
        let mae = self.mae();
        let variance = self.mean(|error| (error.abs() - mae).powi(2)) * n / (n - 1.0);
        let reach = Z * (variance / n).sqrt();
        Some([(mae - reach).max(0.0), mae + reach])
    }

    /// 1 less the errors' share of the variance; `None` where there is none.
    fn r2(&self) -> Option<f64> {
        let mean = self.values.iter().sum::<f64>() / self.values.len() as f64;
        let spread: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        let missed: f64 = self.errors().map(|error| error * error).sum();
        (spread > 0.0).then(|| 1.0 - missed / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_in_deviations_and_errors_in_the_unit() {
        let scored = |loss| Regression {
            predictions: vec![10.0, 30.0],
            values: vec![15.0, 60.0],
            std: 10.0,
            loss,
        };
        assert_eq!(scored(Loss::Mse).loss(), f64::midpoint(0.25, 9.0));
        assert_eq!(scored(Loss::Huber).loss(), f64::midpoint(0.125, 2.5));
        assert_eq!(scored(Loss::Mse).mae(), 17.5);
        let [low, high] = scored(Loss::Mse).mae_interval().unwrap();
        assert_eq!(low, 0.0);
        assert!((high - (17.5 + Z * 12.5)).abs() < 1e-9);
        let constant = Regression {
            values: vec![1.0, 1.0],
            ..scored(Loss::Mse)
        };
        assert_eq!(constant.r2(), None);
    }
}
