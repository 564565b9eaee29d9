//! The shape of the network: where the backbone ends, which of it trains, the head's layers, and
//! the classes. A job that starts from a model or a checkpoint has its parent's, unless it asks for
//! a new head.

use super::{
    auto_log::AutoLog,
    data::Data,
    defaults,
    problems::{contradiction, refuse},
};
use crate::{
    base_model::Layers,
    codes::{NEW_CLASS, TASK_MISMATCH},
    file::Dataset,
    layers::layers_after_cut,
    parent::{Parent, Start},
    problem::{Problem, suggestion},
    recipe::{HeadInit, HeadLayer, Inherited, PRE_LOGITS, Resolved, Task},
    request::{Auto, Freeze, LabelRule, Transfer},
};

const LABELS_PATH: &str = "method.transfer.labels";

/// The shape of the network, and how its `"auto"`s were resolved.
#[derive(Debug, Clone)]
pub(super) struct NetworkShape {
    pub cut: String,
    pub freeze: Freeze,
    pub head: Vec<HeadLayer>,
    /// `None` when training starts from a base model.
    pub inherited: Option<Inherited>,
    pub resolved: Vec<Resolved>,
}

impl NetworkShape {
    /// Resolves the shape.
    ///
    /// # Errors
    /// Classes that the parent does not know; options that need a new head.
    pub(super) fn of(
        asked: &Transfer,
        start: Start<'_>,
        data: Data<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let inherited = check_inherited(asked, start, data.training)?;
        let as_parent = "as the model that the job starts from";
        let (cut, head) = match start.parent {
            Some(parent) => (
                (parent.cut.clone(), as_parent),
                (parent.head.clone(), as_parent),
            ),
            None => (
                (PRE_LOGITS.to_owned(), "only the classifier is removed"),
                (Vec::new(), "one linear layer on the features"),
            ),
        };
        let freeze = defaults::freeze(asked, data);
        let mut log = AutoLog::default();
        let cut = log.resolve("cut", asked.cut.clone(), cut);
        let freeze = log.resolve("freeze", asked.freeze.clone(), freeze);
        let head = log.resolve("head.layers", asked.head.layers.clone(), head);
        if inherited.is_some() {
            let labels = match data.training.task {
                Task::Regression => (
                    LabelRule::Replace,
                    "the head of a regression is fitted anew, to the numbers of the file",
                ),
                _ => (LabelRule::Keep, "the model knows every class of the file"),
            };
            log.resolve("labels", asked.labels, labels);
        }
        Ok(Self {
            cut,
            freeze,
            head,
            inherited,
            resolved: log.0,
        })
    }

    /// True when the job continues with the parent's head, with or without new rows.
    pub(super) fn keeps_head(&self) -> bool {
        self.inherited.as_ref().is_some_and(Inherited::keeps_head)
    }

    /// The request with what is resolved here in the place of `"auto"`.
    pub(super) fn fill(&self, asked: &Transfer) -> Transfer {
        let mut asked = asked.clone();
        asked.cut = Auto::Value(self.cut.clone());
        asked.freeze = Auto::Value(self.freeze.clone());
        asked.head.layers = Auto::Value(self.head.clone());
        asked
    }

