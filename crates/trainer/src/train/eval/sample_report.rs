//! The sample report: predictions and flags of the finished network, one line a sample, so that
//! people find wrong labels, odd samples and leaks between splits.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use tch::{Kind, Tensor};

use super::{
    evaluation,
    metrics::{
        MultiLabel, OutputDecoding, Regression, Scored, SingleLabel, multi::sigmoid, single::argmax,
    },
};
use crate::{
    domain::{
        file::Split,
        limits,
        recipe::Recipe,
        sample_report::{Answer, SAMPLES, SampleRecord},
    },
    process::{error::TrainError, json, protocol::Interrupt},
    ticks::tick,
    train::{
        input::{
            inputs::{Inputs, on_host},
            samples::{Samples, select},
        },
        network::Network,
    },
};

/// Cosine of two samples' features, less the mean features of those it is compared with, from which
/// on they count as nearly the same. Measured on clip art: a copy at four fifths of its size, as
/// JPEG, has 0.99 and more, different images seldom 0.9.
const NEARLY_SAME: f64 = 0.97;
/// Rows that are compared with all others together.
const ROWS: i64 = 512;

/// Prediction and flags of one sample.
#[derive(Debug, Clone, PartialEq)]
struct Opinion {
    label: Answer,
    prediction: Answer,
    probability: Option<f64>,
    loss: f64,
    margin: Option<f64>,
    likely_wrong_label: bool,
}

/// Writes `folder/samples.jsonl`.
///
/// # Errors
/// `Io`, `Interrupted`.
pub fn write(
    folder: &Path,
    (samples, recipe): (&Samples, &Recipe),
    (network, inputs): (&Network, &Inputs),
    (decoding, originals): (&OutputDecoding, &HashMap<usize, usize>),
    interrupt: &Interrupt,
) -> Result<(), TrainError> {
    let path = folder.join(SAMPLES);
    let failed = || TrainError::io(format!("cannot write {}", path.display()));
    let mut out = BufWriter::new(File::create(&path).map_err(failed())?);
    for (split, members) in members(samples) {
        let features = inputs.features(network, members, interrupt)?;
        let features = features.to_kind(Kind::Float);
        let logits = features.split(ROWS, 0).into_iter();
        let logits: Vec<Tensor> = logits.map(|rows| network.logits(&rows)).collect();
        let scored = evaluation::scored(on_host(&logits)?, (samples, recipe), members);
        let opinions = opinions(&scored, decoding, &samples.classes);
        for (opinion, &sample) in opinions.into_iter().zip(members) {
            let original = originals.get(&sample);
            let original = original.map(|&original| samples.path(original).to_owned());
            let record = SampleRecord {
                sample: u32::try_from(sample).expect("samples are limited: this is a bug"),
                split,
                path: samples.path(sample).to_owned(),
                label: opinion.label,
                prediction: opinion.prediction,
                probability: opinion.probability,
                loss: opinion.loss,
                margin: opinion.margin,
                likely_wrong_label: opinion.likely_wrong_label,
                near_duplicate_of: original,
            };
            json::write_line(&mut out, &record).map_err(failed())?;
        }
    }
    out.flush().map_err(failed())
}

/// Samples of the report, in the order of its splits: those that measured the model have precedence
/// under the limit.
fn members(samples: &Samples) -> Vec<(Split, &[usize])> {
    let mut left = limits::SAMPLE_REPORT_ROWS;
    let splits = [
        (Split::Test, &samples.test),
        (Split::Validation, &samples.validation),
        (Split::Train, &samples.train),
    ];
    let mut chosen = Vec::new();
    for (split, members) in splits {
        let taken = &members[..members.len().min(left)];
        left -= taken.len();
        if !taken.is_empty() {
            chosen.push((split, taken));
        }
    }
    chosen.reverse();
    chosen
}

/// For samples of the sample report that are nearly the same as one of an earlier split, that one.
/// By the features [samples, feature_dim] at the `start`: a backbone that was trained makes all
/// samples of a class alike.
///
/// # Errors
/// `Torch`, `OutOfMemory`.
pub fn originals(samples: &Samples, start: &Tensor) -> Result<HashMap<usize, usize>, TrainError> {
    let features = |samples: &[usize]| select(start, samples).to_kind(Kind::Float);
    let mut found = HashMap::new();
    let mut earlier: Vec<usize> = Vec::new();
    for (_, members) in members(samples) {
        if !earlier.is_empty() {
            let places = near_duplicates(&features(members), &features(&earlier))?;
            let near = members.iter().zip(places);
            found.extend(near.filter_map(|(&sample, place)| Some((sample, earlier[place?]))));
        }
        earlier.extend(members);
    }
    Ok(found)
}

