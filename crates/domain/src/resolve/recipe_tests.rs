//! Every option of `method.transfer` reaches the recipe as requested.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    tests::{base, parent, request, resolved},
    *,
};
use crate::{
    file::Dataset,
    recipe::Task,
    test_data::{self, dataset},
};

/// Two values of an option, and what the recipe then has in a field.
struct Case {
    option: &'static str,
    /// A JSON pointer.
    field: String,
    asked: [Value; 2],
    expected: [Value; 2],
    /// Other options, with which it has an effect.
    beside: Value,
    task: Task,
    has_parent: bool,
}

impl Case {
    /// An option that the recipe has under the same name.
    fn of(option: &'static str, asked: [Value; 2]) -> Self {
        let field = option.trim_start_matches("hyperparameters.");
        Self {
            option,
            field: format!("/{}", field.replace('.', "/")),
            expected: asked.clone(),
            asked,
            beside: json!({"freeze": "none"}),
            task: Task::SingleLabelClassification,
            has_parent: false,
        }
    }

    fn becomes(self, field: &str, expected: [Value; 2]) -> Self {
        Self {
            field: field.to_owned(),
            expected,
            ..self
        }
    }

    fn beside(self, beside: Value) -> Self {
        Self { beside, ..self }
    }

    fn for_task(self, task: Task) -> Self {
        Self { task, ..self }
    }

    fn recipe(&self, asked: &Value) -> Value {
        let mut transfer = self.beside.clone();
        let path = self.option.split('.');
        *path.fold(&mut transfer, |inner, name| &mut inner[name]) = asked.clone();
        let adapts = transfer.get("adapter").is_some();
        let layers = match adapts {
            true => test_data::transformer_layers(),
            false => test_data::layers(),
        };
        let parent = parent();
        let start = Start {
            parent: self.has_parent.then_some(&parent),
            ..base(&layers)
        };
        let data = Dataset {
            task: self.task,
            ..dataset(&["food", "plants"], 40, 10)
        };
        let resolution = resolved(&request(transfer), start, &data);
        let resolution = resolution.unwrap_or_else(|found| panic!("{}: {found:?}", self.option));
        json!(resolution.recipe)
    }
}

fn hyperparameters() -> Vec<Case> {
    let of = |name, first, second| Case::of(name, [first, second]);
    vec![
        of("hyperparameters.n_epochs", json!(3), json!(4)),
        of("hyperparameters.batch_size", json!(8), json!(16)),
        of("hyperparameters.learning_rate", json!(0.5), json!(0.25)),
        of(
            "hyperparameters.backbone_learning_rate",
            json!(0.5),
            json!(0.25),
        ),
        of(
            "hyperparameters.learning_rate_multiplier",
            json!(2),
            json!(4),
        )
        .beside(json!({"hyperparameters": {"learning_rate": 0.5}}))
        .becomes("/learning_rate", [json!(1.0), json!(2.0)]),
        of(
            "hyperparameters.learning_rate_multiplier",
            json!(2),
            json!(4),
        )
        .beside(json!({"hyperparameters": {"backbone_learning_rate": 0.5}}))
        .becomes("/backbone_learning_rate", [json!(1.0), json!(2.0)]),
        of("hyperparameters.optimizer", json!("sgd"), json!("nesterov")),
        of("hyperparameters.weight_decay", json!(0.5), json!(0.25)),
        of("hyperparameters.schedule", json!("linear"), json!("step")),
        of("hyperparameters.warmup_fraction", json!(0.5), json!(0.25)),
        of("hyperparameters.layer_decay", json!(0.5), json!(0.25)),
        of("hyperparameters.accumulate", json!(2), json!(3)),
        of("hyperparameters.shards", json!(3), json!(4)),
        of("hyperparameters.loss", json!("mse"), json!("huber")).for_task(Task::Regression),
        of("hyperparameters.label_smoothing", json!(0.5), json!(0.25)),
        of("hyperparameters.mixup", json!(0.5), json!(0.25)),
        of("hyperparameters.cutmix", json!(0.5), json!(0.25)),
        of(
            "hyperparameters.class_weights",
            json!({"food": 2}),
            json!({"plants": 3}),
        )
        .becomes("/class_weights", [json!([2.0, 1.0]), json!([1.0, 3.0])]),
        of("hyperparameters.gradient_clip", json!(0.5), json!("none"))
            .becomes("/gradient_clip", [json!(0.5), Value::Null]),
        of("hyperparameters.ema_decay", json!(0.5), json!("none"))
            .becomes("/ema_decay", [json!(0.5), Value::Null]),
        of(
            "hyperparameters.batch_norm",
            json!("frozen"),
            json!("update"),
        ),
        of(
            "hyperparameters.precision",
            json!("float32"),
            json!("bfloat16"),
        ),
        of(
            "hyperparameters.features_precision",
            json!("float32"),
            json!("bfloat16"),
        )
        .beside(json!({"freeze": "all"})),
    ]
}