    /// Weights for the file's classes, reordered by label; a class that the file lacks weighs 1.
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

/// Checks the options about the parent, and returns what the job takes over; `None` without one.
fn check_inherited(
    asked: &Transfer,
    start: Start<'_>,
    training: &Dataset,
) -> Result<Option<Inherited>, Vec<Problem>> {
    let Some(parent) = start.parent else {
        let message = "a base model has no labels of yours; leave `labels` out, or start from a fine-tuned model or a checkpoint";
        return match asked.labels {
            Auto::Auto => Ok(None),
            Auto::Value(_) => Err(vec![contradiction("labels", message)]),
        };
    };
    let inherited =
        same_task(asked, parent, training).and_then(|()| inherited(asked, parent, training));
    let mut problems = inherited.as_ref().err().cloned().unwrap_or_default();
    if asked.labels != Auto::Value(LabelRule::Replace) && training.task != Task::Regression {
        let grows = inherited.as_ref().is_ok_and(Inherited::grows);
        problems.extend(check_parent(asked, parent, grows));
    }
    match inherited {
        Ok(inherited) if problems.is_empty() => Ok(Some(inherited)),
        _ => Err(problems),
    }
}

/// Checks that the parent's head answers what the file asks: classes or labels. The head of a
/// regression is always fitted anew.
fn same_task(asked: &Transfer, parent: &Parent, training: &Dataset) -> Result<(), Vec<Problem>> {
    match &asked.labels {
        Auto::Value(LabelRule::Replace) => Ok(()),
        _ if parent.task != training.task => {
            let message = format!(
                "`{}` does {}, and the training file is for {}; set `\"labels\": \"replace\"` for a new head",
                parent.id, parent.task, training.task
            );
            Err(vec![Problem::new(LABELS_PATH, TASK_MISMATCH, message)])
        }
        Auto::Value(_) if training.task == Task::Regression => {
            let message = "a regression has no labels; leave `labels` out";
            Err(vec![contradiction("labels", message)])
        }
        _ => Ok(()),
    }
}

/// The classes of the result. The parent's keep their numbers, whatever the order in the file; new
/// ones follow.
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
    let mut labels = parent.labels.clone();
    let is_new = |name: &String| !parent.labels.contains(name);
    let new: Vec<String> = names.into_iter().filter(is_new).collect();
    if asked.labels == Auto::Value(LabelRule::Extend) {
        if new.is_empty() {
            let message = format!(
                "`{}` knows every class of the training file: there is none to add; leave `labels` out",
                parent.id
            );
            return Err(vec![contradiction("labels", message)]);
        }
        labels.extend(new);
    } else {
        let problem = |name: &String| {
            let near = suggestion(name, parent.labels.iter().map(String::as_str));
            let message = format!(
                "`{}` has no class `{name}`; {near}. `\"labels\": \"extend\"` adds it to the head, `\"replace\"` trains a new head for \
                 the file's classes alone",
                parent.id
            );
            Problem::new(LABELS_PATH, NEW_CLASS, message)
        };
        refuse(new.iter().map(problem).collect())?;
    }
    Ok(Inherited { labels, known })
}

/// Options that contradict the parent's head, which the job continues with. `grows` is true when it
/// gets new rows.
fn check_parent(asked: &Transfer, parent: &Parent, grows: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut misfit = |option, message| problems.push(contradiction(option, message));
    let remedy = "leave it out, or set `\"labels\": \"replace\"` for a new head";
    let id = &parent.id;
    if let Auto::Value(cut) = &asked.cut
        && *cut != parent.cut
    {
        let on = &parent.cut;
        let message = format!("the head of `{id}` is attached to `{on}`, not to `{cut}`; {remedy}");
        misfit("cut", message);
    }
    if let Auto::Value(layers) = &asked.head.layers
        && *layers != parent.head
    {
        let message = format!("the head of `{id}` has other layers; {remedy}");
        misfit("head.layers", message);
    }
    match asked.head.init {
        Auto::Value(HeadInit::Probe) => {
            let message = format!("a probe would replace the head of `{id}`; {remedy}");
            misfit("head.init", message);
        }
        Auto::Value(_) if !grows => {
            let message = format!("the head of `{id}` keeps its weights; {remedy}");
            misfit("head.init", message);
        }
        _ => {}
    }
    problems
}

/// Every class of the file or the parent, for checks when the shape itself is refused.
pub(super) fn all_labels(start: Start<'_>, training: &Dataset) -> Vec<String> {
    let mut all = names(training);
    let parent = start.parent.into_iter();
    all.extend(parent.flat_map(|parent| parent.labels.clone()));
    all
}

/// The layers of the backbone that remain. A parent's lack those after its own cut already.
///
/// # Errors
/// A stage that is not there, or no longer.
pub(super) fn layers_left(asked: &Transfer, start: Start<'_>) -> Result<Layers, Vec<Problem>> {
    let own = start.parent.map_or(PRE_LOGITS, |parent| &parent.cut);
    let left = layers_after_cut(own, start.layers)?;
    match &asked.cut {
        Auto::Value(cut) if cut == own => Ok(left),
        Auto::Value(cut) if cut == PRE_LOGITS => {
            let message =
                format!("the backbone ends after stage `{own}` already; cut there, or earlier");
            Err(vec![contradiction("cut", message)])
        }
        Auto::Value(cut) => layers_after_cut(cut, &left),
        Auto::Auto => Ok(left),
    }
}

fn names(training: &Dataset) -> Vec<String> {
    let classes = training.classes.iter();
    classes.map(|class| class.name.clone()).collect()
}