/// For each row of `features` [N, D] the place of the row of `others` [M, D] that is nearly the
/// same, if one is.
fn near_duplicates(features: &Tensor, others: &Tensor) -> Result<Vec<Option<usize>>, TrainError> {
    let mean = others.mean_dim(&[0i64][..], true, Kind::Float);
    let directions = |rows: &Tensor| {
        let centered = rows - &mean;
        let length = centered.norm_scalaropt_dim(2, &[1i64][..], true);
        centered / length.clamp_min(1e-12)
    };
    let others = directions(others).tr();
    let mut found = Vec::new();
    for rows in directions(features).split(ROWS, 0) {
        tick();
        let (cosines, places) = rows.matmul(&others).max_dim(1, false);
        let cosines = Vec::<f32>::try_from(&cosines)?;
        let places = Vec::<i64>::try_from(&places)?;
        let near = |(cosine, place): (f32, i64)| {
            (f64::from(cosine) >= NEARLY_SAME).then_some(place as usize)
        };
        found.extend(cosines.into_iter().zip(places).map(near));
    }
    Ok(found)
}

fn opinions(scored: &Scored, decoding: &OutputDecoding, classes: &[String]) -> Vec<Opinion> {
    match scored {
        Scored::SingleLabel(scored) => {
            let temperature = match decoding {
                OutputDecoding::Temperature(temperature) => *temperature,
                _ => 1.0,
            };
            of_single(scored, temperature, classes)
        }
        Scored::MultiLabel(scored) => of_multi(scored, &scored.thresholds_of(decoding), classes),
        Scored::Regression(scored) => of_values(scored),
    }
}

fn of_single(scored: &SingleLabel, temperature: f64, classes: &[String]) -> Vec<Opinion> {
    let probabilities = scored.rows().map(|(row, _)| softmax(row, temperature));
    let probabilities: Vec<Vec<f64>> = probabilities.collect();
    let self_confidence = self_confidence(&probabilities, &scored.labels);
    let opinion = |((row, &label), p): ((&[f32], &usize), &Vec<f64>)| {
        let predicted = argmax(row);
        let other = |&(class, _): &(usize, &f64)| class != label;
        let largest = p.iter().enumerate().filter(other).map(|(_, &p)| p);
        // As confident of another class as of that class's own samples, and more than of the label.
        let is_suspect = |class: usize| {
            p[class] > p[label] && self_confidence[class].is_some_and(|own| p[class] >= own)
        };
        Opinion {
            label: Answer::Class(classes[label].clone()),
            prediction: Answer::Class(classes[predicted].clone()),
            probability: Some(p[predicted]),
            loss: -softmax(row, 1.0)[label].max(f64::MIN_POSITIVE).ln(),
            margin: Some(p[label] - largest.fold(0.0, f64::max)),
            likely_wrong_label: (0..p.len()).any(is_suspect),
        }
    };
    scored.rows().zip(&probabilities).map(opinion).collect()
}

/// For each class the mean probability of it over its own samples; `None` without any.
fn self_confidence(probabilities: &[Vec<f64>], labels: &[usize]) -> Vec<Option<f64>> {
    let classes = probabilities.first().map_or(0, Vec::len);
    let mut sums = vec![(0.0, 0u32); classes];
    for (row, &label) in probabilities.iter().zip(labels) {
        sums[label] = (sums[label].0 + row[label], sums[label].1 + 1);
    }
    let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count));
    sums.into_iter().map(mean).collect()
}

fn of_multi(scored: &MultiLabel, thresholds: &[f64], classes: &[String]) -> Vec<Opinion> {
    // Each class is a question of its own, with two answers: no and yes.
    let sure = (0..scored.classes).map(|class| {
        let yes = scored.probabilities(class).into_iter();
        let answers: Vec<Vec<f64>> = yes.map(|yes| vec![1.0 - yes, yes]).collect();
        let said = scored.labels.iter().map(|labels| labels.contains(&class));
        self_confidence(&answers, &said.map(usize::from).collect::<Vec<_>>())
    });
    let sure: Vec<Vec<Option<f64>>> = sure.collect();
    let names = |chosen: &dyn Fn(usize) -> bool| {
        let chosen = (0..scored.classes).filter(|&class| chosen(class));
        Answer::Classes(chosen.map(|class| classes[class].clone()).collect())
    };
    let opinion = |(row, labels): (&[f32], &Vec<usize>)| {
        let yes: Vec<f64> = row.iter().map(|&logit| sigmoid(logit)).collect();
        let answer =
            |class: usize, is_yes: bool| if is_yes { yes[class] } else { 1.0 - yes[class] };
        let loss = |class: usize| {
            let p = answer(class, labels.contains(&class));
            -p.max(f64::MIN_POSITIVE).ln()
        };
        let is_suspect = |class: usize| {
            let contrary = !labels.contains(&class);
            let p = answer(class, contrary);
            let own = sure[class].get(usize::from(contrary)).copied().flatten();
            p > 0.5 && own.is_some_and(|own| p >= own)
        };
        Opinion {
            label: names(&|class| labels.contains(&class)),
            prediction: names(&|class| yes[class] >= thresholds[class]),
            probability: None,
            loss: (0..scored.classes).map(loss).sum::<f64>() / scored.classes as f64,
            margin: None,
            likely_wrong_label: (0..scored.classes).any(is_suspect),
        }
    };
    scored.rows().map(opinion).collect()
}

