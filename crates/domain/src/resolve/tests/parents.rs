//! Jobs that start from a model or a checkpoint: their labels and their head.

use super::*;

/// The labels of a job that goes on with these classes in its file, or the first problem.
fn resolved_with_parent(transfer: serde_json::Value, classes: &[&str]) -> Result<Recipe, Problem> {
    let (layers, parent) = (layers(), parent());
    let start = Start {
        layers: &layers,
        parent: Some(&parent),
    };
    let resolution = resolved(&request(transfer), start, &dataset(classes, 40, 10));
    resolution
        .map(|resolution| resolution.recipe)
        .map_err(|problems| problems[0].clone())
}

#[test]
fn inherited_classes_keep_their_numbers() {
    let labels = |transfer, classes: &[&str]| {
        let inherited = resolved_with_parent(transfer, classes)
            .unwrap()
            .inherited
            .unwrap();
        (inherited.labels.join(" "), inherited.known)
    };
    assert_eq!(
        labels(json!({}), &["food", "plants"]),
        ("plants food".into(), 2)
    );
    assert_eq!(labels(json!({}), &["food"]), ("plants food".into(), 2));
    let extend = || json!({"labels": "extend"});
    assert_eq!(
        labels(extend(), &["animals", "food"]),
        ("plants food animals".into(), 2)
    );
    let replace = || json!({"labels": "replace"});
    assert_eq!(
        labels(replace(), &["animals", "food"]),
        ("animals food".into(), 0)
    );
}

#[test]
fn a_new_class_is_refused_by_name() {
    for transfer in [json!({}), json!({"labels": "keep"})] {
        let problem = resolved_with_parent(transfer, &["food", "plant"]).unwrap_err();
        assert_eq!(problem.code, NEW_CLASS);
        assert!(problem.message.contains("`plant`"), "{problem:?}");
        assert!(
            problem.message.contains("did you mean `plants`"),
            "{problem:?}"
        );
        assert!(problem.message.contains("extend"), "{problem:?}");
    }
    let nothing_new = resolved_with_parent(json!({"labels": "extend"}), &["food"]).unwrap_err();
    assert_eq!(nothing_new.code, CONTRADICTION);
}

#[test]
fn options_that_need_a_new_head_are_refused_without_replace() {
    let classes = ["food", "plants"];
    for transfer in [
        json!({"cut": "layer1"}),
        json!({"head": {"layers": [{"dropout": 0.5}]}}),
        json!({"head": {"init": "normal"}}),
        json!({"head": {"init": "probe"}}),
    ] {
        let problem = resolved_with_parent(transfer.clone(), &classes).unwrap_err();
        assert_eq!(problem.code, CONTRADICTION, "{transfer}");
        assert!(problem.message.contains("replace"), "{problem:?}");
        let mut replaced = transfer;
        replaced["labels"] = json!("replace");
        assert!(
            resolved_with_parent(replaced.clone(), &classes).is_ok(),
            "{replaced}"
        );
    }
    let normal = json!({"labels": "extend", "head": {"init": "normal"}});
    assert!(resolved_with_parent(normal, &["animals", "food"]).is_ok());
    let base_model = request(json!({"labels": "keep"}));
    let data = dataset(&classes, 40, 10);
    let problems = resolved(&base_model, base(&layers()), &data).unwrap_err();
    assert_eq!(problems[0].code, CONTRADICTION);
}

#[test]
fn class_weights_follow_the_labels_not_the_file() {
    let weights = json!({"hyperparameters": {"class_weights": {"food": 3.0}}});
    let recipe = resolved_with_parent(weights, &["food"]).unwrap();
    assert_eq!(recipe.class_weights, Some(vec![1.0, 3.0]));
}

/// A head that told classes apart says nothing of numbers; it is not thrown away in silence either.
#[test]
fn a_head_is_kept_only_for_its_own_task() {
    let layers = layers();
    let parent = |task| Parent {
        task,
        labels: match task {
            Task::Regression => Vec::new(),
            _ => parent().labels,
        },
        ..parent()
    };
    let tasks = [
        Task::SingleLabelClassification,
        Task::MultiLabelClassification,
        Task::Regression,
    ];
    let pairs = tasks
        .iter()
        .flat_map(|&one| tasks.map(|other| (one, other)));
    for (of_parent, of_file) in pairs {
        let (parent, data) = (parent(of_parent), for_task(of_file));
        let start = Start {
            layers: &layers,
            parent: Some(&parent),
        };
        let resolved = |transfer| resolved(&request(transfer), start, &data);
        let anew = resolved(json!({"labels": "replace"})).unwrap().recipe;
        assert_eq!(anew.head.init, HeadInit::Probe);
        match resolved(json!({})) {
            Err(problems) => {
                assert_ne!(of_parent, of_file, "{problems:?}");
                assert_eq!(problems[0].code, TASK_MISMATCH);
                assert_eq!(problems[0].path, "method.transfer.labels");
            }
            Ok(resolution) => {
                assert_eq!(of_parent, of_file);
                let outcome = &resolution.resolved;
                let labels = outcome.iter().find(|one| one.option == "labels").unwrap();
                let (rule, init) = match of_file {
                    Task::Regression => ("replace", HeadInit::Probe),
                    _ => ("keep", HeadInit::Zero),
                };
                assert_eq!(
                    (&labels.value, resolution.recipe.head.init),
                    (&json!(rule), init)
                );
            }
        }
    }
    let (parent, data) = (parent(Task::Regression), for_task(Task::Regression));
    let start = Start {
        layers: &layers,
        parent: Some(&parent),
    };
    let kept = resolved(&request(json!({"labels": "keep"})), start, &data).unwrap_err();
    assert_eq!(kept[0].code, CONTRADICTION);
}
