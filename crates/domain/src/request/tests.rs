use super::*;
use crate::{codes::CONTRADICTION, recipe::HeadLayer};

pub(super) fn body(extra: Value) -> Value {
    let mut body = json!({"model": "efficientnet_lite0", "training_file": FileId::new()});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn codes(extra: Value) -> Vec<(String, String)> {
    parse(&body(extra))
        .unwrap_err()
        .into_iter()
        .map(|problem| (problem.path, problem.code))
        .collect()
}

#[test]
fn the_documented_request_is_accepted() {
    let request = parse(&body(json!({
        "validation_file": null, "suffix": "garbage", "seed": 7, "metadata": {"team": "recycling"},
        "priority": 2, "timeout_seconds": 86400,
        "method": {"type": "transfer", "transfer": {
            "task": "auto", "cut": "pre_logits", "freeze": "all",
            "head": {"layers": [{"dropout": 0.2}], "init": "auto"},
            "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate": "auto",
                "backbone_learning_rate": "auto", "learning_rate_multiplier": 1.0, "optimizer": "auto",
                "weight_decay": "auto", "schedule": "auto", "warmup_fraction": "auto", "layer_decay": "auto",
                "accumulate": "auto", "shards": "auto", "ema_decay": "auto",
                "label_smoothing": "auto", "gradient_clip": "auto", "mixup": 0.0, "class_weights": "none",
                "batch_norm": "auto", "precision": "auto"},
            "augmentation": "auto",
            "early_stopping": {"patience": "auto", "metric": "auto", "min_delta": 0.0},
            "evaluate_every": "auto", "checkpoint_every_seconds": 300}}
    })));
    let request = request.unwrap();
    assert_eq!(request.transfer.head.layers(), [HeadLayer::Dropout(0.2)]);
    assert_eq!(request.seed, Some(7));
}

#[test]
fn openai_forms_give_the_default_transfer() {
    let supervised =
        json!({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}});
    let new = parse(&body(json!({"method": supervised}))).unwrap();
    let old = parse(&body(json!({"hyperparameters": {"n_epochs": 3}}))).unwrap();
    assert_eq!(new.transfer, old.transfer);
    assert_eq!(new.transfer.hyperparameters.n_epochs, Auto::Value(3));
    let both = codes(json!({"method": supervised, "hyperparameters": {"n_epochs": 3}}));
    assert_eq!(
        both,
        [("hyperparameters".to_owned(), CONTRADICTION.to_owned())]
    );
}

#[test]
fn misplaced_options_are_told_their_place() {
    let place = |body: Value| {
        let problems = parse(&body).unwrap_err();
        let mut messages = problems.into_iter().map(|problem| problem.message);
        messages.next().unwrap()
    };
    let top = place(body(json!({"n_epochs": 3})));
    assert!(
        top.contains("`method.transfer.hyperparameters.n_epochs`"),
        "{top}"
    );
    let transfer = json!({"type": "transfer", "transfer": {"learning_rate": 0.1}});
    let inner = place(body(json!({"method": transfer})));
    assert!(
        inner.contains("`method.transfer.hyperparameters.learning_rate`"),
        "{inner}"
    );
    let freeze = place(body(json!({"freeze": "all"})));
    assert!(freeze.contains("`method.transfer.freeze`"), "{freeze}");
    let other = place(body(json!({"frieze": "all"})));
    assert!(!other.contains("its place"), "{other}");
}

#[test]
fn every_bad_value_is_named_with_its_path() {
    let wrong = |option: &str, value: Value| {
        let found = codes(
            json!({"method": {"type": "transfer", "transfer": {"hyperparameters": {option: value}}}}),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            found[0].0,
            format!("method.transfer.hyperparameters.{option}")
        );
        found[0].1.clone()
    };
    for epochs in [json!(0), json!(-1), json!(1e9), json!(10_001)] {
        assert_eq!(wrong("n_epochs", epochs), OUT_OF_RANGE);
    }
    assert_eq!(wrong("learning_rate", json!("NaN")), "wrong_type");
    assert_eq!(wrong("learning_rate", json!(0)), OUT_OF_RANGE);
    assert_eq!(wrong("learnin_rate", json!(1)), "unknown_field");
    assert_eq!(wrong("label_smoothing", json!(1.0)), OUT_OF_RANGE);
}

#[test]
fn valid_options_of_an_invalid_request_are_read() {
    let transfer = json!({"freeze": {"blocks": ["layer9"]}, "hyperparameters": {"n_epochs": 0, "batch_size": 8}});
    let wrong = body(json!({"method": {"type": "transfer", "transfer": transfer}}));
    let (request, problems) = read(&wrong);
    assert_eq!(parse(&wrong), Err(problems.clone()));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let request = request.unwrap();
    assert_eq!(request.model, "efficientnet_lite0");
    let blocks = Freeze::Blocks(vec!["layer9".to_owned()]);
    assert_eq!(request.transfer.freeze, Auto::Value(blocks));
    let read_as = &request.transfer.hyperparameters;
    assert_eq!(
        (read_as.n_epochs, read_as.batch_size),
        (Auto::Auto, Auto::Value(8))
    );
    assert_eq!(read(&json!({"model": "m"})).0, None);
}

