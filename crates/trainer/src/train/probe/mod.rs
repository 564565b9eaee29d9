//! The linear probe: the head that is best on the features of the base model as it is, found by
//! convex optimization. It is where training starts (LP-FT, Kumar et al. 2022): a head that fits
//! the features keeps the first gradients from distorting them, and training can only improve on
//! it.

/// The closed form for many classes.
pub mod discriminant;
/// The solver.
pub mod lbfgs;
/// The objectives.
pub mod linear;

use tch::{Device, Kind, Tensor};

use self::{
    discriminant::Discriminant,
    linear::{Linear, Outputs, Ridge, TOLERANCE, Wanted},
};
use super::{
    input::samples::{Samples, Targets, indices},
    rng::permutation,
    step::objective::dense,
};
use crate::{
    domain::limits::PROBE_SAMPLES,
    process::{error::TrainError, protocol::Interrupt},
};

/// Values of C, evenly spaced in log10 over `LOG10_C`.
const PATH: u32 = 24;
const LOG10_C: [f64; 2] = [-6.0, 2.0];
/// The path ends early after this many values in a row that did not improve the validation loss:
/// further ones only overfit.
const PATIENCE: u32 = 4;
/// The tolerance along the path: enough to choose C, with many classes in a fraction of the time.
const CHOICE: f64 = 1e-6;
/// Multiplications that a probe may take altogether, give or take a quarter: a minute or two on two
/// cores. A bound on time would make the result depend on the machine.
const WORK: i64 = 1 << 41;
/// Evaluations of the objective that a search needs to be worth it. Where `WORK` has fewer, the
/// probe is a discriminant analysis.
const EVALUATIONS: i64 = 200;
/// The share of all evaluations that the path may take; the rest is for the C that was chosen.
const PATH_SHARE: f64 = 0.75;
/// Factors of a discriminant analysis' outputs: few samples of a class make it too sure.
const SCALES: [f64; 7] = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625];
/// Labels of all samples together, at most: 256 MB. Of more labels each, fewer samples are drawn.
const LABELS: usize = 1 << 25;

/// The best head on fixed features.
#[derive(Debug)]
pub struct Probe {
    /// [outputs, features] f32
    pub weight: Tensor,
    /// `[outputs]` f32
    pub bias: Tensor,
    /// Weight of the samples' loss against the penalty ½ ‖weight‖² on features of unit variance.
    pub c: f64,
}

/// Fits a path of probes to the train split and takes the one with the lowest loss on the
/// validation split, of equals the smaller C: log-loss, that of each label where there are several,
/// squares of a regression's deviations. From each split it takes at most `PROBE_SAMPLES`, drawn by
/// `seed`. The test split is not used. `features` gives [N, features] of samples in evaluation.
/// `report` is told what is done, of how much at most.
///
/// A probe is a logistic or a ridge regression; with so many classes, samples and features that a
/// search would take more than `WORK`, a discriminant analysis.
///
/// # Errors
/// `Features` when these are not finite, `Interrupted`.
pub fn fit(
    features: impl Fn(&[usize]) -> Tensor,
    samples: &Samples,
    seed: u64,
    interrupt: &Interrupt,
    report: &mut dyn FnMut(u64, u64),
) -> Result<Probe, TrainError> {
    let outputs = samples.outputs() as i64;
    let most = match &samples.targets {
        Targets::Classes(_) => PROBE_SAMPLES.min(LABELS / samples.outputs().max(1)),
        Targets::Class(_) | Targets::Value(_) => PROBE_SAMPLES,
    };
    let wanted = |members: &[usize]| {
        let members = drawn(members, most, seed);
        Wanted {
            outputs: targets(samples, &members),
            features: features(&members)
                .to_device(Device::Cpu)
                .to_kind(Kind::Double),
        }
    };
    let (mut train, mut validation) = (wanted(&samples.train), wanted(&samples.validation));
    let scale = Scale::of(&train.features);
    if !(scale.deviation.is_finite() && scale.mean.isfinite().all().int64_value(&[]) == 1) {
        return Err(TrainError::Features);
    }
    train.features = scale.apply(&train.features);
    validation.features = scale.apply(&validation.features);
    let size = train.features.numel() as i64 * outputs;
    // An evaluation has a product for the outputs, and one for their slope in the weights.
    let evaluations = WORK / (2 * size).max(1);
    let path = Path {
        validation: &validation,
        interrupt,
    };
    let (c, linear) = match &train.outputs {
        Outputs::Values(values) => {
            let ridge = Ridge::new(&train.features, values);
            path.best(report, |c, _| ridge.fit(c))?
        }
        _ if evaluations < EVALUATIONS => {
            let discriminant = Discriminant::new(&train, outputs);
            validation.features = discriminant.turn(&validation.features);
            let path = Path {
                validation: &validation,
                interrupt,
            };
            let (c, linear) = path.best(report, |c, _| {
                discriminant.fit(c).calibrated(&validation, SCALES)
            })?;
            (c, discriminant.turn_back(&linear))
        }
        Outputs::Class(_) | Outputs::Labels(_) => {
            path.search(report, &train, outputs, evaluations)?
        }
    };
    interrupt.check()?;
    Ok(scale.unfold(c, &linear))
}

