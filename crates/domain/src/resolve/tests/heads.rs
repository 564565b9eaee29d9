//! How a new head begins.

use super::*;

#[test]
fn the_head_of_every_task_begins_at_a_probe() {
    let layers = layers();
    let start = Start {
        layers: &layers,
        parent: None,
    };
    for task in [
        Task::SingleLabelClassification,
        Task::MultiLabelClassification,
        Task::Regression,
    ] {
        let data = for_task(task);
        let resolved = |transfer| resolved(&request(transfer), start, &data).unwrap();
        for transfer in [json!({}), json!({"head": {"init": "probe"}})] {
            assert_eq!(resolved(transfer).recipe.head.init, HeadInit::Probe);
        }
        let deep = json!({"head": {"layers": [{"linear": 8}]}});
        assert_eq!(resolved(deep).recipe.head.init, HeadInit::Zero);
    }
}

#[test]
fn a_head_that_cannot_be_a_probe_begins_at_zero() {
    let data = dataset(&["a", "b"], 40, 10);
    let init = |layers_asked: serde_json::Value| {
        let asked = request(json!({"head": {"layers": layers_asked}}));
        resolved(&asked, base(&layers()), &data)
            .unwrap()
            .recipe
            .head
            .init
    };
    assert_eq!(init(json!([{"dropout": 0.5}])), HeadInit::Probe);
    assert_eq!(init(json!([{"linear": 8}, {"relu": true}])), HeadInit::Zero);
}

#[test]
fn a_probe_starts_a_linear_head_only() {
    let data = dataset(&["a", "b"], 40, 10);
    for (head, fits) in [
        (json!([{"dropout": 0.2}]), true),
        (json!([{"linear": 8}]), false),
    ] {
        let asked = request(json!({"head": {"layers": head, "init": "probe"}}));
        let problems = resolved(&asked, base(&layers()), &data)
            .err()
            .unwrap_or_default();
        assert_eq!(problems.is_empty(), fits, "{problems:?}");
    }
}
