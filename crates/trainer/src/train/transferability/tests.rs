use super::*;
use crate::train::test_data::{digits, iris};

/// Features, and labels as `measure` takes them.
fn plain((features, labels): (Tensor, Tensor)) -> (Tensor, Vec<usize>) {
    let labels = Vec::<i64>::try_from(&labels).unwrap();
    (
        features,
        labels.into_iter().map(|label| label as usize).collect(),
    )
}

fn first_digits(count: usize) -> (Tensor, Vec<usize>) {
    let (features, labels) = plain(digits());
    (
        features.narrow(0, 0, count as i64),
        labels[..count].to_vec(),
    )
}

fn log_me(features: &Tensor, labels: &[usize]) -> f64 {
    let spectrum = Spectrum::of(features);
    log_me::score(&spectrum, &Targets::of(&spectrum, labels))
}

fn h_score(features: &Tensor, labels: &[usize]) -> f64 {
    let targets = Targets::of(&Spectrum::of(features), labels);
    h_score::score(features, &targets.one_hot)
}

#[track_caller]
fn near(found: f64, expected: f64, within: f64) {
    assert!(
        (found - expected).abs() < within,
        "{found} is not {expected}"
    );
}

/// Recorded with numpy from You et al.'s formulas.
#[test]
fn golden_g1_log_me_of_iris() {
    let (features, labels) = plain(iris());
    near(log_me(&features, &labels), -0.160_060_243, 1e-9);
}

/// Published by transformer-ranker, whose features are rounded to f32.
#[test]
fn golden_g2_h_score_and_neighbors_of_iris() {
    let (features, labels) = plain(iris());
    let rounded = features.to_kind(Kind::Float).to_kind(Kind::Double);
    near(h_score(&rounded, &labels), 1.177_842_480_4, 1e-10);
    for (k, accuracy) in [(1, 0.96), (3, 0.96), (5, 0.9667), (13, 0.9667)] {
        near(neighbors::accuracy(&rounded, &labels, k), accuracy, 1e-4);
    }
}

/// Recorded with numpy and scikit-learn.
#[test]
fn golden_g3_all_scores_of_digits() {
    let (features, labels) = plain(digits());
    near(log_me(&features, &labels), 0.270_277, 1e-6);
    near(h_score(&features, &labels), 5.851_433, 1e-6);
    for (k, accuracy) in [(1, 0.9883), (3, 0.9889), (5, 0.9878), (13, 0.9844)] {
        near(neighbors::accuracy(&features, &labels, k), accuracy, 1e-4);
    }
    // More features than samples: LogME from the samples' products, the H-score through a smaller
    // inverse.
    let (features, labels) = first_digits(40);
    near(log_me(&features, &labels), -0.013_088, 1e-6);
    near(h_score(&features, &labels), 7.188_982_759_993, 1e-9);
    // The penalty is chosen, and there is an intercept.
    for (count, accuracy) in [(40, 0.775), (500, 0.948)] {
        let (features, labels) = first_digits(count);
        let scores = of_features(&features, &labels).unwrap();
        near(scores.ridge_accuracy, accuracy, 1e-9);
        let error = (accuracy * (1.0 - accuracy) / count as f64).sqrt();
        near(scores.ridge_standard_error, error, 1e-9);
    }
}

/// Prediction of ridge regression, with an intercept or without, for `row`, fitted on all rows but
/// `out`: the normal equations.
fn fitted_without(
    features: &Tensor,
    one_hot: &Tensor,
    (penalty, intercept): (f64, bool),
    out: i64,
) -> Tensor {
    let kept = Tensor::cat(
        &[
            Tensor::arange(out, (Kind::Int64, Device::Cpu)),
            Tensor::arange_start(out + 1, features.size()[0], (Kind::Int64, Device::Cpu)),
        ],
        0,
    );
    let (rows, labels) = (
        features.index_select(0, &kept),
        one_hot.index_select(0, &kept),
    );
    let mean = |tensor: &Tensor| {
        let mean = tensor.mean_dim([0i64].as_slice(), true, Kind::Double);
        if intercept { mean } else { mean.zeros_like() }
    };
    let (center, level) = (mean(&rows), mean(&labels));
    let rows = rows - &center;
    let width = rows.size()[1];
    let normal =
        rows.tr().matmul(&rows) + Tensor::eye(width, (Kind::Double, Device::Cpu)) * penalty;
    let weight = Tensor::linalg_solve(&normal, &rows.tr().matmul(&(labels - &level)), true);
    (features.narrow(0, out, 1) - center).matmul(&weight) + level
}