/// Targets of these samples; for a regression their deviations, as in training.
fn targets(samples: &Samples, members: &[usize]) -> Outputs {
    match &samples.targets {
        Targets::Class(all) => {
            let labels: Vec<usize> = members.iter().map(|&member| all[member]).collect();
            Outputs::Class(indices(&labels, Device::Cpu))
        }
        Targets::Classes(all) => {
            Outputs::Labels(dense(all, members, samples.outputs()).to_kind(Kind::Double))
        }
        Targets::Value(all) => {
            let scale = samples.scale();
            let deviations = members.iter().map(|&member| scale.deviation(all[member]));
            let deviations: Vec<f64> = deviations.collect();
            Outputs::Values(Tensor::from_slice(&deviations).unsqueeze(1))
        }
    }
}

/// At most so many of these; all of them in their order where there are no more.
fn drawn(members: &[usize], most: usize, seed: u64) -> Vec<usize> {
    if members.len() <= most {
        return members.to_vec();
    }
    // Epochs begin at 1: no epoch has this order.
    let order = permutation(seed, 0, members.len());
    order[..most].iter().map(|&place| members[place]).collect()
}

/// The data and requests that all values of C share.
struct Path<'a> {
    validation: &'a Wanted,
    interrupt: &'a Interrupt,
}

impl Path<'_> {
    /// C and the logistic regression of the lowest validation loss, by so many evaluations at most.
    fn search(
        &self,
        report: &mut dyn FnMut(u64, u64),
        train: &Wanted,
        outputs: i64,
        evaluations: i64,
    ) -> Result<(f64, Linear), TrainError> {
        let interrupt = self.interrupt;
        let mut start = Linear::zero(outputs, train.features.size()[1]);
        let reserved = ((1.0 - PATH_SHARE) * evaluations as f64) as i64;
        let mut left = evaluations;
        let (c, linear) = self.best(report, |c, each| {
            let mut stopped = || {
                each();
                left -= 1;
                left <= reserved || interrupt.requested()
            };
            let (linear, ..) = linear::fit(train, c, &start, CHOICE, &mut stopped);
            start = linear.copy();
            linear
        })?;
        let mut left = left.max(reserved);
        let mut stopped = || {
            left -= 1;
            left <= 0 || interrupt.requested()
        };
        let (linear, ..) = linear::fit(train, c, &linear, TOLERANCE, &mut stopped);
        Ok((c, linear))
    }

    /// C and the probe of the lowest validation loss. `fit` calls what it is given in each of its
    /// iterations.
    fn best(
        &self,
        report: &mut dyn FnMut(u64, u64),
        mut fit: impl FnMut(f64, &mut dyn FnMut()) -> Linear,
    ) -> Result<(f64, Linear), TrainError> {
        let each_c = u64::from(linear::MAX_ITERATIONS) + 2;
        let all = u64::from(PATH) * each_c;
        let mut best: Option<(f64, f64, Linear)> = None;
        let mut worse = 0;
        for place in 0..PATH {
            let share = f64::from(place) / f64::from(PATH - 1);
            let c = 10f64.powf(LOG10_C[0] + share * (LOG10_C[1] - LOG10_C[0]));
            let mut done = u64::from(place) * each_c;
            report(done, all);
            let linear = fit(c, &mut || {
                done += 1;
                report(done, all);
            });
            self.interrupt.check()?;
            let loss = linear.loss(self.validation);
            if best.as_ref().is_none_or(|(lowest, ..)| loss < *lowest) {
                best = Some((loss, c, linear));
                worse = 0;
            } else {
                worse += 1;
            }
            if worse == PATIENCE {
                break;
            }
        }
        report(all, all);
        let (_, c, linear) = best.expect("a path has values: this is a bug");
        Ok((c, linear))
    }
}

