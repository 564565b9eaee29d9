//! The model card, in the Hugging Face hub's form.

use std::fmt::Write as _;

use super::bundle::Bundle;
use crate::{
    domain::{
        file::Split,
        input::Input,
        recipe::{PRE_LOGITS, Recipe, is_linear_head},
        report::{
            Forgetting, LabelForgetting, MultiLabelScores, RegressionScores, Report, Scores,
            SingleLabelScores,
        },
    },
    models::architecture::Architecture,
    train::{eval::metrics::OutputDecoding, input::preparation::Preparation},
};

/// The whole card.
pub(super) fn card(bundle: &Bundle) -> String {
    let Bundle {
        run: Preparation { plan, samples, .. },
        network,
        report,
        best,
        ..
    } = bundle;
    let architecture = network.architecture;
    let library = architecture.library;
    let source = &plan.base_model.source_task;
    let dataset = source
        .dataset
        .as_deref()
        .unwrap_or("data that its publisher did not name");
    let trained = trained_part(&plan.recipe);
    let (tag, purpose) = purpose(&report.scores, samples.classes.len());
    let mut card = format!(
        "---\nlibrary_name: {library}\npipeline_tag: {tag}\n---\n\n# {name}\n\n\
         `{base}` ({architecture}, {task} on {dataset}), fine-tuned to {purpose}: {trained}.\n\n",
        name = plan.fine_tuned_model,
        base = plan.base_model.id,
        architecture = architecture.name,
        task = source.name,
    );
    let _ = match &report.scores {
        Scores::SingleLabelClassification(scores) => single_label(&mut card, report, scores),
        Scores::MultiLabelClassification(scores) => multi_label(&mut card, report, scores),
        Scores::Regression(scores) => regression(&mut card, report, scores),
    };
    let _ = write!(card, "\nChosen after epoch {}.\n", best.epoch);
    if plan.recipe.cut != PRE_LOGITS || !is_linear_head(&plan.recipe.head.layers) {
        card.push_str(&own_form(&plan.recipe, library));
        return card;
    }
    let _ = write!(
        card,
        "\n## Use\n\n```python\n{}\
         model.load_state_dict(load_file(\"model.safetensors\"), strict=True)\nmodel.eval()\n```\n\n\
         `preprocess.json` says how an image becomes the input, `golden.safetensors` holds inputs and the {} that must come \
         out.\n",
        python(architecture, &plan.base_model.input, samples.outputs()),
        match bundle.decoding {
            OutputDecoding::Temperature(_) => "logits, before any temperature,",
            OutputDecoding::Thresholds(_) => "logits",
            OutputDecoding::Plain => "numbers",
        },
    );
    card
}

/// The part of the network that was trained, as a clause.
fn trained_part(recipe: &Recipe) -> String {
    match (&recipe.adapter, recipe.trainable.len()) {
        (Some(adapter), _) => format!(
            "low-rank adapters (LoRA, rank {}, alpha {}) on {} linear layers of the backbone and a new head were trained; the \
             adapters are merged into the layers' weights",
            adapter.rank,
            adapter.alpha,
            adapter.layers.len()
        ),
        (None, 0) => "the backbone kept its weights, only a new head was trained".to_owned(),
        (None, count) => format!("{count} tensors of the backbone and a new head were trained"),
    }
}

/// The hub's tag of the task, and its purpose as a clause.
fn purpose(scores: &Scores, classes: usize) -> (&'static str, String) {
    match scores {
        Scores::SingleLabelClassification(_) => (
            "image-classification",
            format!("tell {} classes apart", classes),
        ),
        Scores::MultiLabelClassification(_) => (
            "image-classification",
            format!("find which of {} labels an image has", classes),
        ),
        Scores::Regression(_) => ("image-feature-extraction", "predict a number".to_owned()),
    }
}

fn split(report: &Report) -> &'static str {
    match report.split {
        Split::Train => "training",
        Split::Validation => "validation",
        Split::Test => "test",
    }
}

