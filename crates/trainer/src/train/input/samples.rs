//! The samples of a run: one pack, or a second one that is the validation split. Samples are
//! numbered through both.

use std::io::ErrorKind;

use tch::{Device, Tensor};

use crate::{
    data::{
        pack::{Pack, PackError},
        target::Target,
    },
    domain::{
        file::{Split, TargetStatistics},
        recipe::Task,
        work::TrainPlan,
    },
    process::error::TrainError,
};

/// A pack, and its SHA-256 in lower-case hex.
#[derive(Debug)]
pub struct Source {
    pub pack: Pack,
    pub sha256: String,
}

/// Targets of every sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Indices into the classes.
    Class(Vec<usize>),
    /// Ascending indices into the classes.
    Classes(Vec<Vec<usize>>),
    /// In their own unit.
    Value(Vec<f64>),
}

/// Scale of a regression's targets: training sees `(value - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub mean: f64,
    /// Not 0.
    pub std: f64,
}

#[derive(Debug)]
pub struct Samples {
    pub sources: Vec<Source>,
    /// In label order: the training pack's, or those that the job goes on with.
    pub classes: Vec<String>,
    pub targets: Targets,
    pub train: Vec<usize>,
    pub validation: Vec<usize>,
    pub test: Vec<usize>,
}

impl Samples {
    /// Opens the plan's packs. With a validation pack, all of it validates, by class name, and what
    /// the training pack had put aside to validate trains too.
    ///
    /// # Errors
    /// `Data` for a pack that cannot be read or is for another task than the recipe, an empty
    /// split, or a class that the training pack lacks.
    pub fn open(plan: &TrainPlan) -> Result<Self, TrainError> {
        let unreadable = |error: PackError| match &error {
            PackError::Io { source, .. } if source.kind() == ErrorKind::OutOfMemory => {
                TrainError::OutOfMemory(error.to_string())
            }
            _ => TrainError::Data(error.to_string()),
        };
        let pack = Pack::open(&plan.pack).map_err(unreadable)?;
        if pack.task() != plan.recipe.task {
            return Err(TrainError::Data(format!(
                "the data set is for {}, but the recipe is for {}; choose data of that task",
                pack.task().as_str(),
                plan.recipe.task.as_str()
            )));
        }
        let classes = match &plan.recipe.inherited {
            Some(inherited) => inherited.labels.clone(),
            None => pack.classes().to_vec(),
        };
        let places = places(&pack, &classes, "training")?;
        let mut samples = Self {
            classes,
            targets: Targets::of(&pack, &places),
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
                    "the data have no sample to {name} on; add samples, or give a validation file"
                )));
            }
        }
        Ok(samples)
    }

    fn add_validation(&mut self, source: Source) -> Result<(), TrainError> {
        let places = places(&source.pack, &self.classes, "validation")?;
        self.train.append(&mut self.validation);
        self.train.sort_unstable();
        let first = self.count();
        if !self.targets.append(Targets::of(&source.pack, &places)) {
            return Err(TrainError::Data(
                "the validation file is for another task than the training file; give a file of the same task".to_owned(),
            ));
        }
        self.validation = (first..self.count()).collect();
        self.sources.push(source);
        Ok(())
    }

    /// The path of a sample in the uploaded archive.
    pub fn path(&self, sample: usize) -> &str {
        let (source, place) = locate(&self.sources, |source| source.pack.len(), sample);
        source.pack.path(place)
    }

    /// Number of samples in all splits.
    pub fn count(&self) -> usize {
        match &self.targets {
            Targets::Class(all) => all.len(),
            Targets::Classes(all) => all.len(),
            Targets::Value(all) => all.len(),
        }
    }

    /// Number of outputs for a sample.
    pub fn outputs(&self) -> usize {
        match self.targets {
            Targets::Value(_) => 1,
            _ => self.classes.len(),
        }
    }

    /// Scale of a regression's training split; mean 0 and deviation 1 in other tasks.
    pub fn scale(&self) -> Scale {
        let training = match &self.targets {
            Targets::Value(values) => self.train.iter().map(|&sample| values[sample]).collect(),
            Targets::Class(_) | Targets::Classes(_) => Vec::new(),
        };
        let found = TargetStatistics::of(&training);
        let (mean, std) = found.map_or((0.0, 1.0), |found| (found.mean, found.std));
        Scale {
            mean,
            std: if std > 0.0 { std } else { 1.0 },
        }
    }

    /// The split that a finished model is reported on.
    pub fn report_split(&self) -> (Split, &[usize]) {
        if self.test.is_empty() {
            (Split::Validation, &self.validation)
        } else {
            (Split::Test, &self.test)
        }
    }

    /// The most common label of the training split, the first of equally common ones. 0 where
    /// samples have no single label.
    pub fn majority_label(&self) -> usize {
        let Targets::Class(labels) = &self.targets else {
            return 0;
        };
        let mut counts = vec![0u64; self.classes.len()];
        for &sample in &self.train {
            counts[labels[sample]] += 1;
        }
        let labels = (0..counts.len()).rev();
        labels.max_by_key(|&label| counts[label]).unwrap_or(0)
    }
}

