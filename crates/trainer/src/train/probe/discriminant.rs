//! Linear discriminant analysis with a shrunken covariance (Friedman 1989, "Regularized
//! Discriminant Analysis"; Hastie, Tibshirani & Friedman, 4.3): the closed form of a linear model
//! for more classes than a search could fit in bearable time. One decomposition serves all
//! penalties and all classes.

use tch::{Device, Kind, Tensor};

use super::linear::{Linear, Outputs, Wanted};
use crate::ticks::tick;

/// Classes, or labels, as normal distributions that share a covariance.
///
/// Everything is in the basis of the covariance's eigenvectors, in which each penalty is a
/// division.
#[derive(Debug)]
pub struct Discriminant {
    /// [features, features]: eigenvectors in columns.
    basis: Tensor,
    /// `[features]`: their variances.
    variances: Tensor,
    /// [outputs, features]: mean of each class; of each label, what the mean of its samples has
    /// more than that of the others.
    directions: Tensor,
    /// [outputs, features]: the point at which a direction adds nothing to its output.
    middles: Tensor,
    /// `[outputs]`: logarithm of the share of each class; of each label, of its odds.
    priors: Tensor,
    samples: f64,
}

/// Sums over samples, in the features' own basis.
struct Sums {
    /// [features, features]: scatter of the samples about the means of their classes.
    scatter: Tensor,
    /// Dimensions that the means have taken from it.
    means: i64,
    /// [outputs, features]
    directions: Tensor,
    /// [outputs, features], or one number for all: where directions begin.
    origins: Tensor,
    /// `[outputs]`: variance of a direction, as a share of a sample's.
    noise: Tensor,
    /// `[outputs]`: samples.
    counts: Tensor,
    priors: Tensor,
}

impl Discriminant {
    /// Takes samples whose features have the mean 0, with so many classes or labels.
    pub fn new(data: &Wanted, outputs: i64) -> Self {
        tick();
        let samples = data.features.size()[0] as f64;
        let Sums {
            scatter,
            means,
            directions,
            origins,
            noise,
            counts,
            priors,
        } = match &data.outputs {
            Outputs::Class(labels) => of_classes(&data.features, labels, outputs),
            Outputs::Labels(labels) => of_labels(&data.features, labels),
            Outputs::Values(_) => unreachable!("numbers have no classes: this is a bug"),
        };
        tick();
        let covariance = scatter / (samples - means as f64).max(1.0);
        let (variances, basis) = covariance.linalg_eigh("L");
        let variances = variances.clamp_min(0.0);
        tick();
        // Means of few samples lie too far out. Those of all classes tell how far classes lie
        // apart, and so how much of a mean is chance (empirical Bayes; Efron & Morris 1973).
        let directions = directions.matmul(&basis);
        let weights = (&counts / counts.sum(Kind::Double)).unsqueeze(1);
        let chance = noise.unsqueeze(1) * &variances;
        let surplus = directions.square() - &chance;
        let apart = (surplus * weights).sum_dim_intlist([0i64].as_slice(), true, Kind::Double);
        let apart = apart.clamp_min(0.0);
        let certain = &apart / (&apart + chance).clamp_min(f64::MIN_POSITIVE);
        let directions = directions * certain;
        Self {
            middles: origins.matmul(&basis) + &directions / 2.0,
            directions,
            variances,
            basis,
            priors,
            samples,
        }
    }

    /// The same samples in the basis in which `fit` works.
    pub fn turn(&self, data: &Tensor) -> Tensor {
        data.matmul(&self.basis)
    }

    /// The model, in the basis, whose covariance is larger by 1 / (c · samples) in all directions:
    /// a penalty as large, relative to the samples, as that of a logistic regression with this `c`.
    pub fn fit(&self, c: f64) -> Linear {
        tick();
        let weight = &self.directions / (&self.variances + 1.0 / (c * self.samples));
        let at_middle =
            (&weight * &self.middles).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        Linear {
            bias: &self.priors - at_middle,
            weight,
        }
    }