#[test]
fn a_freeze_schedule_begins_at_0_and_rises() {
    let schedule = |entries: Value| {
        let transfer = json!({"freeze": {"schedule": entries}});
        parse(&body(
            json!({"method": {"type": "transfer", "transfer": transfer}}),
        ))
    };
    let entry = |epoch: u64| json!({"at_epoch": epoch, "freeze": {"all_but_last_stages": 1}});
    let many = |n: u64| schedule((0..n).map(entry).collect());
    let most = limits::FREEZE_PHASES as u64;
    assert!(many(1).is_ok() && many(most).is_ok() && many(most + 1).is_err());
    let read = many(2).unwrap();
    let stored: JobRequest = serde_json::from_value(json!(read)).unwrap();
    assert_eq!(stored, read);
    for (bad, words) in [
        (json!([]), "a list of entries"),
        (json!([entry(1)]), "`at_epoch` is 0"),
        (json!([entry(0), entry(2), entry(2)]), "above the 2"),
        (json!([{"at_epoch": 0}]), "`at_epoch` and `freeze`"),
        (
            json!([{"at_epoch": 0, "freeze": {"schedule": []}}]),
            "inside a schedule",
        ),
        (json!([entry(0), entry(10_000)]), "from 0 to 9999"),
    ] {
        let problems = schedule(bad.clone()).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].message.contains(words),
            "{bad}: {problems:?}"
        );
    }
}

#[test]
fn the_old_name_of_a_freeze_form_is_refused_with_the_new_one() {
    let transfer = json!({"freeze": {"last_stages": 1}});
    let old = parse(&body(
        json!({"method": {"type": "transfer", "transfer": transfer}}),
    ));
    let problems = old.unwrap_err();
    assert_eq!(
        (problems.len(), problems[0].code.as_str()),
        (1, INVALID_VALUE)
    );
    assert!(problems[0].message.contains("`all_but_last_stages`"));
}

#[test]
fn head_layers_are_read_in_order_and_within_their_limits() {
    let layers = |layers: Value| {
        let transfer = json!({"head": {"layers": layers}});
        parse(&body(
            json!({"method": {"type": "transfer", "transfer": transfer}}),
        ))
    };
    let read = layers(
        json!([{"batch_norm": true}, {"linear": 256}, "relu", {"dropout": 0.5},
        {"layer_norm": true}, {"gelu": true}]),
    );
    use HeadLayer::{BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu};
    assert_eq!(
        read.unwrap().transfer.head.layers(),
        [BatchNorm, Linear(256), Relu, Dropout(0.5), LayerNorm, Gelu]
    );
    let many = |n: usize| layers(json!(vec![json!({"relu": true}); n]));
    assert!(many(limits::HEAD_LAYERS).is_ok() && many(limits::HEAD_LAYERS + 1).is_err());
    assert!(layers(json!([{"linear": 1}, {"linear": 16_384}])).is_ok());
    for bad in [
        json!({"linear": 0}),
        json!({"linear": 16_385}),
        json!("linear"),
        json!({"relu": false}),
        json!({"dropout": 1}),
        json!({"relu": true, "gelu": true}),
    ] {
        assert_eq!(layers(json!([bad])).unwrap_err().len(), 1, "{bad}");
    }
    let wrong = layers(json!([{"rellu": true}])).unwrap_err();
    assert!(
        wrong[0].message.contains("did you mean `relu`"),
        "{wrong:?}"
    );
}

#[test]
fn a_request_round_trips_through_json() {
    let freeze = json!({"all_but_last_stages": 2});
    for (clip, decay) in [(json!(0.5), json!("none")), (json!("none"), json!(0.5))] {
        let asked = json!({"type": "transfer", "transfer": {"freeze": freeze,
            "augmentation": {"horizontal_flip": 0.5, "rand_augment": {}}, "hyperparameters": {
            "gradient_clip": clip, "class_weights": {"cats": 2.5}, "ema_decay": decay}}});
        let request = parse(&body(json!({"method": asked}))).unwrap();
        let stored: JobRequest =
            serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
        assert_eq!(stored, request);
    }
}

#[test]
fn every_schema_that_the_contract_refers_to_is_in_it() {
    let mut components = Vec::new();
    <JobRequest as utoipa::ToSchema>::schemas(&mut components);
    let names: Vec<String> = components.iter().map(|(name, _)| name.clone()).collect();
    let schemas = json!([components, <JobRequest as utoipa::PartialSchema>::schema()]).to_string();
    let references: Vec<&str> = schemas.split("#/components/schemas/").skip(1).collect();
    assert!(references.len() > 20, "{schemas}");
    for reference in references {
        let name = reference.split('"').next().unwrap();
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    // The reader's bounds, in the schema.
    let n_epochs =
        &json!(<Hyperparameters as utoipa::PartialSchema>::schema())["properties"]["n_epochs"];
    assert_eq!(n_epochs["anyOf"][1]["maximum"], json!(limits::EPOCHS.end()));
    assert_eq!(n_epochs["default"], json!("auto"));
}
