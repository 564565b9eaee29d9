//! Rankings of base models by how well their frozen features fit a data set: which scores are
//! needed next, and the order that follows from them.
//!
//! All candidates are scored on the same training samples. Many candidates race: they are scored on
//! a few samples first, then on more, and those that are clearly behind stay there.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    base_model::SourceTask,
    input::{Input, Modality},
    job::Failure,
    limits,
    options::{Optional, options},
    recipe::Task,
    rules::{Integer, List, Text},
};

/// The model of a request that leaves the choice to the service.
pub const AUTO: &str = "auto";
/// Version of scores; raised when the same inputs give others.
pub const VERSION: u32 = 1;
/// Training samples that a score is measured on, unless there are fewer.
pub const SAMPLES: u64 = limits::TRANSFERABILITY_SAMPLES as u64;
/// Training samples that the candidates of a race are scored on, round by round, while that is at
/// most half of them.
pub const RACE_SAMPLES: [u64; 3] = [128, 256, 512];
/// Candidates up to which there is no race: half of them would be left, at half of the cost.
pub const RACE_ABOVE: usize = 8;
/// Resamples of the samples that a standard error is measured on.
pub const RESAMPLES: usize = 200;
/// Standard errors of a difference of scores by which a model is behind when a race drops it.
const RACE_MARGIN: f64 = 2.5;

options! {
    /// Which base models are candidates: those that meet all conditions.
    #[derive(Default)]
    pub struct CandidateOptions {
        /// Ids of base models; `null`: all that are ready.
        models: Option<Vec<String>> =
            Optional(List(1..=limits::CANDIDATES, "ids of models", Text(limits::MODEL_NAME_CHARACTERS))),
        /// Networks, by timm's names.
        architectures: Option<Vec<String>> =
            Optional(List(1..=limits::CANDIDATES, "networks", Text(limits::PHRASE_CHARACTERS))),
        /// Licenses, as the models name them.
        licenses: Option<Vec<String>> =
            Optional(List(1..=limits::CANDIDATES, "licenses", Text(limits::PHRASE_CHARACTERS))),
        /// Most parameters of a model.
        max_parameters: Option<u64> = Optional(Integer(limits::MODEL_PARAMETERS)),
        /// Most multiplications for one sample.
        max_macs: Option<u64> = Optional(Integer(limits::MODEL_MACS)),
    }
}

/// A base model to score: everything that its scores depend on beside the samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub model: String,
    pub architecture: String,
    pub source_task: SourceTask,
    pub input: Input,
    /// Lower-case hex.
    pub weights_sha256: String,
    pub license: Option<String>,
    pub parameters: u64,
    /// Multiplications of a forward pass of one sample; 0 where they were not measured.
    pub macs: u64,
}

/// A model that is no candidate, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Excluded {
    pub model: String,
    pub reason: ExclusionReason,
    /// The reason with its numbers and names.
    pub detail: String,
}

crate::words! {
    /// Why a model is no candidate.
    pub enum ExclusionReason {
        /// Its weights are being imported, or were refused.
        NotReady = "not_ready",
        /// It reads another kind of input than the data set has.
        Modality = "modality",
        /// `models` or `architectures` does not name it.
        NotNamed = "not_named",
        License = "license",
        /// It has more than `max_parameters`.
        Parameters = "parameters",
        /// It takes more than `max_macs`.
        Macs = "macs",
        /// The job's other options do not fit it.
        Options = "options",
        /// Its training fits in no worker's memory.
        Memory = "memory",
        /// It could not be scored.
        Failed = "failed",
    }
}

/// A base model that may be a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseModel {
    pub model: String,
    pub architecture: String,
    /// `None` while its weights are being imported, or where they were refused.
    pub candidate: Option<Candidate>,
}

