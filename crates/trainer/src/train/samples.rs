//! The samples of a run: one pack, or a second one that is the validation split. Samples are numbered through both.

use crate::{
    data::{pack::Pack, target::Target},
    domain::{file::Split, work::TrainPlan},
};

use super::error::TrainError;

/// A pack, and its SHA-256 in lower-case hex.
#[derive(Debug)]
pub struct Source {
    pub pack: Pack,
    pub sha256: String,
}

#[derive(Debug)]
pub struct Samples {
    pub sources: Vec<Source>,
    /// In label order: the training pack's, or those that the job goes on with.
    pub classes: Vec<String>,
    /// Of every sample.
    pub labels: Vec<usize>,
    pub train: Vec<usize>,
    pub validation: Vec<usize>,
    pub test: Vec<usize>,
}

impl Samples {
    /// Opens the plan's packs. With a validation pack, all of it validates, by class name, and what the training pack
    /// had put aside to validate trains too.
    ///
    /// # Errors
    /// `Data` for a pack that cannot be read, an empty split, or a class without a label.
    pub fn open(plan: &TrainPlan) -> Result<Self, TrainError> {
        let unreadable = |error: crate::data::pack::PackError| TrainError::Data(error.to_string());
        let pack = Pack::open(&plan.pack).map_err(unreadable)?;
        let classes = match &plan.recipe.inherited {
            Some(inherited) => inherited.labels.clone(),
            None => pack.classes().to_vec(),
        };
        let places = places(&pack, &classes, "training")?;
        let mut samples = Self {
            classes,
            labels: labels_of(&pack, &places)?,
            train: pack.samples_of(Split::Train),
            validation: pack.samples_of(Split::Validation),
            test: pack.samples_of(Split::Test),
            sources: vec![Source {
                pack,
                sha256: plan.pack_sha256.clone(),
            }],
        };
        if let Some(path) = &plan.validation_pack {
            let sha256 = plan.validation_pack_sha256.clone().unwrap_or_default();
            samples.add_validation(Source {
                pack: Pack::open(path).map_err(unreadable)?,
                sha256,
            })?;
        }
        for (split, name) in [(&samples.train, "train"), (&samples.validation, "validate")] {
            if split.is_empty() {
                return Err(TrainError::Data(format!(
                    "the data have no sample to {name} on"
                )));
            }
        }
        Ok(samples)
    }

    fn add_validation(&mut self, source: Source) -> Result<(), TrainError> {
        let places = places(&source.pack, &self.classes, "validation")?;
        self.train.append(&mut self.validation);
        self.train.sort_unstable();
        let first = self.labels.len();
        self.labels.extend(labels_of(&source.pack, &places)?);
        self.validation = (first..self.labels.len()).collect();
        self.sources.push(source);
        Ok(())
    }

    /// The split that a finished model is reported on.
    pub fn report_split(&self) -> (Split, &[usize]) {
        if self.test.is_empty() {
            (Split::Validation, &self.validation)
        } else {
            (Split::Test, &self.test)
        }
    }

    /// The commonest label of the training split; of equals the first.
    pub fn majority_label(&self) -> usize {
        let mut counts = vec![0u64; self.classes.len()];
        for &sample in &self.train {
            counts[self.labels[sample]] += 1;
        }
        let most = counts.iter().max().copied().unwrap_or_default();
        counts
            .iter()
            .position(|&count| count == most)
            .unwrap_or_default()
    }
}

/// Each sample's label; `places` are those of the pack's classes.
fn labels_of(pack: &Pack, places: &[usize]) -> Result<Vec<usize>, TrainError> {
    let label = |sample| match pack.target(sample) {
        Target::Class(class) => Ok(places[class]),
        _ => Err(TrainError::Data(
            "the data are not for single-label classification".to_owned(),
        )),
    };
    (0..pack.len()).map(label).collect()
}

/// The label of each of a pack's classes, by name.
fn places(pack: &Pack, classes: &[String], file: &str) -> Result<Vec<usize>, TrainError> {
    let place = |class: &String| {
        let place = classes.iter().position(|known| known == class);
        place.ok_or_else(|| {
            TrainError::Data(format!(
                "the {file} file has a class `{class}` that is none of the labels"
            ))
        })
    };
    pack.classes().iter().map(place).collect()
}