/// Recorded with numpy: 0.946 leaving one out, 713 of the 797 test rows.
#[test]
fn golden_g5_ridge_of_digits() {
    let (features, labels) = plain(digits());
    let features = features / 16.0;
    let scored = |rows: &Tensor, labels: &[usize], how: (f64, bool)| {
        let spectrum = Spectrum::of(rows);
        let targets = Targets::of(&spectrum, labels);
        let predicted = ridge::leave_one_out(&spectrum, &targets, how.0, how.1);
        (predicted, targets)
    };
    let train = features.narrow(0, 0, 1000);
    let (predicted, targets) = scored(&train, &labels[..1000], (1.0, false));
    near(ridge::share_right(&predicted, &targets), 0.946, 1e-12);
    // A test row that is left out is predicted by the train rows.
    let right = (1000..1797).filter(|&row| {
        let one = Tensor::cat(&[&train, &features.narrow(0, row, 1)], 0);
        let mut all = labels[..1000].to_vec();
        all.push(labels[row as usize]);
        let guessed = scored(&one, &all, (1.0, false))
            .0
            .get(1000)
            .argmax(0, false);
        guessed.int64_value(&[]) == labels[row as usize] as i64
    });
    assert_eq!(right.count(), 713);
    // The formula against a fit without each seventh sample; in the last two cases there are fewer
    // samples than features.
    for (count, how) in [
        (1000, (1.0, false)),
        (300, (0.1, true)),
        (40, (1.0, false)),
        (40, (0.1, true)),
    ] {
        let rows = features.narrow(0, 0, count);
        let (predicted, targets) = scored(&rows, &labels[..count as usize], how);
        for row in (0..count).step_by(7) {
            let expected = fitted_without(&rows, &targets.one_hot, how, row);
            let error = (predicted.get(row) - expected)
                .abs()
                .max()
                .double_value(&[]);
            assert!(error < 1e-12, "{count} {how:?}: {error}");
        }
    }
}

/// Log density per sample of labels `y` under N(0, I / beta + F Fᵀ / alpha): what LogME is the
/// maximum of.
fn log_density(gram: &Tensor, y: &Tensor, [log_alpha, log_beta]: [f64; 2]) -> f64 {
    let samples = gram.size()[0];
    let noise = Tensor::eye(samples, (Kind::Double, Device::Cpu)) * (-log_beta).exp();
    let factor = (gram * (-log_alpha).exp() + noise).linalg_cholesky(false);
    let white = Tensor::linalg_solve_triangular(&factor, &y.unsqueeze(1), false, true, false);
    let log_determinant = factor.diagonal(0, 0, 1).log().sum(Kind::Double) * 2.0;
    let square = white.square().sum(Kind::Double);
    let total = (log_determinant + square).double_value(&[]);
    -0.5 * (total / samples as f64 + std::f64::consts::TAU.ln())
}

/// The evidence is a density of N numbers, whatever D is: its maximum is searched for here without
/// any of LogME's formulas. The form that leaves out the prior of D - N weights is off by 2.9 with
/// 40 samples of 64 features.
#[test]
fn golden_g8_log_me_with_fewer_samples_than_features() {
    for count in [40, 90] {
        let (features, labels) = first_digits(count);
        let gram = features.matmul(&features.tr());
        let mut sum = 0.0;
        for class in 0..10 {
            let y: Vec<f64> = labels
                .iter()
                .map(|&label| f64::from(label == class))
                .collect();
            let y = Tensor::from_slice(&y);
            let (mut at, mut step) = ([0.0, 0.0], 4.0);
            let mut best = log_density(&gram, &y, at);
            while step > 1e-3 {
                let moves = [[step, 0.0], [-step, 0.0], [0.0, step], [0.0, -step]];
                let tried = moves.map(|by| [at[0] + by[0], at[1] + by[1]]);
                let found = tried.map(|one| (log_density(&gram, &y, one), one));
                let found = found
                    .into_iter()
                    .max_by(|one, other| one.0.total_cmp(&other.0))
                    .unwrap();
                if found.0 > best {
                    (best, at) = found;
                } else {
                    step /= 2.0;
                }
            }
            sum += best;
        }
        near(log_me(&features, &labels), sum / 10.0, 1e-6);
    }
}

#[test]
fn trap_28_scores_depend_on_no_scale_side_or_numbering() {
    let relabelled = |labels: &[usize]| -> Vec<usize> {
        labels.iter().map(|label| (label * 3 + 1) % 10).collect()
    };
    // With fewer samples than features, more, and many more.
    for (features, labels) in [
        first_digits(40),
        first_digits(100),
        first_digits(1000),
        plain(iris()),
    ] {
        let score = log_me(&features, &labels);
        near(log_me(&(&features * 10.0), &labels), score, 1e-9);
        near(log_me(&features, &relabelled(&labels)), score, 1e-12);
        for other in [
            Spectrum::of_samples(&features),
            Spectrum::of_features(&features),
        ] {
            near(
                log_me::score(&other, &Targets::of(&other, &labels)),
                score,
                1e-9,
            );
        }
        let score = h_score(&features, &labels);
        near(h_score(&(&features * 10.0), &labels), score, 1e-9);
        near(h_score(&features, &relabelled(&labels)), score, 1e-9);
        let ridge = |features: &Tensor, labels: &[usize]| {
            of_features(features, labels).unwrap().ridge_accuracy
        };
        let score = ridge(&features, &labels);
        near(ridge(&(&features * 10.0), &labels), score, 1e-12);
        near(ridge(&features, &relabelled(&labels)), score, 1e-12);
    }
}