    /// A model of `fit` for features as they came.
    pub fn turn_back(&self, linear: &Linear) -> Linear {
        Linear {
            weight: linear.weight.matmul(&self.basis.tr()),
            bias: linear.bias.copy(),
        }
    }
}

fn of_classes(features: &Tensor, labels: &Tensor, classes: i64) -> Sums {
    let (samples, width) = (features.size()[0], features.size()[1]);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, Device::Cpu));
    let ones = labels.ones_like().to_kind(Kind::Double);
    let counts = zeros(&[classes]).index_add(0, labels, &ones);
    let sums = zeros(&[classes, width]).index_add(0, labels, features);
    // A class without a sample lies in the middle of all, and is rare.
    let means = &sums / counts.clamp_min(1.0).unsqueeze(1);
    let present = counts.gt(0.0).sum(Kind::Int64).int64_value(&[]);
    Sums {
        scatter: features.tr().matmul(features) - means.tr().matmul(&sums),
        means: present,
        origins: zeros(&[1, width]),
        noise: counts.clamp_min(1.0).reciprocal(),
        priors: ((&counts + 1.0) / (samples + classes) as f64).log(),
        directions: means,
        counts,
    }
}

/// Labels are few of many, so that the scatter about the mean of all stands for that about the
/// means of each.
fn of_labels(features: &Tensor, labels: &Tensor) -> Sums {
    let counts = labels.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let rest = features.size()[0] as f64 - &counts;
    let sums = labels.tr().matmul(features);
    let with = &sums / counts.clamp_min(1.0).unsqueeze(1);
    // The features' mean is 0.
    let without = -sums / rest.clamp_min(1.0).unsqueeze(1);
    Sums {
        scatter: features.tr().matmul(features),
        means: 1,
        directions: with - &without,
        origins: without,
        noise: counts.clamp_min(1.0).reciprocal() + rest.clamp_min(1.0).reciprocal(),
        priors: ((&counts + 0.5) / (rest + 0.5)).log(),
        counts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::test_data::digits;

    #[test]
    fn a_model_is_the_solution_for_its_covariance() {
        let (features, labels) = digits();
        let features = (&features - features.mean_dim([0i64].as_slice(), false, None)) / 16.0;
        let data = Wanted {
            features: features.shallow_clone(),
            outputs: Outputs::Class(labels.shallow_clone()),
        };
        let (c, samples) = (0.1, features.size()[0] as f64);
        let discriminant = Discriminant::new(&data, 10);
        let found = discriminant.turn_back(&discriminant.fit(c));
        // With 180 samples of a class, a mean is hardly chance.
        let hot = labels.one_hot(10).to_kind(Kind::Double);
        let counts = hot.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        let means = hot.tr().matmul(&features) / counts.unsqueeze(1);
        let within = &features - means.index_select(0, &labels);
        let penalty = Tensor::eye(64, (Kind::Double, Device::Cpu)) / (c * samples);
        let covariance = within.tr().matmul(&within) / (samples - 10.0) + penalty;
        let weight = means.matmul(&covariance.inverse());
        let error = (&found.weight - &weight).norm() / weight.norm();
        assert!(error.double_value(&[]) < 0.05, "{error:?}");
        let right = found.outputs(&features).argmax(1, false).eq_tensor(&labels);
        let right = right.to_kind(Kind::Double).mean(Kind::Double);
        assert!(right.double_value(&[]) > 0.94, "{right:?}");
        let turned = Wanted {
            features: discriminant.turn(&features),
            outputs: Outputs::Class(labels.shallow_clone()),
        };
        let (one, other) = (discriminant.fit(c).loss(&turned), found.loss(&data));
        assert!((one / other - 1.0).abs() < 1e-9, "{one} {other}");
    }
}
