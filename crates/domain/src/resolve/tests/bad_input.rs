//! Requests that the model and the data cannot follow.

use super::*;

#[test]
fn all_problems_are_reported_at_once() {
    let asked =
        request(json!({"freeze": {"blocks": ["layr1"]}, "hyperparameters": {"batch_size": 81}}));
    let problems = resolved(&asked, base(&layers()), &dataset(&["a", "b"], 40, 0)).unwrap_err();
    let codes: Vec<&str> = problems
        .iter()
        .map(|problem| problem.code.as_str())
        .collect();
    assert_eq!(codes, [EMPTY_SPLIT, UNKNOWN_LAYER, BATCH_TOO_LARGE]);
}

#[test]
fn validation_file_with_an_unknown_class_is_refused() {
    let problems = resolve(
        &request(json!({})),
        base(&layers()),
        Data {
            training: &dataset(&["cats", "dogs"], 40, 10),
            validation: Some(&dataset(&["cats", "dog"], 40, 10)),
        },
        7,
    );
    assert!(
        problems.unwrap_err()[0]
            .message
            .contains("did you mean `dogs`?")
    );
}
