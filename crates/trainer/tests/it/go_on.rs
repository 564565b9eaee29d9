//! A run that goes on from a model or a checkpoint: it begins where that ended, renumbers no class,
//! and says what it did to the classes that were known.

use rehead_domain::{
    checkpoint::Metrics,
    progress::{Progress, exit},
    recipe::{BatchNorm, Recipe},
    report::{Report, Scores, SingleLabelScores},
    work::TrainPlan,
};
use serde_json::{Value, json};

use crate::support::training::{Material, Trainer, inherits, over, parameters, recipe};

/// Trains the last block and the head, with running statistics that move.
fn partly() -> Recipe {
    Recipe {
        trainable: parameters("resnet18", &["layer4.1."]),
        batch_norm: BatchNorm::Update,
        n_epochs: 3,
        ..recipe()
    }
}

fn ends(run: &mut Trainer) -> Vec<Progress> {
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    said
}

fn evaluations(said: &[Progress]) -> Vec<Metrics> {
    let metrics = |line: &Progress| match line {
        Progress::Evaluated { metrics, .. } => Some(*metrics),
        _ => None,
    };
    said.iter().filter_map(metrics).collect()
}

/// Samples that were reported on, and how the model did.
fn report(run: &Trainer) -> (u64, SingleLabelScores) {
    let text = std::fs::read(run.folder.join("report.json")).unwrap();
    let report: Report = serde_json::from_slice(&text).unwrap();
    match report.scores {
        Scores::SingleLabelClassification(scores) => (report.samples, scores),
        other => panic!("another task: {other:?}"),
    }
}

/// Metrics of equal backbones and heads are equal, whichever path computed them.
#[track_caller]
fn same(one: Metrics, other: Metrics) {
    assert_eq!(one.valid_accuracy, other.valid_accuracy);
    let difference = (one.valid_loss - other.valid_loss).abs();
    assert!(
        difference < 1e-4 * other.valid_loss.max(1e-3),
        "{one:?} {other:?}"
    );
}

#[test]
fn a_chain_of_jobs_continues_and_resumes_exactly() {
    let material = Material::new(20);
    let mut first = material.start("first", &material.plan(partly()));
    let said = ends(&mut first);
    let best = *evaluations(&said)
        .iter()
        .min_by(|a, b| a.valid_loss.total_cmp(&b.valid_loss))
        .unwrap();

    // From a model: a whole network over the base model's.
    let going_on = Recipe {
        inherited: inherits(&["animals", "food"], 2),
        checkpoint_every_seconds: 0,
        ..partly()
    };
    let mut plan = material.plan(going_on);
    plan.base_model.over = vec![over(&first.folder.join("bundle/model.safetensors"), true)];
    let mut second = material.start("second", &plan);
    let said = ends(&mut second);
    same(evaluations(&said)[0], best);
    assert_eq!(evaluations(&said)[0].step, 0);
    let (_, ended) = report(&second);
    assert!(
        ended.log_loss <= report(&first).1.log_loss,
        "it only improves on its start"
    );
    let known = ended.forgetting.unwrap();
    assert_eq!(known.accuracy_before, best.valid_accuracy);
    goes_on_exactly_after_a_kill(&material, &plan, &second);

    // From a checkpoint of that: what it trained, over that network.
    let checkpoint = second.newest_checkpoint().join("model.safetensors");
    let mut chained = plan.clone();
    chained.base_model.over.push(over(&checkpoint, false));
    let mut third = material.start("third", &chained);
    let said = ends(&mut third);
    let finished = evaluations(&said)[0];
    assert_eq!(finished.valid_accuracy, Some(ended.accuracy));
    assert!((finished.valid_loss - ended.log_loss).abs() < 1e-4 * ended.log_loss.max(1e-3));
}

fn goes_on_exactly_after_a_kill(material: &Material, plan: &TrainPlan, straight: &Trainer) {
    let mut killed = material.start("killed", plan);
    killed.until(|said| matches!(said, Progress::Saved { step, .. } if *step >= 3));
    killed.kill();
    let mut resumed = plan.clone();
    resumed.resume = Some(killed.newest_checkpoint());
    let mut run = material.start("resumed", &resumed);
    let said = ends(&mut run);
    assert!(
        evaluations(&said).iter().all(|metrics| metrics.step > 0),
        "{said:?}"
    );
    assert_eq!(run.result(), straight.result());

    // The parent is part of what a checkpoint is of.
    resumed.base_model.over[0].sha256 = "6".repeat(64);
    let (said, ended) = material.start("other-parent", &resumed).end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "checkpoint_of_another_run");
    assert!(failure.message.contains("parent"), "{failure:?}");
    assert_eq!(ended.code(), Some(exit::PERMANENT));
}

#[test]
fn a_head_grows_and_says_what_it_forgot() {
    let two = Material::with("resnet18", &["food", "plants"], 20);
    let frozen = Recipe {
        n_epochs: 20,
        learning_rate: 0.1,
        ..recipe()
    };
    let mut first = two.start("first", &two.plan(frozen.clone()));
    ends(&mut first);

    let three = Material::with("resnet18", &["animals", "food", "plants"], 20);
    let labels = ["food", "plants", "animals"];
    let mut plan = three.plan(Recipe {
        inherited: inherits(&labels, 2),
        ..frozen
    });
    plan.base_model.over = vec![over(&first.folder.join("bundle/model.safetensors"), true)];
    let mut grown = three.start("grown", &plan);
    let said = ends(&mut grown);
    let text = std::fs::read(grown.folder.join("bundle/labels.json")).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&text).unwrap(),
        json!(labels)
    );

    let (samples, report) = report(&grown);
    let (known, confusion) = (report.forgetting.unwrap(), report.confusion.unwrap());
    let names: Vec<&str> = known
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    assert_eq!(names, ["food", "plants"]);
    let supports = [0, 1].map(|label| confusion[label].iter().sum::<u64>());
    assert_eq!(known.samples, supports[0] + supports[1]);
    // Before the first step nothing is taken for the new class.
    let start = evaluations(&said)[0];
    let right = start.valid_accuracy.unwrap() * samples as f64;
    let before = known.accuracy_before.unwrap() * known.samples as f64;
    assert!((right - before).abs() < 1e-9, "{start:?} {known:?}");
    let after = (confusion[0][0] + confusion[1][1]) as f64 / known.samples as f64;
    assert_eq!(known.accuracy_after, Some(after));
    let card = std::fs::read_to_string(grown.folder.join("bundle/README.md")).unwrap();
    assert!(card.contains("knew 2 of these classes"), "{card}");
}