fn single_label(
    card: &mut String,
    report: &Report,
    scores: &SingleLabelScores,
) -> std::fmt::Result {
    let [low, high] = scores.accuracy_interval.map(|share| share * 100.0);
    writeln!(
        card,
        "Accuracy on {} samples of the {} split: **{:.1} %** (95 % interval {low:.1} to {high:.1} %), against {:.1} % for \
         always answering the commonest class. Macro F1 {:.3}, ROC-AUC {}.\n\n\
         | class | precision | recall | samples |\n|---|---|---|---|",
        report.samples,
        split(report),
        scores.accuracy * 100.0,
        scores.majority_baseline * 100.0,
        scores.macro_f1,
        number(scores.roc_auc),
    )?;
    for class in &scores.classes {
        let (precision, recall) = (percent(class.precision), percent(class.recall));
        let (name, support) = (cell(&class.name), class.support);
        writeln!(card, "| {name} | {precision} | {recall} | {support} |")?;
    }
    if let Some(forgetting) = &scores.forgetting {
        card.push_str(&known_classes(forgetting));
    }
    let Some(calibration) = scores.calibration else {
        return Ok(());
    };
    writeln!(
        card,
        "\nProbabilities are softmax(logits / {:.4}); that temperature was fitted on the validation split and is in \
         `config.json` under `rehead`. It takes the calibration error (15 bins) from {:.4} to {:.4} and the log loss from \
         {:.4} to {:.4} nats; the predicted class stays.",
        calibration.temperature,
        calibration.ece_before,
        calibration.ece_after,
        calibration.log_loss_before,
        calibration.log_loss_after,
    )
}

/// Known classes, before and after.
fn known_classes(forgetting: &Forgetting) -> String {
    let mut text = format!(
        "\nIt went on from a model that knew {} of these classes. On the {} validation samples of those, accuracy was {} before \
         and is {} after:\n\n| class | recall before | recall after | samples |\n|---|---|---|---|\n",
        forgetting.classes.len(),
        forgetting.samples,
        percent(forgetting.accuracy_before),
        percent(forgetting.accuracy_after),
    );
    for class in &forgetting.classes {
        let name = cell(&class.name);
        let (before, after) = (percent(class.recall_before), percent(class.recall_after));
        let _ = writeln!(text, "| {name} | {before} | {after} | {} |", class.support);
    }
    text
}

/// Known labels of a multi-label task, before and after.
fn known_labels(forgetting: &LabelForgetting) -> String {
    let mut text = format!(
        "\nIt went on from a model that knew {} of these labels. On the {} validation samples their mean average precision was {} \
         before and is {} after:\n\n| label | average precision before | after | samples |\n|---|---|---|---|\n",
        forgetting.classes.len(),
        forgetting.samples,
        number(forgetting.mean_average_precision_before),
        number(forgetting.mean_average_precision_after),
    );
    for class in &forgetting.classes {
        let (name, support) = (cell(&class.name), class.support);
        let before = number(class.average_precision_before);
        let after = number(class.average_precision_after);
        let _ = writeln!(text, "| {name} | {before} | {after} | {support} |");
    }
    text
}

fn multi_label(card: &mut String, report: &Report, scores: &MultiLabelScores) -> std::fmt::Result {
    writeln!(
        card,
        "On {} samples of the {} split: mean average precision **{}**, micro F1 {}, macro F1 {}, ROC-AUC {}; {:.1} % of \
         the samples have all labels right.\n\n\
         | label | precision | recall | threshold | average precision | samples |\n|---|---|---|---|---|---|",
        report.samples,
        split(report),
        number(scores.mean_average_precision),
        number(scores.micro_f1),
        number(scores.macro_f1),
        number(scores.roc_auc),
        scores.subset_accuracy * 100.0,
    )?;
    for class in &scores.classes {
        let (precision, recall) = (percent(class.precision), percent(class.recall));
        let (threshold, average) = (class.threshold, number(class.average_precision));
        let (name, support) = (cell(&class.name), class.support);
        writeln!(
            card,
            "| {name} | {precision} | {recall} | {threshold:.3} | {average} | {support} |"
        )?;
    }
    writeln!(
        card,
        "\nAn image has a label when sigmoid(logit) reaches its threshold. Thresholds were chosen on the validation split, for \
         the best F1 of each label, and are in `config.json` under `rehead`."
    )?;
    if let Some(forgetting) = &scores.forgetting {
        card.push_str(&known_labels(forgetting));
    }
    Ok(())
}

