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

/// Layers that are each allowed, and together more than a machine holds.
#[test]
fn a_head_has_a_limit_on_its_weights() {
    let data = dataset(&["a", "b"], 40, 10);
    let most = crate::limits::HEAD_PARAMETERS;
    // From eight features: 9 * w, then (w + 1) * w three times, then (w + 1) * last.
    let width = 16_384;
    let rest = most - 9 * width - 3 * (width + 1) * width;
    let last = rest / (width + 1);
    for (last, fits) in [(last, true), (last + 1, false)] {
        let mut head = vec![json!({"linear": width}); 4];
        head.push(json!({"linear": last}));
        let asked = request(json!({"head": {"layers": head}}));
        let problems = resolved(&asked, base(&layers()), &data)
            .err()
            .unwrap_or_default();
        let found = problems.iter().find(|problem| problem.code == "too_large");
        assert_eq!(found.is_none(), fits, "{problems:?}");
    }
}