fn of_values(scored: &Regression) -> Vec<Opinion> {
    let pairs = scored.predictions.iter().zip(&scored.values);
    let opinion = |(&prediction, &value): (&f64, &f64)| Opinion {
        label: Answer::Value(value),
        prediction: Answer::Value(prediction),
        probability: None,
        loss: Regression {
            predictions: vec![prediction],
            values: vec![value],
            ..*scored
        }
        .loss(),
        margin: None,
        likely_wrong_label: false,
    };
    pairs.map(opinion).collect()
}

fn softmax(row: &[f32], temperature: f64) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = row
        .iter()
        .map(|&logit| (f64::from(logit - top) / temperature).exp());
    let powers: Vec<f64> = powers.collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::eval::metrics::calibration::TEMPERATURES;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| class.to_string()).collect()
    }

    #[test]
    fn a_sample_that_looks_like_another_class_is_a_suspect() {
        // Three sure samples of each class, one of class 0 that looks as sure as those of class 1,
        // one that is in doubt.
        let mut logits = [4.0f32, 0.0].repeat(3);
        logits.extend([0.0f32, 4.0].repeat(3));
        logits.extend([-1.0f32, 4.0, 0.5, 1.0]);
        let scored = SingleLabel {
            logits,
            labels: vec![0, 0, 0, 1, 1, 1, 0, 0],
            classes: 2,
        };
        let found = of_single(&scored, 1.0, &names(2));
        let suspects: Vec<bool> = found.iter().map(|one| one.likely_wrong_label).collect();
        assert_eq!(
            suspects,
            [false, false, false, false, false, false, true, false]
        );
        assert_eq!(found[6].prediction, Answer::Class("1".to_owned()));
        assert!(found[6].margin.unwrap() < -0.9 && found[0].margin.unwrap() > 0.9);
        let loss = (1.0 + f64::exp(5.0)).ln();
        assert!((found[6].loss - loss).abs() < 1e-9, "{}", found[6].loss);
    }

    #[test]
    fn trap_29_no_temperature_makes_another_class_the_likeliest() {
        let scored = SingleLabel {
            logits: vec![4.0, 0.0, 3.9, -2.5, -2.0, -2.1, 30.0, -30.0, 30.01],
            labels: vec![2, 1, 0],
            classes: 3,
        };
        let [low, high] = TEMPERATURES;
        for temperature in [low, 0.7, 1.0, 2.5, high] {
            let opinions = of_single(&scored, temperature, &names(3));
            let rows = scored.logits.chunks_exact(3);
            for ((opinion, row), top) in opinions.iter().zip(rows).zip([0usize, 1, 2]) {
                assert_eq!(opinion.prediction, Answer::Class(top.to_string()));
                let shares = softmax(row, temperature);
                assert_eq!(opinion.probability, Some(shares[top]));
                for other in (0..3).filter(|&class| class != top) {
                    assert!(shares[other] < shares[top], "{temperature}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn labels_of_several_are_each_a_question() {
        let scored = MultiLabel {
            logits: vec![3.0, -3.0, 3.0, -3.0, -3.0, 3.0, 3.5, 3.5],
            labels: vec![vec![0], vec![0], vec![1], vec![0]],
            classes: 2,
        };
        let found = of_multi(&scored, &[0.5, 0.5], &names(2));
        let suspects: Vec<bool> = found.iter().map(|one| one.likely_wrong_label).collect();
        assert_eq!(suspects, [false, false, false, true]);
        assert_eq!(found[3].prediction, Answer::Classes(names(2)));
        assert_eq!(found[3].label, Answer::Classes(names(1)));
    }

    #[test]
    fn nearly_the_same_features_are_found_at_any_brightness() {
        let trained =
            Tensor::from_slice2(&[[1.0f32, 0.0, 0.2], [0.0, 1.0, 0.1], [-1.0, -1.0, 0.0]]);
        let features = Tensor::from_slice2(&[[0.01f32, 1.2, 0.12], [0.5, -1.0, 3.0]]);
        assert_eq!(
            near_duplicates(&features, &trained).unwrap(),
            [Some(1), None]
        );
    }
}