fn regression(card: &mut String, report: &Report, scores: &RegressionScores) -> std::fmt::Result {
    let interval = scores.mae_interval.map_or_else(String::new, |[low, high]| {
        format!(" (95 % interval {low:.4} to {high:.4})")
    });
    writeln!(
        card,
        "On {} samples of the {} split: mean absolute error **{:.4}**{interval}, RMSE {:.4}, R2 {}; always answering the \
         training split's mean has {:.4} and {:.4}. The true numbers go from {:.4} to {:.4}.\n\n\
         The network gives the number itself, in the unit of the training data.",
        report.samples,
        split(report),
        scores.mae,
        scores.rmse,
        number(scores.r2),
        scores.baseline.mae,
        scores.baseline.rmse,
        scores.target.min,
        scores.target.max,
    )
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// A name as a table's cell takes it.
fn cell(name: &str) -> String {
    name.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Python code that builds a network for the bundle's weights, and reads the labels.
fn python(architecture: &Architecture, input: &Input, outputs: usize) -> String {
    let (imports, model) = if architecture.library == "timm" {
        let arguments = architecture.model_args(input).into_iter();
        let arguments: Vec<String> = arguments
            .map(|(name, value)| format!(", {name}={value}"))
            .collect();
        let model = format!(
            "model = timm.create_model(\"{}\", num_classes={outputs}{})\n",
            architecture.name,
            arguments.concat()
        );
        ("timm", model)
    } else {
        (
            "torch, torchvision",
            torchvision(architecture, input, outputs),
        )
    };
    format!(
        "import json, {imports}\nfrom safetensors.torch import load_file\n\n\
         labels = json.load(open(\"labels.json\"))\n{model}"
    )
}

/// SqueezeNet, whose classifier is there a convolution and a ReLU before the pooling, and its stem
/// for colors.
fn torchvision(architecture: &Architecture, input: &Input, outputs: usize) -> String {
    let (name, features) = (architecture.name, architecture.feature_dim);
    let mut text = format!("model = torchvision.models.{name}()\n");
    let channels = input.image().map_or(3, |image| image.channels);
    if channels != 3 {
        let _ = writeln!(
            text,
            "model.features[0] = torch.nn.Conv2d({channels}, 64, kernel_size=3, stride=2)"
        );
    }
    let _ = writeln!(
        text,
        "pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n\
         model.classifier = torch.nn.Sequential(pooled, torch.nn.Linear({features}, {outputs}))"
    );
    text
}

/// Usage of a model that the library does not have: cut earlier, or with more layers in its head.
fn own_form(recipe: &Recipe, library: &str) -> String {
    let mut text = format!(
        "\n## Use\n\n{library} has no model of this form, so that its `load_state_dict` does not take all of \
         `model.safetensors`: `config.json` says how it is built, and the tensors of the backbone have {library}'s names.\n"
    );
    if recipe.cut != PRE_LOGITS {
        let _ = write!(
            text,
            "\nThe backbone ends after stage `{}`; its features are the mean over the places of that \
             stage's output, or the class token of a network that has one.\n",
            recipe.cut
        );
    }
    if !is_linear_head(&recipe.head.layers) {
        text.push_str(
            "\nThe head is a `torch.nn.Sequential` of the layers in `rehead.recipe.head.layers` and a last linear one: its \
             tensors are `head.N.*`, N being a layer's place.\n",
        );
    }
    text.push_str(
        "\n`preprocess.json` says how an image becomes the input, `golden.safetensors` holds inputs and the logits that must \
         come out.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::base_model::Preprocessing, models::registry};

    /// Code for images of so many channels and this side.
    fn made(name: &str, channels: u32, input_size: u32) -> String {
        let architecture = registry::find(name).unwrap();
        let input = Preprocessing {
            channels,
            input_size,
            ..architecture.input.image().unwrap().clone()
        };
        python(architecture, &Input::Image(input), 6)
    }

    #[test]
    fn timm_is_told_what_its_defaults_are_not() {
        for (name, channels, input_size, expected) in [
            ("resnet18", 3, 64, "\"resnet18\", num_classes=6)"),
            (
                "resnet18",
                1,
                64,
                "\"resnet18\", num_classes=6, in_chans=1)",
            ),
            ("vit_tiny_patch16_224", 3, 96, "num_classes=6, img_size=96)"),
            (
                "vit_tiny_patch16_224",
                4,
                224,
                "num_classes=6, in_chans=4, img_size=224)",
            ),
        ] {
            let text = made(name, channels, input_size);
            assert!(text.contains("timm.create_model("), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_timm_lacks_is_torchvision_s() {
        let text = made("squeezenet1_1", 3, 224);
        for line in [
            "import json, torch, torchvision\n",
            "model = torchvision.models.squeezenet1_1()\n",
            "torch.nn.Linear(512, 6)",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("timm") && !text.contains("Conv2d"), "{text}");
        let gray = made("squeezenet1_1", 1, 64);
        assert!(gray.contains("torch.nn.Conv2d(1, 64"), "{gray}");
    }
}
