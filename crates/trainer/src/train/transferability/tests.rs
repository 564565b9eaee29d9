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
    h_score::score(features, &targets.columns)
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
            let expected = fitted_without(&rows, &targets.columns, how, row);
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

/// The same; the labels of a hundred samples, from one on, are in another order.
fn turned_samples(from: Option<usize>) -> (Tensor, Samples) {
    let (features, mut samples) = samples();
    let Labels::Class(labels) = &mut samples.targets else {
        unreachable!("digits have one class each")
    };
    if let Some(from) = from {
        labels[from..from + 100].rotate_left(7);
    }
    (features, samples)
}

#[test]
fn only_training_samples_are_scored() {
    let scores = |turned: Option<usize>| {
        let (features, samples) = turned_samples(turned);
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

/// 60 digits with these targets, all of them to train on.
fn sixty(targets: Labels, classes: usize) -> (Tensor, Samples) {
    let (features, _) = first_digits(60);
    let samples = Samples {
        sources: Vec::new(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        targets,
        train: (0..60).collect(),
        validation: Vec::new(),
        test: Vec::new(),
    };
    (features, samples)
}

/// Leave-one-out predictions by one fit for each sample and penalty, at the penalty with the least
/// squared error.
fn brute_force(features: &Tensor, columns: &Tensor) -> Vec<Vec<f64>> {
    let unit = 60.0 * mean_variance(features);
    let fits = (-5..=3).map(|exponent| {
        let how = (10f64.powi(exponent) * unit, true);
        let rows: Vec<Tensor> = (0..60)
            .map(|row| fitted_without(features, columns, how, row))
            .collect();
        let predicted = Tensor::cat(&rows, 0);
        let error = (&predicted - columns).square().sum(Kind::Double);
        (error.double_value(&[]), predicted)
    });
    let (_, best) = fits
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .unwrap();
    let columns = (0..best.size()[1]).map(|column| best.select(1, column).contiguous());
    columns
        .map(|column| Vec::try_from(&column).unwrap())
        .collect()
}

/// T19: the scores of each task, from fits without each sample.
#[test]
fn t19_scores_of_every_task_equal_brute_force() {
    let (all, labels) = first_digits(60);
    let columns = |columns: Vec<Vec<f64>>| {
        let columns: Vec<Tensor> = columns.iter().map(|one| Tensor::from_slice(one)).collect();
        Tensor::stack(&columns, 1)
    };
    let ranked =
        |(features, samples): (Tensor, Samples)| rank(&samples, 2_000, |_| Ok(features)).unwrap();

    let one_hot = (0..10).map(|class| {
        let is = labels.iter().map(|&label| f64::from(label == class));
        is.collect()
    });
    let predicted = brute_force(&all, &columns(one_hot.collect()));
    let right = (0..60).filter(|&row| {
        let best = (0..10)
            .max_by(|&one: &usize, &other| predicted[one][row].total_cmp(&predicted[other][row]));
        best == Some(labels[row])
    });
    let found = ranked(sixty(Labels::Class(labels.clone()), 10));
    near(found.score, right.count() as f64 / 60.0, 1e-12);
    assert!(found.knn_accuracy.is_some() && found.log_me.is_some() && found.h_score.is_some());

    // Three labels a sample at most; nobody has the fourth.
    let has: [fn(usize) -> bool; 3] = [
        |digit| digit % 2 == 0,
        |digit| digit > 4,
        |digit| digit == 3,
    ];
    let several = labels
        .iter()
        .map(|&digit| (0..3).filter(|&label| has[label](digit)).collect());
    let truth: Vec<Vec<f64>> = has
        .iter()
        .map(|has| labels.iter().map(|&digit| f64::from(has(digit))).collect())
        .collect();
    let predicted = brute_force(&all, &columns(truth.clone()));
    let precision = |label: usize| {
        let mut order: Vec<usize> = (0..60).collect();
        order.sort_by(|&one, &other| predicted[label][other].total_cmp(&predicted[label][one]));
        let (mut hits, mut sum) = (0.0, 0.0);
        for (place, row) in order.into_iter().enumerate() {
            if truth[label][row] > 0.5 {
                hits += 1.0;
                sum += hits / (place + 1) as f64;
            }
        }
        sum / hits
    };
    let expected = (0..3).map(precision).sum::<f64>() / 3.0;
    let found = ranked(sixty(Labels::Classes(several.collect()), 4));
    near(found.score, expected, 1e-9);
    assert!(found.knn_accuracy.is_none());

    let values: Vec<f64> = labels.iter().map(|&digit| 10.0 + digit as f64).collect();
    let predicted = brute_force(&all, &columns(vec![values.clone()]));
    let mean = values.iter().sum::<f64>() / 60.0;
    let left: f64 = values
        .iter()
        .zip(&predicted[0])
        .map(|(one, other)| (one - other).powi(2))
        .sum();
    let spread: f64 = values.iter().map(|one| (one - mean).powi(2)).sum();
    let found = ranked(sixty(Labels::Value(values), 1));
    near(found.score, 1.0 - left / spread, 1e-9);
}

/// T19: 200 resamples give the standard error of 2,000, and of the formula for shares.
#[test]
fn t19_standard_errors_are_those_of_many_resamples() {
    let (features, labels) = first_digits(500);
    let spectrum = Spectrum::of(&features);
    let targets = Targets::of(&spectrum, &labels);
    let predicted = ridge::predictions(&spectrum, &targets, mean_variance(&features));
    let values = labels.iter().map(|&label| label as f64);
    let values = Tensor::from_slice(&values.collect::<Vec<_>>()).unsqueeze(1);
    let numbers = Targets::new(&spectrum, values);
    let guessed = ridge::predictions(&spectrum, &numbers, mean_variance(&features));
    let error = |resampled: Vec<f32>| {
        Scores {
            samples: 500,
            features: 64,
            score: 0.0,
            resampled,
            knn_accuracy: None,
            log_me: None,
            h_score: None,
            seconds: 0.0,
        }
        .standard_error()
    };
    for fit in [
        Fit::accuracy(&predicted, &targets.columns),
        Fit::precision(&predicted, &targets.columns),
        Fit::variance(&guessed, &numbers.columns),
    ] {
        let few = fit.resampled(RESAMPLES);
        assert_eq!(few, fit.resampled(RESAMPLES), "the same bits each time");
        let (few, many) = (error(few), error(fit.resampled(2_000)));
        assert!((few / many - 1.0).abs() < 0.1, "{few} is not {many}");
    }
    let right = Fit::accuracy(&predicted, &targets.columns);
    let share = right.score();
    let formula = (share * (1.0 - share) / 500.0).sqrt();
    let found = error(right.resampled(RESAMPLES));
    assert!(
        (found / formula - 1.0).abs() < 0.1,
        "{found} is not {formula}"
    );
}

/// A ranking sees neither the other splits nor the order in which models come.
#[test]
fn a_ranking_looks_at_training_samples_only() {
    let scores = |turned: Option<usize>| {
        let (features, samples) = turned_samples(turned);
        let rows = |members: &[usize]| {
            assert!(members.iter().all(|&one| one < 300), "{members:?}");
            Ok(features.narrow(0, 0, members.len() as i64))
        };
        let found = rank(&samples, 200, rows).unwrap();
        assert_eq!(found.samples, 200);
        (found.score, found.resampled)
    };
    let before = scores(None);
    assert_eq!(before, scores(Some(300)), "the validation split's labels");
    assert_eq!(before, scores(Some(400)), "the test split's labels");
    assert_ne!(before, scores(Some(100)), "the training labels count");
}