/// Which of `sources`, of `len` samples each, has the sample of this number, and its number there.
pub(super) fn locate<T>(
    sources: &[T],
    len: impl Fn(&T) -> usize,
    mut sample: usize,
) -> (&T, usize) {
    for source in sources {
        if sample < len(source) {
            return (source, sample);
        }
        sample -= len(source);
    }
    unreachable!("samples are numbered through the sources: this is a bug")
}

/// Numbers as torch takes them: i64 on the device.
pub fn indices(numbers: &[usize], device: Device) -> Tensor {
    let numbers: Vec<i64> = numbers.iter().map(|&number| number as i64).collect();
    Tensor::from_slice(&numbers).to_device(device)
}

/// These rows of a table, such as the features of some samples.
pub fn select(table: &Tensor, rows: &[usize]) -> Tensor {
    table.index_select(0, &indices(rows, table.device()))
}

impl Scale {
    /// A number as training sees it.
    pub fn deviation(self, value: f64) -> f64 {
        (value - self.mean) / self.std
    }
}

impl Targets {
    /// Targets of a pack, whose class `n` is our class `labels[n]`.
    fn of(pack: &Pack, labels: &[usize]) -> Self {
        let all = (0..pack.len()).map(|sample| pack.target(sample));
        let label = |&class: &usize| labels[class];
        match pack.task() {
            Task::SingleLabelClassification => {
                Self::Class(all.map(|target| label(&target.classes()[0])).collect())
            }
            Task::MultiLabelClassification => {
                let ascending = |target: Target| {
                    let mut labels: Vec<usize> = target.classes().iter().map(label).collect();
                    labels.sort_unstable();
                    labels
                };
                Self::Classes(all.map(ascending).collect())
            }
            Task::Regression => {
                let value = |target| match target {
                    Target::Value(value) => value,
                    _ => unreachable!("a pack has targets of its task: this is a bug"),
                };
                Self::Value(all.map(value).collect())
            }
        }
    }

    /// Appends other targets. Returns false when they are of another kind.
    fn append(&mut self, others: Self) -> bool {
        match (self, others) {
            (Self::Class(all), Self::Class(mut more)) => all.append(&mut more),
            (Self::Classes(all), Self::Classes(mut more)) => all.append(&mut more),
            (Self::Value(all), Self::Value(mut more)) => all.append(&mut more),
            _ => return false,
        }
        true
    }
}

/// The label of each of a pack's classes, by name.
fn places(pack: &Pack, classes: &[String], file: &str) -> Result<Vec<usize>, TrainError> {
    let place = |class: &String| {
        let place = classes.iter().position(|known| known == class);
        place.ok_or_else(|| {
            TrainError::Data(format!(
                "the {file} file has the class `{class}`, which is not one of the labels; add it to the training file, or remove its samples"
            ))
        })
    };
    pack.classes().iter().map(place).collect()
}
