//! Forgetting: metrics of the classes that the parent model knew, before and after training.

use super::metrics::{
    MultiLabel, Scored, SingleLabel,
    average::{mean, share},
};
use crate::{
    domain::{
        recipe::Inherited,
        report::{Forgetting, KnownClass, KnownLabel, LabelForgetting, Scores},
    },
    train::counters::{AtStart, Exact},
};

/// Metrics before the first step, by class; `None` for regression, which has no classes.
pub fn at_start(scored: &Scored) -> Option<AtStart> {
    match scored {
        Scored::SingleLabel(scored) => {
            let counts = scored.counts().into_iter();
            Some(AtStart::Right(counts.map(|counts| counts.hits).collect()))
        }
        Scored::MultiLabel(scored) => {
            let all = (0..scored.classes).map(|class| scored.average_precision(class));
            Some(AtStart::AveragePrecision(
                all.map(|one| one.map(Exact)).collect(),
            ))
        }
        Scored::Regression(_) => None,
    }
}

/// Adds the comparison with the start to a report's scores. `after` is measured on the validation
/// split, with the tensors that are exported.
pub fn compare(scores: &mut Scores, inherited: &Inherited, before: &AtStart, after: &Scored) {
    match (scores, before, after) {
        (
            Scores::SingleLabelClassification(scores),
            AtStart::Right(before),
            Scored::SingleLabel(after),
        ) => scores.forgetting = Some(of_classes(inherited, before, after)),
        (
            Scores::MultiLabelClassification(scores),
            AtStart::AveragePrecision(before),
            Scored::MultiLabel(after),
        ) => scores.forgetting = Some(of_labels(inherited, before, after)),
        _ => {}
    }
}

fn of_classes(inherited: &Inherited, right_before: &[u64], after: &SingleLabel) -> Forgetting {
    let known = inherited.known as usize;
    let after = &after.counts()[..known];
    let class = |label: usize| KnownClass {
        name: inherited.labels[label].clone(),
        support: after[label].support,
        recall_before: share(right_before[label], after[label].support),
        recall_after: after[label].recall(),
    };
    let all = after.iter().map(|counts| counts.support).sum();
    let right_after = after.iter().map(|counts| counts.hits).sum();
    Forgetting {
        samples: all,
        accuracy_before: share(right_before[..known].iter().sum(), all),
        accuracy_after: share(right_after, all),
        classes: (0..known).map(class).collect(),
    }
}

fn of_labels(
    inherited: &Inherited,
    before: &[Option<Exact>],
    after: &MultiLabel,
) -> LabelForgetting {
    let class = |label: usize| KnownLabel {
        name: inherited.labels[label].clone(),
        support: after.support(label),
        average_precision_before: before[label].map(|Exact(value)| value),
        average_precision_after: after.average_precision(label),
    };
    let classes: Vec<KnownLabel> = (0..inherited.known as usize).map(class).collect();
    let all = classes.iter();
    LabelForgetting {
        samples: after.labels.len() as u64,
        mean_average_precision_before: mean(
            all.clone()
                .filter_map(|class| class.average_precision_before),
        ),
        mean_average_precision_after: mean(all.filter_map(|class| class.average_precision_after)),
        classes,
    }
}
