//! Metrics of reports against numbers recorded from scikit-learn
//! (crates/trainer/tests/python/record_metrics.py).

use rehead_domain::{
    checkpoint::Metrics,
    recipe::{Loss, Metric},
    report::Scores,
};
use rehead_trainer::train::eval::metrics::{
    MultiLabel, OutputDecoding, Regression, ReportContext, Scored, SingleLabel,
};
use serde_json::{Value, json};

const CLASSES: usize = 4;

fn recorded(task: &str) -> Value {
    let text = include_str!("../fixtures/metrics.json");
    serde_json::from_str::<Value>(text).unwrap()[task].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

fn logits(value: &Value) -> Vec<f32> {
    numbers(&value["logits"])
        .into_iter()
        .map(|logit| logit as f32)
        .collect()
}

fn scores(scored: &Scored, decoding: &OutputDecoding) -> Scores {
    let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    scored.scores(&ReportContext {
        classes: &classes,
        decoding,
        majority_label: 0,
        mean: 100.0,
    })
}

#[track_caller]
fn assert_close(found: impl Into<Option<f64>>, wanted: &Value) {
    let (found, wanted) = (found.into().unwrap(), wanted.as_f64().unwrap());
    assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
}

#[test]
fn one_label_a_sample_is_measured_as_by_scikit_learn() {
    let recorded = recorded("single_label");
    let scored = Scored::SingleLabel(SingleLabel {
        logits: logits(&recorded),
        labels: serde_json::from_value(recorded["labels"].clone()).unwrap(),
        classes: CLASSES,
    });
    let Scores::SingleLabelClassification(found) =
        scores(&scored, &OutputDecoding::Temperature(1.0))
    else {
        panic!("another task")
    };
    assert_close(found.accuracy, &recorded["accuracy"]);
    assert_close(found.balanced_accuracy, &recorded["balanced_accuracy"]);
    assert_close(found.macro_f1, &recorded["macro_f1"]);
    assert_close(found.roc_auc, &recorded["roc_auc"]);
    assert_close(found.log_loss, &recorded["log_loss"]);
    let confusion: Vec<Vec<u64>> = serde_json::from_value(recorded["confusion"].clone()).unwrap();
    assert_eq!(found.confusion.unwrap(), confusion);
    let calibration = found.calibration.unwrap();
    assert_eq!(calibration.log_loss_before, calibration.log_loss_after);
}

#[test]
fn several_labels_a_sample_are_measured_as_by_scikit_learn() {
    let recorded = recorded("multi_label");
    let scored = Scored::MultiLabel(MultiLabel {
        logits: logits(&recorded),
        labels: serde_json::from_value(recorded["labels"].clone()).unwrap(),
        classes: CLASSES,
    });
    let even = OutputDecoding::Thresholds(vec![0.5; CLASSES]);
    let Scores::MultiLabelClassification(found) = scores(&scored, &even) else {
        panic!("another task")
    };
    assert_close(found.micro_f1, &recorded["micro_f1"]);
    assert_close(found.macro_f1, &recorded["macro_f1"]);
    assert_close(found.subset_accuracy, &recorded["subset_accuracy"]);
    assert_close(found.log_loss, &recorded["log_loss"]);
    for (class, found) in found.classes.iter().enumerate() {
        assert_close(found.precision, &recorded["precision"][class]);
        assert_close(found.recall, &recorded["recall"][class]);
        assert_close(found.roc_auc, &recorded["roc_auc"][class]);
        assert_close(
            found.average_precision,
            &recorded["average_precision"][class],
        );
    }
    let mut metrics = Metrics::default();
    let areas = numbers(&recorded["roc_auc"]);
    let mean = areas.iter().sum::<f64>() / areas.len() as f64;
    scored.measure(&mut metrics, Metric::ValidRocAuc);
    assert_close(metrics.valid_roc_auc, &json!(mean));
    assert_close(metrics.valid_micro_f1, &recorded["micro_f1"]);
    assert_close(metrics.valid_loss, &recorded["log_loss"]);
    assert_eq!((metrics.valid_accuracy, metrics.valid_r2), (None, None));

    // Thresholds chosen on these samples are better than one half on them.
    let Scored::MultiLabel(several) = &scored else {
        unreachable!("made above")
    };
    let chosen = OutputDecoding::Thresholds(several.thresholds());
    let Scores::MultiLabelClassification(chosen) = scores(&scored, &chosen) else {
        panic!("another task")
    };
    assert!(
        chosen.macro_f1 > found.macro_f1,
        "{:?} {:?}",
        chosen.macro_f1,
        found.macro_f1
    );
}

#[test]
fn numbers_are_measured_as_by_scikit_learn() {
    let recorded = recorded("regression");
    let scored = Scored::Regression(Regression {
        predictions: numbers(&recorded["predictions"]),
        values: numbers(&recorded["values"]),
        std: 10.0,
        loss: Loss::Mse,
    });
    let Scores::Regression(found) = scores(&scored, &OutputDecoding::Plain) else {
        panic!("another task")
    };
    assert_close(found.r2, &recorded["r2"]);
    assert_close(found.mae, &recorded["mae"]);
    assert_close(found.rmse, &recorded["rmse"]);
    let [low, high] = found.mae_interval.unwrap();
    assert!(low < found.mae && found.mae < high);
    assert!(found.baseline.rmse > found.rmse);
    let mut metrics = Metrics::default();
    scored.measure(&mut metrics, Metric::ValidRmse);
    assert_close(metrics.valid_loss.sqrt() * 10.0, &recorded["rmse"]);
}
