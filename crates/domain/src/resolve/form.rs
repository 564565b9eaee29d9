//! The form of the network: where the backbone ends, what of it trains, the head's layers, and its classes. A job that goes on
//! has its parent's, unless it asks for a new head.

use serde_json::json;

use super::{NEW_CLASS, Start, TASK_MISMATCH, mode};
use crate::{
    base_model::Layers,
    cut::{self, PRE_LOGITS},
    file::Dataset,
    parent::Parent,
    problem::{Problem, suggestion},
    recipe::{Adapter, HeadInit, HeadLayer, Inherited, Resolved, Task},
    request::{Auto, CONTRADICTION, Freeze, JobRequest, LabelRule, Transfer},
};

/// What is settled of the network before anything else.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub cut: String,
    pub freeze: Freeze,
    pub head: Vec<HeadLayer>,
    /// `None` where training starts from a base model.
    pub inherited: Option<Inherited>,
    /// What the backbone gains, once that is settled.
    pub adapter: Option<Adapter>,
    /// What was left to us.
    pub resolved: Vec<Resolved>,
}

impl Form {
    /// Whether the parent's head goes on, with new rows or without.
    pub(super) fn keeps_head(&self) -> bool {
        self.inherited.as_ref().is_some_and(Inherited::keeps_head)
    }

    /// The request with what is settled here in the place of `"auto"`.
    pub(super) fn fill(&self, request: &JobRequest) -> JobRequest {
        let mut request = request.clone();
        request.transfer.cut = Auto::Value(self.cut.clone());
        request.transfer.freeze = Auto::Value(self.freeze.clone());
        request.transfer.head.layers = Auto::Value(self.head.clone());
        request
    }

    /// Weights that are given for the classes of the file, in label order; a class that it lacks weighs 1.
    pub(super) fn by_label(&self, training: &Dataset, weights: &[f64]) -> Vec<f64> {
        let names = names(training);
        let weight = |label: &String| {
            let place = names.iter().position(|name| name == label);
            place.map_or(1.0, |place| weights[place])
        };
        self.labels(training).iter().map(weight).collect()
    }

    /// The classes in label order.
    pub(super) fn labels(&self, training: &Dataset) -> Vec<String> {
        match &self.inherited {
            Some(inherited) => inherited.labels.clone(),
            None => names(training),
        }
    }
}

