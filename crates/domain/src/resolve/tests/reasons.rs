//! Every `auto` is outcome, and why.

use super::*;

#[test]
fn every_auto_is_resolved_with_a_reason_and_nothing_else_is() {
    let asked = request(
        json!({"hyperparameters": {"n_epochs": 3, "learning_rate": 0.5, "learning_rate_multiplier": 2}}),
    );
    let resolution = resolved(&asked, base(&layers()), &dataset(&["a", "b"], 40, 10)).unwrap();
    assert_eq!(resolution.recipe.n_epochs, 3);
    assert_eq!(resolution.recipe.learning_rate, 1.0);
    assert_eq!(resolution.recipe.seed, 7);
    let options: Vec<&str> = resolution
        .resolved
        .iter()
        .map(|resolved| resolved.option.as_str())
        .collect();
    assert!(
        options.contains(&"hyperparameters.batch_size")
            && !options.contains(&"hyperparameters.n_epochs")
    );
    assert!(
        resolution
            .resolved
            .iter()
            .all(|resolved| !resolved.reason.is_empty())
    );
}

#[test]
fn reasons_are_true_of_the_task() {
    let reason = |data: &Dataset, start: Start<'_>, option: &str| {
        let resolution = resolved(&request(json!({})), start, data).unwrap();
        let mut resolved = resolution.resolved.into_iter();
        resolved.find(|one| one.option == option).unwrap().reason
    };
    let layers = layers();
    for (samples, words) in [
        (99, "fewer than 100 samples:"),
        (100, "100 samples or more:"),
    ] {
        let mut numbers = dataset(&[], 0, 0);
        numbers.task = Task::Regression;
        (numbers.splits.train, numbers.splits.validation) = (samples, 10);
        let why = reason(&numbers, base(&layers), "freeze");
        assert!(why.starts_with(words), "{why}");
    }
    let mut several = dataset(&["food", "plants"], 40, 10);
    several.task = Task::MultiLabelClassification;
    let parent = Parent {
        task: several.task,
        ..parent()
    };
    let start = Start {
        parent: Some(&parent),
        ..base(&layers)
    };
    let why = reason(&several, start, "head.init");
    assert!(why.starts_with("the head goes on"), "{why}");
}