impl CandidateOptions {
    /// Why a model is no candidate for data of this modality; `None` if it is one.
    pub fn excludes(&self, model: &BaseModel, modality: Modality) -> Option<Excluded> {
        let (reason, detail) = if !names(&self.models, &model.model) {
            (
                ExclusionReason::NotNamed,
                "`models` does not name it".to_owned(),
            )
        } else if !names(&self.architectures, &model.architecture) {
            let detail = format!("`architectures` does not name `{}`", model.architecture);
            (ExclusionReason::NotNamed, detail)
        } else if let Some(candidate) = &model.candidate {
            self.excludes_ready(candidate, modality)?
        } else {
            let detail = "its weights are being imported, or were refused".to_owned();
            (ExclusionReason::NotReady, detail)
        };
        Some(Excluded {
            model: model.model.clone(),
            reason,
            detail,
        })
    }

    /// The reason and the detail for a model that is ready.
    fn excludes_ready(
        &self,
        model: &Candidate,
        modality: Modality,
    ) -> Option<(ExclusionReason, String)> {
        let is_over = |limit: Option<u64>, value| limit.is_some_and(|limit| value > limit);
        let Candidate {
            parameters, macs, ..
        } = *model;
        let reads = model.input.modality();
        let license = model.license.as_deref();
        Some(if reads != modality {
            let (reads, has) = (reads.as_str(), modality.as_str());
            let detail = format!("it reads {reads} inputs, and the data set has {has} ones");
            (ExclusionReason::Modality, detail)
        } else if !names(&self.licenses, license.unwrap_or_default()) {
            let detail = match license {
                Some(license) => format!("its license is `{license}`"),
                None => "its license is not known".to_owned(),
            };
            (ExclusionReason::License, detail)
        } else if is_over(self.max_parameters, parameters) {
            let detail = format!("it has {parameters} parameters");
            (ExclusionReason::Parameters, detail)
        } else if is_over(self.max_macs, macs) {
            let detail = format!("it takes {macs} multiplications for a sample");
            (ExclusionReason::Macs, detail)
        } else {
            return None;
        })
    }
}

/// True when a list has a name, or does not restrict names.
fn names(list: &Option<Vec<String>>, name: &str) -> bool {
    list.as_ref()
        .is_none_or(|list| list.iter().any(|one| one == name))
}

/// Scores of a base model on some training samples; higher is better in all. They are no expected
/// accuracies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub samples: u64,
    /// Width of the features.
    pub features: u64,
    /// Leave-one-out score of a ridge regression on the features: accuracy for single labels, mean
    /// average precision for several, R² for numbers.
    pub score: f64,
    /// The same score on resamples of the samples. Models have the same ones in the same order, so
    /// that differences of two models can be compared.
    pub resampled: Vec<f32>,
    /// For single labels only, as the next two: accuracy of a 5-nearest-neighbors classifier.
    pub knn_accuracy: Option<f64>,
    /// LogME (You et al. 2021), in nats per sample.
    pub log_me: Option<f64>,
    /// H-score with a shrunk covariance (Ibrahim et al. 2021).
    pub h_score: Option<f64>,
    /// Time that scoring took.
    pub seconds: f64,
}

impl Scores {
    /// Standard error of the score.
    pub fn standard_error(&self) -> f64 {
        deviation(self.resampled.iter().map(|&score| f64::from(score)))
    }

    /// True when the difference to a better model, on the same samples, is within so many standard
    /// errors of that difference.
    fn is_within(&self, errors: f64, better: &Self) -> bool {
        if self.samples != better.samples {
            return false;
        }
        let pairs = better.resampled.iter().zip(&self.resampled);
        let error = deviation(pairs.map(|(&one, &other)| f64::from(one) - f64::from(other)));
        better.score - self.score <= errors * error
    }
}

/// Standard deviation of some numbers (of a sample); 0 of fewer than two.
fn deviation(numbers: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = numbers.clone().count() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = numbers.clone().sum::<f64>() / count;
    let squares: f64 = numbers.map(|number| (number - mean).powi(2)).sum();
    (squares / (count - 1.0)).sqrt()
}