/// Settles the form, for as many `samples` that train.
///
/// # Errors
/// Classes that the parent does not know; options that need a new head.
pub(super) fn form(
    asked: &Transfer,
    start: Start<'_>,
    training: &Dataset,
    samples: u64,
) -> Result<Form, Vec<Problem>> {
    let mut problems = Vec::new();
    let inherited = match start.parent {
        Some(parent) => same_task(asked, parent, training)
            .and_then(|()| inherited(asked, parent, training).map(Some)),
        None => without_parent(asked).map(|()| None),
    };
    let inherited = inherited.unwrap_or_else(|found| {
        problems.extend(found);
        None
    });
    if let Some(parent) = start.parent
        && asked.labels != Auto::Value(LabelRule::Replace)
        && training.task != Task::Regression
    {
        problems.extend(misfits(asked, parent, inherited.as_ref()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut resolved = Vec::new();
    let mut note = |option: &str, value, reason: &str| {
        resolved.push(Resolved {
            option: option.to_owned(),
            value,
            reason: reason.to_owned(),
        });
    };
    let cut = match (&asked.cut, start.parent) {
        (Auto::Value(cut), _) => cut.clone(),
        (Auto::Auto, Some(parent)) => {
            note(
                "cut",
                json!(parent.cut),
                "as the model that it goes on from",
            );
            parent.cut.clone()
        }
        (Auto::Auto, None) => {
            note("cut", json!(PRE_LOGITS), "only the classifier goes");
            PRE_LOGITS.to_owned()
        }
    };
    let freeze = match &asked.freeze {
        Auto::Value(freeze) => freeze.clone(),
        Auto::Auto => {
            let (freeze, reason) = mode::freeze(asked, training, samples);
            note("freeze", json!(freeze), reason);
            freeze
        }
    };
    let head = match (&asked.head.layers, start.parent) {
        (Auto::Value(layers), _) => layers.clone(),
        (Auto::Auto, Some(parent)) => {
            note(
                "head.layers",
                json!(parent.head),
                "as the model that it goes on from",
            );
            parent.head.clone()
        }
        (Auto::Auto, None) => {
            note("head.layers", json!([]), "one linear layer on the features");
            Vec::new()
        }
    };
    if inherited.is_some() && asked.labels == Auto::Auto {
        let (rule, reason) = if training.task == Task::Regression {
            let reason = "the head of a regression is fitted anew, to the numbers of the file";
            (LabelRule::Replace, reason)
        } else {
            (LabelRule::Keep, "the model knows every class of the file")
        };
        note("labels", json!(rule), reason);
    }
    Ok(Form {
        cut,
        freeze,
        head,
        inherited,
        adapter: None,
        resolved,
    })
}

fn without_parent(asked: &Transfer) -> Result<(), Vec<Problem>> {
    let Auto::Value(_) = asked.labels else {
        return Ok(());
    };
    let message = "a base model has no labels of yours; leave `labels` out, or go on from a fine-tuned model or a checkpoint";
    Err(vec![Problem::new(
        "method.transfer.labels",
        CONTRADICTION,
        message,
    )])
}

/// A head can go on only with what it answers; one that answers with a number is fitted anew.
fn same_task(asked: &Transfer, parent: &Parent, training: &Dataset) -> Result<(), Vec<Problem>> {
    let path = "method.transfer.labels";
    match &asked.labels {
        Auto::Value(LabelRule::Replace) => Ok(()),
        _ if parent.task != training.task => {
            let message = format!(
                "`{}` does {}, and the training file is for {}; set `\"labels\": \"replace\"` for a new head",
                parent.id,
                parent.task.as_str(),
                training.task.as_str()
            );
            Err(vec![Problem::new(path, TASK_MISMATCH, message)])
        }
        Auto::Value(_) if training.task == Task::Regression => {
            let message = "a regression has no labels; leave `labels` out".to_owned();
            Err(vec![Problem::new(path, CONTRADICTION, message)])
        }
        _ => Ok(()),
    }
}

/// The classes of the result. The parent's keep their numbers, whatever the order in the file; new ones follow.
fn inherited(
    asked: &Transfer,
    parent: &Parent,
    training: &Dataset,
) -> Result<Inherited, Vec<Problem>> {
    let names = names(training);
    if asked.labels == Auto::Value(LabelRule::Replace) {
        return Ok(Inherited {
            labels: names,
            known: 0,
        });
    }
    let known = parent.labels.len() as u32;
    let new: Vec<String> = names
        .into_iter()
        .filter(|name| !parent.labels.contains(name))
        .collect();
    let path = "method.transfer.labels";
    if asked.labels == Auto::Value(LabelRule::Extend) {
        if new.is_empty() {
            let message = format!(
                "`{}` knows every class of the training file: there is none to add; leave `labels` out",
                parent.id
            );
            return Err(vec![Problem::new(path, CONTRADICTION, message)]);
        }
        let labels = parent.labels.iter().cloned().chain(new).collect();
        return Ok(Inherited { labels, known });
    }
    let known_names = || parent.labels.iter().map(String::as_str);
    let problem = |name: &String| {
        let message = format!(
            "`{}` has no class `{name}`; {}. `\"labels\": \"extend\"` adds it to the head, `\"replace\"` trains a new head for \
             the file's classes alone",
            parent.id,
            suggestion(name, known_names())
        );
        Problem::new(path, NEW_CLASS, message)
    };
    if !new.is_empty() {
        return Err(new.iter().map(problem).collect());
    }
    Ok(Inherited {
        labels: parent.labels.clone(),
        known,
    })
}

/// Options that a head which goes on cannot follow.
fn misfits(asked: &Transfer, parent: &Parent, inherited: Option<&Inherited>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut misfit = |option: &str, message: String| {
        let path = format!("method.transfer.{option}");
        problems.push(Problem::new(path, CONTRADICTION, message));
    };
    let otherwise = "leave it out, or set `\"labels\": \"replace\"` for a new head";
    if let Auto::Value(cut) = &asked.cut
        && *cut != parent.cut
    {
        let message = format!(
            "the head of `{}` sits on `{}`, not on `{cut}`; {otherwise}",
            parent.id, parent.cut
        );
        misfit("cut", message);
    }
    if let Auto::Value(layers) = &asked.head.layers
        && *layers != parent.head
    {
        let message = format!("the head of `{}` has other layers; {otherwise}", parent.id);
        misfit("head.layers", message);
    }
    let grows = inherited.is_some_and(Inherited::grows);
    match asked.head.init {
        Auto::Value(HeadInit::Probe) => misfit(
            "head.init",
            format!(
                "a probe would take the place of the head of `{}`; {otherwise}",
                parent.id
            ),
        ),
        Auto::Value(_) if !grows => misfit(
            "head.init",
            format!("the head of `{}` goes on as it is; {otherwise}", parent.id),
        ),
        _ => {}
    }
    problems
}

/// Every class that is known in any way, for checks where the form itself is refused.
pub(super) fn every_class(start: Start<'_>, training: &Dataset) -> Vec<String> {
    let mut all = names(training);
    all.extend(
        start
            .parent
            .into_iter()
            .flat_map(|parent| parent.labels.clone()),
    );
    all
}

/// The layers that are left of the backbone: a parent's has lost what comes after its own cut already.
///
/// # Errors
/// A stage that is not there, or not any more.
pub(super) fn left(asked: &Transfer, start: Start<'_>) -> Result<Layers, Vec<Problem>> {
    let own = start.parent.map_or(PRE_LOGITS, |parent| &parent.cut);
    let left = cut::left(own, start.layers)?;
    match &asked.cut {
        Auto::Value(cut) if cut == own => Ok(left),
        Auto::Value(cut) if cut == PRE_LOGITS => {
            let message =
                format!("the backbone ends after stage `{own}` already; cut there, or earlier");
            let path = "method.transfer.cut";
            Err(vec![Problem::new(path, CONTRADICTION, message)])
        }
        Auto::Value(cut) => cut::left(cut, &left),
        Auto::Auto => Ok(left),
    }
}

fn names(training: &Dataset) -> Vec<String> {
    let classes = training.classes.iter();
    classes.map(|class| class.name.clone()).collect()
}