#[test]
fn features_that_say_nothing_have_scores_too() {
    let (features, labels) = first_digits(60);
    for alike in [features.zeros_like(), features.ones_like()] {
        let scores = of_features(&alike, &labels).unwrap();
        assert_eq!(scores.h_score, 0.0);
        assert!(
            scores.log_me.is_finite() && scores.ridge_accuracy < 0.3,
            "{scores:?}"
        );
    }
    assert!(of_features(&(&features / 0.0), &labels).is_none());
    assert!(of_features(&features.narrow(0, 0, 1), &labels[..1]).is_none());
    let two = of_features(&features.narrow(0, 0, 2), &[0, 1]).unwrap();
    assert_eq!((two.knn_accuracy, two.ridge_accuracy), (0.0, 0.0));
}

#[test]
fn equally_near_and_equally_common_end_the_same_way_always() {
    let points = Tensor::from_slice(&[0.0, 1.0, -1.0, 2.0, 5.0]).view([5, 1]);
    // The nearest others of the first: the second and the third.
    assert_eq!(neighbors::accuracy(&points, &[7, 7, 3, 9, 9], 1), 0.6);
    // With two neighbors, one each of 3 and 7: the lower class.
    assert_eq!(neighbors::accuracy(&points, &[7, 7, 3, 9, 9], 2), 0.2);
    // More neighbors than there are.
    assert_eq!(neighbors::accuracy(&points, &[1, 1, 1, 1, 0], 50), 0.8);
}

/// Digits with a split each, and a class that is rare.
fn samples() -> (Tensor, Samples) {
    let (features, labels) = first_digits(500);
    let samples = Samples {
        sources: Vec::new(),
        classes: (0..10).map(|class| class.to_string()).collect(),
        targets: Labels::Class(labels),
        train: (0..300).collect(),
        validation: (300..400).collect(),
        test: (400..500).collect(),
    };
    (features, samples)
}

#[test]
fn only_training_samples_are_scored() {
    let scores = |turned: Option<usize>| {
        let (features, mut samples) = samples();
        let Labels::Class(labels) = &mut samples.targets else {
            unreachable!("digits have one class each")
        };
        if let Some(from) = turned {
            labels[from..from + 100].rotate_left(7);
        }
        let rows = |members: &[usize]| {
            assert!(members.iter().eq(&samples.train), "{members:?}");
            features.narrow(0, 0, members.len() as i64)
        };
        measure(&samples, rows).unwrap()
    };
    let before = scores(None);
    assert_eq!((before.samples, before.features), (300, 64));
    assert_eq!(before, scores(None), "the same bits each time");
    assert_eq!(before, scores(Some(300)), "the validation split's labels");
    assert_eq!(before, scores(Some(400)), "the test split's labels");
    assert_ne!(before, scores(Some(100)), "the training labels count");
    let (_, mut samples) = samples();
    samples.targets = Labels::Value(vec![0.0; 500]);
    assert!(measure(&samples, |_| unreachable!("no classes")).is_none());
}

#[test]
fn samples_are_scored_in_proportion_to_classes() {
    const LIMIT: usize = limits::TRANSFERABILITY_SAMPLES;
    // One class has a tenth of the samples; those of odd numbers are not there.
    let labels: Vec<usize> = (0..4 * LIMIT)
        .map(|sample| usize::from(sample % 20 == 0))
        .collect();
    let even = |count: usize| -> Vec<usize> { (0..count).map(|place| 2 * place).collect() };
    assert_eq!(chosen(&even(LIMIT), &labels, LIMIT), even(LIMIT));
    let one_more = chosen(&even(LIMIT + 1), &labels, LIMIT);
    assert_eq!(one_more.len(), LIMIT);
    assert!(one_more.is_sorted() && one_more.iter().all(|sample| sample % 2 == 0));
    let half = chosen(&even(2 * LIMIT), &labels, LIMIT);
    let rare = half.iter().filter(|&&sample| labels[sample] == 1).count();
    assert_eq!((half.len(), rare), (LIMIT, LIMIT / 10));
    assert_eq!(half, chosen(&even(2 * LIMIT), &labels, LIMIT));
    // Not the first ones, nor every other one.
    assert_ne!(half, even(LIMIT));
    assert!(half.windows(2).any(|pair| pair[1] - pair[0] > 8));
}