/// A model in the order of a ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RankedModel {
    /// From 1.
    pub rank: u64,
    pub model: String,
    /// Leave-one-out score of a ridge regression on the model's features of training samples:
    /// accuracy for single labels, mean average precision for several, R² for numbers. No expected
    /// accuracy of a training.
    pub score: f64,
    pub standard_error: f64,
    /// True when its difference to the first is within the standard error of that difference, on
    /// the same samples.
    pub tied: bool,
    /// Training samples scored: fewer where a race of many models dropped it.
    pub samples: u64,
    /// Accuracy of a 5-nearest-neighbors classifier; for single labels only, as the next two.
    pub knn_accuracy: Option<f64>,
    /// LogME (You et al. 2021), in nats per sample.
    pub log_me: Option<f64>,
    /// H-score (Ibrahim et al. 2021).
    pub h_score: Option<f64>,
    pub parameters: u64,
    /// Multiplications for one sample; 0 where they were not measured.
    pub macs: u64,
    pub license: Option<String>,
}

impl Order {
    /// The order with the names of the candidates.
    pub fn models(&self, candidates: &[Candidate]) -> Vec<RankedModel> {
        let places = (1..).zip(&self.ranked);
        let model = |(rank, one): (u64, &Ranked)| {
            let (candidate, scores) = (&candidates[one.candidate], &one.scores);
            RankedModel {
                rank,
                model: candidate.model.clone(),
                score: scores.score,
                standard_error: scores.standard_error(),
                tied: one.tied,
                samples: scores.samples,
                knn_accuracy: scores.knn_accuracy,
                log_me: scores.log_me,
                h_score: scores.h_score,
                parameters: candidate.parameters,
                macs: candidate.macs,
                license: candidate.license.clone(),
            }
        };
        places.map(model).collect()
    }
}

/// Why the first of a ranking is chosen, with its evidence. `measure` is the score's name.
pub fn reason(ranked: &[RankedModel], measure: &str) -> String {
    let Some((first, others)) = ranked.split_first() else {
        return String::new();
    };
    if others.is_empty() {
        return "the only candidate".to_owned();
    }
    let tied: Vec<String> = others
        .iter()
        .filter(|one| one.tied)
        .map(|one| format!("`{}`", one.model))
        .collect();
    let ties = match tied[..] {
        [] => String::new(),
        _ => format!("; tied with {}", tied.join(", ")),
    };
    format!(
        "best of {} by {measure} {:.3} ± {:.3}{ties}",
        ranked.len(),
        first.score,
        first.standard_error
    )
}

/// The name of the score that models are ranked by.
pub fn measure(task: Task) -> &'static str {
    match task {
        Task::SingleLabelClassification => "ridge accuracy",
        Task::MultiLabelClassification => "ridge mean average precision",
        Task::Regression => "ridge R²",
    }
}

/// The result of scoring a candidate.
pub type Scored = Result<Scores, Failure>;

/// The next step of a ranking.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The scores of a candidate, by its place, on at most so many training samples.
    Score { candidate: usize, samples: u64 },
    /// Nothing: the candidates in order, and those that could not be scored.
    Done(Order),
}

/// The result of a ranking.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Order {
    /// The best one first.
    pub ranked: Vec<Ranked>,
    pub failed: Vec<Excluded>,
}

/// A candidate and its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Its place among the candidates.
    pub candidate: usize,
    pub scores: Scores,
    /// True when its difference to the first is within the standard error of that difference.
    pub tied: bool,
}