fn form() -> Vec<Case> {
    let lora = || json!({"adapter": {"type": "lora"}});
    let frozen = || json!({"freeze": "all", "augmentation": {"horizontal_flip": 0.5}});
    let stage = |n: u32| format!("layer2.{n}.conv.weight");
    vec![
        Case::of("cut", [json!("layer1"), json!("pre_logits")]),
        Case::of(
            "freeze",
            [json!({"blocks": ["stem", "layer1"]}), json!("all")],
        )
        .becomes("/trainable", [json!([stage(0), stage(1)]), json!([])]),
        Case::of("adapter.rank", [json!(2), json!(4)]).beside(lora()),
        Case::of("adapter.alpha", [json!(2.0), json!(4.0)]).beside(lora()),
        Case::of("adapter.dropout", [json!(0.5), json!(0.25)]).beside(lora()),
        Case::of(
            "adapter.targets",
            [json!(["blocks.0.mlp.fc1"]), json!(["blocks.1.mlp.fc2"])],
        )
        .beside(lora())
        .becomes(
            "/adapter/layers",
            [json!(["blocks.0.mlp.fc1"]), json!(["blocks.1.mlp.fc2"])],
        ),
        Case::of("head.layers", [json!([{"dropout": 0.5}]), json!(["relu"])]),
        Case::of("head.init", [json!("zero"), json!("normal")]),
        Case {
            has_parent: true,
            ..Case::of("labels", [json!("keep"), json!("replace")])
                .becomes("/inherited/known", [json!(2), json!(0)])
        },
        Case::of("augmentation", images()),
        Case::of("augmentation.views", [json!(2), json!(3)])
            .beside(frozen())
            .becomes("/augmented_views", [json!(2), json!(3)]),
        Case::of("early_stopping.patience", [json!(3), json!(4)]),
        Case::of(
            "early_stopping.metric",
            [json!("valid_loss"), json!("valid_macro_f1")],
        ),
        Case::of("early_stopping.min_delta", [json!(0.5), json!(0.25)]),
        Case::of(
            "evaluate_every",
            [json!({"epochs": 2}), json!({"steps": 3})],
        ),
        Case::of("checkpoint_every_seconds", [json!(7), json!(8)]),
    ]
}

/// Two augmentations that differ in every number.
fn images() -> [Value; 2] {
    let one = |x: f64, n: u32| {
        json!({
            "random_resized_crop": {"scale": [x, 1.0], "aspect_ratio": [x, 2.0]},
            "horizontal_flip": x,
            "color_jitter": {"brightness": x, "contrast": x, "saturation": x, "hue": x},
            "rand_augment": {"n_ops": n, "magnitude": n},
            "random_erasing": x,
        })
    };
    [one(0.5, 3), one(0.25, 4)]
}

#[test]
fn trap_6_every_option_is_in_the_recipe_as_asked() {
    for case in hyperparameters().into_iter().chain(form()) {
        assert_ne!(case.expected[0], case.expected[1], "{}", case.option);
        for (asked, expected) in case.asked.iter().zip(&case.expected) {
            let recipe = case.recipe(asked);
            let found = recipe.pointer(&case.field);
            assert_eq!(found, Some(expected), "{}: {asked}", case.option);
        }
    }
}

/// An option that nobody looks for would fail here.
#[test]
fn every_option_has_a_test_of_its_way_into_the_recipe() {
    let cases = || hyperparameters().into_iter().chain(form());
    let tried: BTreeSet<&str> = cases().map(|case| case.option).collect();
    let asked = json!({"adapter": {"type": "lora"}, "augmentation": images()[0]});
    let transfer = json!(request(asked).transfer);
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let groups = ["hyperparameters", "head", "early_stopping", "adapter"];
    let mut options = names(&transfer);
    options.retain(|name| !groups.contains(&name.as_str()));
    for group in groups {
        let inside = names(&transfer[group]);
        options.extend(inside.iter().map(|name| format!("{group}.{name}")));
    }
    // The data tell the task, which a request can only repeat; and there is one kind of adapter.
    let given = ["task", "adapter.type"];
    options.retain(|option| !given.contains(&option.as_str()));
    let all = options.len();
    options.retain(|option| !tried.contains(option.as_str()));
    assert!(
        all > 30 && options.is_empty(),
        "{all} options, not tried: {options:?}; add a case to this file"
    );
    // Augmentations are compared as a whole.
    let mut augmentation = names(&transfer["augmentation"]);
    augmentation.remove("views");
    assert_eq!(augmentation, names(&images()[0]));
}
