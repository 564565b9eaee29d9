//! A linear probe of features drawn from normal distributions, a class each: seconds, and the share
//! of the validation split that it gets right.
//! Usage: probe CLASSES SAMPLES_PER_CLASS FEATURES THREADS [labels]; `labels` gives each sample two
//! labels.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement; its result is what it prints"
)]

use std::time::Instant;

use rehead_trainer::{
    process::{parallel, protocol::Interrupt},
    train::{
        input::samples::{Samples, Targets},
        probe,
    },
};
use tch::{Device, Kind, Tensor};

/// Distance of the classes' means from their middle, in deviations of a class.
const APART: f64 = 0.35;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| -> usize { arguments[place].parse().unwrap() };
    let (classes, each, width, threads) = (number(0), number(1), number(2), number(3));
    let has_labels = arguments.iter().any(|argument| argument == "labels");
    parallel::use_threads(threads);
    tch::manual_seed(1);
    let count = classes * each;
    let drawn = |rows: usize| {
        let shape = [rows as i64, width as i64];
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    };
    let labels: Vec<usize> = (0..count).map(|sample| sample % classes).collect();
    let of_class = |labels: &[usize]| {
        let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        Tensor::from_slice(&labels)
    };
    let means = drawn(classes) * APART;
    let mut features = drawn(count) + means.index_select(0, &of_class(&labels));
    let second: Vec<usize> = labels
        .iter()
        .map(|label| (label * 7 + 3) % classes)
        .collect();
    if has_labels {
        features += means.index_select(0, &of_class(&second));
    }
    let targets = match has_labels {
        true => {
            let pairs = labels.iter().zip(&second);
            Targets::Classes(pairs.map(|(&one, &other)| vec![one, other]).collect())
        }
        false => Targets::Class(labels.clone()),
    };
    let (train, validation) = (0..count).partition(|sample| sample / classes % 5 != 4);
    let samples = Samples {
        sources: Vec::new(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        targets,
        train,
        validation,
        test: Vec::new(),
    };
    let rows = |members: &[usize]| {
        let members: Vec<i64> = members.iter().map(|&member| member as i64).collect();
        features.index_select(0, &Tensor::from_slice(&members))
    };
    let since = Instant::now();
    let mut reports = 0;
    let mut report = |_, _| reports += 1;
    let probe = probe::fit(rows, &samples, 1, &Interrupt::default(), &mut report).unwrap();
    let seconds = since.elapsed().as_secs_f64();
    let checked: Vec<usize> = samples.validation.iter().copied().take(2_000).collect();
    let outputs = rows(&checked).linear(&probe.weight, Some(&probe.bias));
    let wanted: Vec<usize> = checked.iter().map(|&sample| labels[sample]).collect();
    let first = outputs.argmax(1, false);
    let right = |labels: &[usize]| {
        first
            .eq_tensor(&of_class(labels))
            .to_kind(Kind::Double)
            .mean(Kind::Double)
            .double_value(&[])
    };
    let others: Vec<usize> = checked.iter().map(|&sample| second[sample]).collect();
    let share = right(&wanted) + if has_labels { right(&others) } else { 0.0 };
    println!(
        "{classes} classes, {count} samples, {width} features: {seconds:.1} s, {reports} reports, C {:e}, {:.3} right",
        probe.c, share
    );
}