/// Decides what a ranking of these candidates on `available` training samples needs next, from what
/// is `known` of a candidate on so many samples. The order in which scores become known does not
/// matter.
pub fn next(
    candidates: &[Candidate],
    available: u64,
    known: impl Fn(usize, u64) -> Option<Scored>,
) -> Next {
    let all = available.min(SAMPLES);
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut order = Order::default();
    for samples in RACE_SAMPLES {
        if left.len() <= RACE_ABOVE || samples > all / 2 {
            break;
        }
        let found = match scores_of(candidates, &left, samples, &known, &mut order) {
            Ok(found) => found,
            Err(next) => return next,
        };
        let is_behind = |one: &Ranked| {
            let margin = |other: &Ranked| one.scores.is_within(RACE_MARGIN, &other.scores);
            !found.iter().all(margin)
        };
        let (dropped, stay): (Vec<_>, Vec<_>) = found.iter().cloned().partition(is_behind);
        left = stay.iter().map(|one| one.candidate).collect();
        order.ranked.extend(dropped);
    }
    match scores_of(candidates, &left, all, &known, &mut order) {
        Ok(found) => order.ranked.extend(found),
        Err(next) => return next,
    }
    // Those that a race dropped come behind all others.
    order.ranked.sort_by(|one, other| {
        let samples = other.scores.samples.cmp(&one.scores.samples);
        samples.then_with(|| compare(candidates, one, other))
    });
    if let Some((first, others)) = order.ranked.split_first_mut() {
        for other in others {
            other.tied = other.scores.is_within(1.0, &first.scores);
        }
    }
    Next::Done(order)
}

/// Training samples that a race of so many candidates may have scored before it scores `samples`,
/// ascending. The samples of a round are among those of the next.
pub fn earlier_rounds(candidates: usize, samples: u64) -> Vec<u64> {
    let is_race = candidates > RACE_ABOVE;
    let earlier = RACE_SAMPLES.into_iter().filter(|&round| round < samples);
    if is_race {
        earlier.collect()
    } else {
        Vec::new()
    }
}

/// Scores of some candidates on `samples`, or the first that is not known. Failures go to `order`.
fn scores_of(
    candidates: &[Candidate],
    some: &[usize],
    samples: u64,
    known: impl Fn(usize, u64) -> Option<Scored>,
    order: &mut Order,
) -> Result<Vec<Ranked>, Next> {
    let mut found = Vec::new();
    for &candidate in some {
        match known(candidate, samples) {
            None => return Err(Next::Score { candidate, samples }),
            Some(Ok(scores)) => found.push(Ranked {
                candidate,
                scores,
                tied: false,
            }),
            Some(Err(failure)) => order.failed.push(Excluded {
                model: candidates[candidate].model.clone(),
                reason: ExclusionReason::Failed,
                detail: failure.message,
            }),
        }
    }
    Ok(found)
}