/// One mean per feature and one deviation for all: C means the same for every backbone, and no
/// feature gains weight.
struct Scale {
    /// `[features]`
    mean: Tensor,
    deviation: f64,
}

impl Scale {
    fn of(features: &Tensor) -> Self {
        let mean = features.mean_dim([0i64].as_slice(), false, Kind::Double);
        let variance = (features - &mean).square().mean(Kind::Double);
        let deviation = variance.double_value(&[]).sqrt();
        // Constant features: nothing to scale, and nothing to divide by.
        let deviation = if deviation == 0.0 { 1.0 } else { deviation };
        Self { mean, deviation }
    }

    fn apply(&self, features: &Tensor) -> Tensor {
        (features - &self.mean) / self.deviation
    }

    /// The same model on features that are not scaled.
    fn unfold(&self, c: f64, linear: &Linear) -> Probe {
        let weight = &linear.weight / self.deviation;
        let bias = &linear.bias - weight.mv(&self.mean);
        Probe {
            weight: weight.to_kind(Kind::Float),
            bias: bias.to_kind(Kind::Float),
            c,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::test_data::digits;

    fn samples() -> (Tensor, Samples) {
        let (features, labels) = digits();
        let labels = Vec::<i64>::try_from(&labels).unwrap();
        let samples = Samples {
            sources: Vec::new(),
            classes: (0..10).map(|class| class.to_string()).collect(),
            targets: Targets::Class(labels.iter().map(|&label| label as usize).collect()),
            train: (0..300).collect(),
            validation: (300..400).collect(),
            test: (400..500).collect(),
        };
        (features, samples)
    }

    fn probe(features: &Tensor, samples: &Samples) -> Probe {
        let rows = |members: &[usize]| {
            let rows: Vec<i64> = members.iter().map(|&member| member as i64).collect();
            features.index_select(0, &Tensor::from_slice(&rows))
        };
        fit(rows, samples, 1, &Interrupt::default(), &mut |_, _| {}).unwrap()
    }

    #[test]
    fn of_too_many_samples_some_are_drawn() {
        let members: Vec<usize> = (7..7 + PROBE_SAMPLES).collect();
        let drawn = |members: &[usize], seed| drawn(members, PROBE_SAMPLES, seed);
        assert_eq!(drawn(&members, 1), members);
        let members: Vec<usize> = (7..8 + PROBE_SAMPLES).collect();
        let mut some = drawn(&members, 1);
        assert_eq!(some, drawn(&members, 1));
        assert_ne!(some, drawn(&members, 2));
        some.sort_unstable();
        some.dedup();
        assert_eq!(some.len(), PROBE_SAMPLES);
        assert!(some.first() >= members.first() && some.last() <= members.last());
    }

    /// Trap 14: nothing is fitted with test rows.
    #[test]
    fn the_labels_of_the_test_split_choose_nothing() {
        let (features, samples) = samples();
        let before = probe(&features, &samples);
        let rotate = |from: usize| {
            let (features, mut samples) = self::samples();
            let Targets::Class(labels) = &mut samples.targets else {
                unreachable!("digits have one class each")
            };
            labels[from..from + 100].rotate_left(7);
            probe(&features, &samples)
        };
        let after = rotate(400);
        assert_eq!(before.weight, after.weight);
        assert_eq!((before.bias, before.c), (after.bias, after.c));
        // The comparison can fail: the validation split does choose.
        assert!(rotate(300).c < before.c);
    }

    /// Features of `crowd`.
    const WIDTH: usize = 384;

    /// Samples of so many classes, each around a point of its own, a fifth to validate.
    fn crowd(classes: usize, each: usize, has_labels: bool) -> (Tensor, Samples, Vec<usize>) {
        tch::manual_seed(3);
        let kind = (Kind::Double, Device::Cpu);
        let of: Vec<usize> = (0..classes * each).map(|sample| sample % classes).collect();
        let rows: Vec<i64> = of.iter().map(|&class| class as i64).collect();
        let means = Tensor::randn([classes as i64, WIDTH as i64], kind) * 0.8;
        let noise = Tensor::randn([rows.len() as i64, WIDTH as i64], kind);
        let features = noise + means.index_select(0, &Tensor::from_slice(&rows)) + 2.0;
        let is_validation = |sample: &usize| sample / classes % 5 == 4;
        let (mut validation, train): (Vec<usize>, _) = (0..of.len()).partition(is_validation);
        validation.truncate(1_000);
        let targets = match has_labels {
            true => Targets::Classes(of.iter().map(|&class| vec![class]).collect()),
            false => Targets::Class(of.clone()),
        };
        let samples = Samples {
            sources: Vec::new(),
            classes: (0..classes).map(|class| class.to_string()).collect(),
            targets,
            train,
            validation,
            test: Vec::new(),
        };
        (features, samples, of)
    }

    /// A search over so many classes would take hours.
    #[test]
    fn many_classes_are_told_apart_in_bounded_time() {
        for (classes, each, has_labels, wanted) in [
            (1_200, 15, false, 0.9),
            (1_200, 15, true, 0.9),
            (10_000, 5, false, 0.3),
        ] {
            let (features, samples, of) = crowd(classes, each, has_labels);
            let members = drawn(&samples.train, PROBE_SAMPLES, 1);
            let size = members.len() * WIDTH * classes;
            assert!(WORK / 2 / (size as i64) < EVALUATIONS, "a search would do");
            let probe = probe(&features, &samples);
            let checked = &samples.validation;
            let rows: Vec<i64> = checked.iter().map(|&sample| sample as i64).collect();
            let features = features.index_select(0, &Tensor::from_slice(&rows));
            let outputs = features
                .to_kind(Kind::Float)
                .linear(&probe.weight, Some(&probe.bias));
            let found = Vec::<i64>::try_from(outputs.argmax(1, false)).unwrap();
            let pairs = found.iter().zip(checked);
            let right = pairs.filter(|&(&found, &sample)| found as usize == of[sample]);
            let share = right.count() as f64 / checked.len() as f64;
            assert!(share > wanted, "{classes} classes: {share} right");
        }
    }

    #[test]
    fn the_report_grows_to_all() {
        let (features, samples) = samples();
        let rows = |members: &[usize]| {
            let rows: Vec<i64> = members.iter().map(|&member| member as i64).collect();
            features.index_select(0, &Tensor::from_slice(&rows))
        };
        let mut told = Vec::new();
        let interrupt = Interrupt::default();
        let mut report = |done, all| told.push((done, all));
        fit(rows, &samples, 1, &interrupt, &mut report).unwrap();
        assert!(told.len() > 50, "{} reports", told.len());
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(told.last().is_some_and(|(done, all)| done == all));
    }

    #[test]
    fn scaling_is_folded_back() {
        let (features, samples) = samples();
        let (plain, moved) = (
            probe(&features, &samples),
            probe(&(&features * 10.0 + 3.0), &samples),
        );
        let logits = features
            .to_kind(Kind::Float)
            .linear(&plain.weight, Some(&plain.bias));
        let same = (features * 10.0 + 3.0)
            .to_kind(Kind::Float)
            .linear(&moved.weight, Some(&moved.bias));
        assert_eq!(plain.c, moved.c);
        assert!((logits - same).abs().max().double_value(&[]) < 1e-3);
    }

    #[test]
    fn features_that_are_all_alike_or_not_finite_end_well() {
        let (features, samples) = samples();
        let alike = probe(&features.zeros_like(), &samples);
        assert!(alike.bias.isfinite().all().int64_value(&[]) == 1);
        let broken = |members: &[usize]| {
            let shape = [members.len() as i64, 3];
            Tensor::full(shape, f64::NAN, (Kind::Double, Device::Cpu))
        };
        assert!(matches!(
            fit(broken, &samples, 1, &Interrupt::default(), &mut |_, _| {}),
            Err(TrainError::Features)
        ));
    }
}