/// The better score first; of equal ones the model that takes fewer multiplications, then by id.
fn compare(candidates: &[Candidate], one: &Ranked, other: &Ranked) -> Ordering {
    let (first, second) = (&candidates[one.candidate], &candidates[other.candidate]);
    let score = other.scores.score.total_cmp(&one.scores.score);
    score
        .then_with(|| first.macs.cmp(&second.macs))
        .then_with(|| first.model.cmp(&second.model))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base_model::{Interpolation, Preprocessing},
        input::Tokenization,
    };

    fn candidate(model: &str, macs: u64) -> Candidate {
        Candidate {
            model: model.to_owned(),
            architecture: "resnet18".to_owned(),
            source_task: SourceTask {
                name: "image classification".to_owned(),
                classes: None,
                dataset: None,
            },
            input: Input::Text(Tokenization {
                vocabulary: 10,
                max_tokens: 4,
            }),
            weights_sha256: "0".repeat(64),
            license: None,
            parameters: 1,
            macs,
        }
    }

    /// Scores whose resamples are the score and as much above and below it as `spread` says.
    fn scores(samples: u64, score: f64, spread: &[f64]) -> Scored {
        Ok(Scores {
            samples,
            features: 8,
            score,
            resampled: spread.iter().map(|by| (score + by) as f32).collect(),
            knn_accuracy: None,
            log_me: None,
            h_score: None,
            seconds: 0.0,
        })
    }

    fn names(candidates: &[Candidate], order: &Order) -> Vec<String> {
        let ranked = order.ranked.iter();
        ranked
            .map(|one| candidates[one.candidate].model.clone())
            .collect()
    }

    #[test]
    fn equal_scores_are_ordered_by_cost_and_then_by_id() {
        let candidates =
            [("b", 5), ("a", 5), ("c", 3), ("d", 9)].map(|(id, macs)| candidate(id, macs));
        let known = |place: usize, samples| Some(scores(samples, [0.5, 0.5, 0.5, 0.6][place], &[]));
        let Next::Done(order) = next(&candidates, 100, known) else {
            panic!("all scores are known");
        };
        assert_eq!(names(&candidates, &order), ["d", "c", "a", "b"]);
    }

    #[test]
    fn models_are_tied_by_their_difference_on_the_same_samples() {
        let candidates = ["a", "b", "c"].map(|id| candidate(id, 1));
        // The second varies with the first, the third against it.
        let spread = [-0.1, 0.1];
        let known = |place: usize, samples| {
            Some(match place {
                0 => scores(samples, 0.7, &spread),
                1 => scores(samples, 0.65, &spread),
                _ => scores(samples, 0.6, &[0.1, -0.1]),
            })
        };
        let Next::Done(order) = next(&candidates, 100, known) else {
            panic!("all scores are known");
        };
        let tied: Vec<bool> = order.ranked.iter().map(|one| one.tied).collect();
        assert_eq!(tied, [false, false, true]);
        let error = order.ranked[0].scores.standard_error();
        assert!((error - 0.02f64.sqrt()).abs() < 1e-6, "{error}");
    }

    /// Asks for scores until the ranking is done; returns the scores asked for, and the order.
    fn run(
        candidates: &[Candidate],
        available: u64,
        of: impl Fn(usize, u64) -> Scored,
    ) -> (Vec<(usize, u64)>, Order) {
        let mut asked = Vec::new();
        loop {
            let known = |place, samples| {
                asked
                    .contains(&(place, samples))
                    .then(|| of(place, samples))
            };
            match next(candidates, available, known) {
                Next::Score { candidate, samples } => asked.push((candidate, samples)),
                Next::Done(order) => return (asked, order),
            }
        }
    }

    #[test]
    fn a_race_drops_models_that_are_clearly_behind() {
        let candidates: Vec<Candidate> = (0..20)
            .map(|id| candidate(&format!("m{id:02}"), 1))
            .collect();
        let level = |place: usize| 0.9 - 0.03 * place as f64;
        // Each model is lucky in one resample, and unlucky in another. The error of a difference
        // shrinks with the samples.
        let of = |place: usize, samples: u64| {
            let mut resampled = vec![level(place) as f32; 40];
            let spread = 0.45 / (samples as f32 / 128.0);
            resampled[place] += spread;
            resampled[place + 20] -= spread;
            let Ok(scores) = scores(samples, level(place), &[]) else {
                unreachable!()
            };
            Ok(Scores {
                resampled,
                ..scores
            })
        };
        let (asked, order) = run(&candidates, 5_000, of);
        let round = |samples| asked.iter().filter(|one| one.1 == samples).count();
        let counts = [128, 256, 512, SAMPLES].map(round);
        assert_eq!(counts[0], 20);
        assert!(counts[1] < 20 && counts[1] > RACE_ABOVE, "{counts:?}");
        assert!(counts[3] <= RACE_ABOVE && counts[3] > 0, "{counts:?}");
        // However few samples a model was scored on, better ones are before it.
        let ids: Vec<String> = (0..20).map(|id| format!("m{id:02}")).collect();
        assert_eq!(names(&candidates, &order), ids);
        assert_eq!(order.ranked[0].scores.samples, SAMPLES);
        assert_eq!(order.ranked[19].scores.samples, 128);
        // No more candidates than a race needs, or samples that a first round would be most of.
        let (asked, _) = run(&candidates[..RACE_ABOVE], 5_000, of);
        assert!(asked.iter().all(|one| one.1 == SAMPLES) && asked.len() == RACE_ABOVE);
        assert_eq!(earlier_rounds(RACE_ABOVE, SAMPLES), [0; 0]);
        assert_eq!(earlier_rounds(20, SAMPLES), RACE_SAMPLES);
        assert_eq!(earlier_rounds(20, 512), [128, 256]);
        assert_eq!(earlier_rounds(20, 128), [0; 0]);
        let (asked, _) = run(&candidates, 255, of);
        assert!(asked.iter().all(|one| one.1 == 255) && asked.len() == 20);
        let (asked, _) = run(&candidates, 256, of);
        assert!(asked[0].1 == 128 && asked.len() > 20);
    }

    #[test]
    fn a_model_that_cannot_be_scored_is_excluded_with_the_reason() {
        let candidates = ["a", "b"].map(|id| candidate(id, 1));
        let of = |place, samples| match place {
            0 => Err(Failure::permanent("out_of_memory", "memory ran out")),
            _ => scores(samples, 0.5, &[]),
        };
        let (_, order) = run(&candidates, 100, of);
        assert_eq!(names(&candidates, &order), ["b"]);
        assert_eq!(order.failed[0].model, "a");
        assert_eq!(order.failed[0].reason, ExclusionReason::Failed);
        assert_eq!(order.failed[0].detail, "memory ran out");
    }

    #[test]
    fn every_condition_excludes_with_its_reason() {
        let of = |candidate: Option<Candidate>| BaseModel {
            model: "m".to_owned(),
            architecture: "resnet18".to_owned(),
            candidate,
        };
        let candidate = Candidate {
            input: Input::Image(Preprocessing {
                input_size: 224,
                channels: 3,
                crop_fraction: 1.0,
                interpolation: Interpolation::Bilinear,
                mean: vec![0.5; 3].into(),
                std: vec![0.5; 3].into(),
            }),
            license: Some("MIT".to_owned()),
            parameters: 10,
            ..candidate("m", 20)
        };
        let model = of(Some(candidate.clone()));
        let list = |name: &str| Some(vec![name.to_owned()]);
        let none = CandidateOptions::default();
        let named = CandidateOptions {
            models: list("m"),
            architectures: list("resnet18"),
            licenses: list("MIT"),
            max_parameters: Some(10),
            max_macs: Some(20),
        };
        for options in [&none, &named] {
            assert_eq!(options.excludes(&model, Modality::Image), None);
        }
        let other = list("other");
        for (options, reason) in [
            (
                CandidateOptions {
                    models: other.clone(),
                    ..named.clone()
                },
                ExclusionReason::NotNamed,
            ),
            (
                CandidateOptions {
                    architectures: other.clone(),
                    ..named.clone()
                },
                ExclusionReason::NotNamed,
            ),
            (
                CandidateOptions {
                    licenses: other.clone(),
                    ..named.clone()
                },
                ExclusionReason::License,
            ),
            (
                CandidateOptions {
                    max_parameters: Some(9),
                    ..named.clone()
                },
                ExclusionReason::Parameters,
            ),
            (
                CandidateOptions {
                    max_macs: Some(19),
                    ..named.clone()
                },
                ExclusionReason::Macs,
            ),
        ] {
            let excluded = options.excludes(&model, Modality::Image).unwrap();
            assert_eq!((excluded.model.as_str(), excluded.reason), ("m", reason));
        }
        let excluded = none.excludes(&model, Modality::Text).unwrap();
        assert_eq!(excluded.reason, ExclusionReason::Modality);
        let importing = of(None);
        let excluded = none.excludes(&importing, Modality::Image).unwrap();
        assert_eq!(excluded.reason, ExclusionReason::NotReady);
        let unlicensed = of(Some(Candidate {
            license: None,
            ..candidate
        }));
        let excluded = named.excludes(&unlicensed, Modality::Image).unwrap();
        assert_eq!(excluded.detail, "its license is not known");
    }
}
