//! The findings about an upload: errors, warnings, splits and counts. Pure.

use std::collections::BTreeMap;

use crate::{
    data::{
        archive::Entry,
        codes,
        image::DecodeError,
        layout::{Layout, SaidBy},
        split,
        target::Target,
        thumbnails::Thumbnail,
    },
    domain::{
        file::{Class, Dataset, FileReport, Split, SplitSizes, TargetStatistics},
        input::Modality,
        problem::{Code, Problem},
        recipe::Task,
    },
};

/// An image that was decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    /// In pixels, upright.
    pub(super) width: u32,
    pub(super) height: u32,
    /// SHA-256 of the encoded bytes.
    pub(super) sha256: [u8; 32],
    pub(super) thumbnail: Option<Thumbnail>,
}

/// Samples that a problem names.
const SAMPLES: usize = 16;

/// The report, and the split of each file with a target (without meaning for unusable files).
pub(super) struct Verdict {
    pub(super) report: FileReport,
    pub(super) splits: Vec<Split>,
}

/// Reports on an upload. `images` are the decoded `layout.files`; `said` are the warnings from
/// reading the layout; `max_warnings` limits the listed warnings.
pub(super) fn judge(
    entries: &[Entry],
    layout: &Layout,
    images: &[Result<Image, DecodeError>],
    said: Vec<Problem>,
    max_warnings: u64,
) -> Verdict {
    let mut warnings = Warnings {
        listed: Vec::new(),
        omitted: 0,
        max: max_warnings,
    };
    said.into_iter().for_each(|problem| warnings.push(problem));
    let files = Files {
        entries,
        layout,
        images,
        numbers: numbers(images),
    };
    let mut splits = vec![Split::Train; images.len()];
    let mut errors = files.check_usable();
    let mut dataset = None;
    if errors.is_empty() {
        let (duplicates, copies) = files.duplicates(&mut warnings);
        let split_by = files.split(&copies, &mut splits, &mut warnings);
        let (counts, sizes) = files.count(&splits);
        errors.extend(check_classes(layout, &counts, &mut warnings));
        errors.extend(files.check_values(&splits));
        if errors.is_empty() && sizes.validation == 0 {
            let message = "there are no two different images to train on one and validate on the other; add images";
            errors.push(Problem::new("", codes::TOO_FEW_IMAGES, message));
        }
        dataset = Some(files.dataset(counts, sizes, split_by, duplicates));
    }
    files.report_unusable(&mut warnings);
    let dataset = dataset.filter(|_| errors.is_empty());
    if dataset.is_none() {
        // A data set that is refused has no samples.
        let listed = warnings.listed.iter_mut();
        listed.for_each(|problem| problem.samples.clear());
    }
    let report = FileReport {
        dataset,
        errors,
        warnings: warnings.listed,
        warnings_omitted: warnings.omitted,
    };
    Verdict { report, splits }
}

/// Warnings, up to a maximum number.
struct Warnings {
    listed: Vec<Problem>,
    omitted: u64,
    max: u64,
}

impl Warnings {
    fn push(&mut self, problem: Problem) {
        if (self.listed.len() as u64) < self.max {
            self.listed.push(problem)
        } else {
            self.omitted += 1
        }
    }
}

struct Files<'a> {
    entries: &'a [Entry],
    layout: &'a Layout,
    images: &'a [Result<Image, DecodeError>],
    /// The number of each usable file among the samples.
    numbers: Vec<u64>,
}

/// The number of usable images before each.
fn numbers(images: &[Result<Image, DecodeError>]) -> Vec<u64> {
    let mut next = 0;
    let number = |image: &Result<Image, DecodeError>| {
        let number = next;
        next += u64::from(image.is_ok());
        number
    };
    images.iter().map(number).collect()
}

/// Indices of usable files with the same bytes, ascending, by hash.
type Copies = BTreeMap<[u8; 32], Vec<usize>>;

impl Files<'_> {
    fn path(&self, file: usize) -> &str {
        &self.entries[self.layout.files[file].entry].path
    }

    fn target(&self, file: usize) -> &Target {
        &self.layout.files[file].target
    }

    /// A problem with a file.
    fn problem(&self, file: usize, code: Code, message: impl Into<String>) -> Problem {
        Problem::new(self.path(file), code, message)
    }

    /// A problem with usable files that are the same; the first one has its path.
    fn problem_of(&self, files: &[usize], code: Code, message: impl Into<String>) -> Problem {
        let samples = files.iter().take(SAMPLES).map(|&file| self.numbers[file]);
        Problem {
            samples: samples.collect(),
            ..self.problem(files[0], code, message)
        }
    }

    /// Usable files: index and image.
    fn usable(&self) -> impl Iterator<Item = (usize, &Image)> {
        let files = self.images.iter().enumerate();
        files.filter_map(|(file, image)| Some((file, image.as_ref().ok()?)))
    }

    /// The other files: index and error.
    fn unusable(&self) -> impl Iterator<Item = (usize, &DecodeError)> {
        let files = self.images.iter().enumerate();
        files.filter_map(|(file, image)| Some((file, image.as_ref().err()?)))
    }

    /// Usable files with a number: index and number.
    fn values(&self) -> impl Iterator<Item = (usize, f64)> {
        self.usable()
            .filter_map(|(file, _)| match self.target(file) {
                Target::Value(value) => Some((file, *value)),
                _ => None,
            })
    }

    /// Errors of the data set as a whole: nothing usable, one class, empty classes.
    fn check_usable(&self) -> Vec<Problem> {
        let classes = &self.layout.classes;
        if let (Task::SingleLabelClassification, [only]) = (self.layout.task, &classes[..]) {
            let message = format!(
                "there is only one class, {only:?}; a classifier needs at least two, with images of each"
            );
            return vec![Problem::new(only, codes::ONE_CLASS, message)];
        }
        if let (Some((file, error)), None) = (self.unusable().next(), self.usable().next()) {
            let message = format!(
                "none of the {} files with a label is a usable image; the first: {error}",
                self.images.len()
            );
            return vec![self.problem(file, codes::NO_USABLE_IMAGES, message)];
        }
        let (mut found, mut usable) = (vec![0_u64; classes.len()], vec![0_u64; classes.len()]);
        for (file, image) in self.images.iter().enumerate() {
            for &label in self.target(file).classes() {
                found[label] += 1;
                usable[label] += u64::from(image.is_ok());
            }
        }
        let empty = (0..classes.len()).filter(|&label| usable[label] == 0);
        empty
            .map(|label| {
                let message = match found[label] {
                    0 => "this class's folder is empty; add images, or remove the folder".to_owned(),
                    count => format!("none of the {count} files of this class is a usable image; replace them, or remove the class"),
                };
                Problem::new(&classes[label], codes::EMPTY_CLASS, message)
            })
            .collect()
    }

    /// A regression in which all numbers to train on are equal.
    fn check_values(&self, splits: &[Split]) -> Option<Problem> {
        let to_train_on = self
            .values()
            .filter(|(file, _)| splits[*file] == Split::Train);
        let mut values = to_train_on.map(|(_, value)| value);
        let first = values.next()?;
        values.all(|value| value == first).then(|| {
            let message = format!(
                "every sample to train on has the number {first}: there is nothing to learn; add samples with others"
            );
            Problem::new("", codes::CONSTANT_VALUE, message)
        })
    }

    /// Warns of files with the same bytes, and counts files whose bytes occur more than once.
    fn duplicates(&self, warnings: &mut Warnings) -> (u64, Copies) {
        let mut copies = Copies::new();
        for (file, image) in self.usable() {
            copies.entry(image.sha256).or_default().push(file);
        }
        let mut repeated: Vec<&Vec<usize>> =
            copies.values().filter(|files| files.len() > 1).collect();
        repeated.sort();
        let label = |file: usize| self.target(file);
        let (conflicting, plain): (Vec<&Vec<usize>>, Vec<&Vec<usize>>) = repeated
            .iter()
            .partition(|files| files.iter().any(|&file| label(file) != label(files[0])));
        for files in conflicting {
            let message = format!(
                "the same image has different labels: {}; keep the right one",
                self.others(files)
            );
            warnings.push(self.problem_of(files, codes::CONFLICTING_DUPLICATES, message));
        }
        for files in plain {
            let message = format!(
                "the same image is here {} times: {}",
                files.len(),
                self.others(files)
            );
            warnings.push(self.problem_of(files, codes::DUPLICATE_IMAGE, message));
        }
        let count = repeated.iter().map(|files| files.len() as u64).sum();
        (count, copies)
    }

    /// The copies of a file, some of them.
    fn others(&self, files: &[usize]) -> String {
        let others = files[1..].iter().take(3);
        let shown: Vec<String> = others
            .map(|&file| format!("also {:?}", self.path(file)))
            .collect();
        match files.len() - 1 - shown.len() {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }

    /// Assigns each file's split, by the archive or else by hash; returns which.
    fn split(
        &self,
        copies: &Copies,
        splits: &mut [Split],
        warnings: &mut Warnings,
    ) -> &'static str {
        for files in copies.values() {
            let folders = files
                .iter()
                .filter_map(|&file| self.layout.files[file].split);
            let Some(first) = folders.clone().min() else {
                continue;
            };
            if let Some(other) = folders.max().filter(|&other| other != first) {
                let message = format!(
                    "the same image is in `{}` and in `{}`; all copies are used in the first only",
                    word(first),
                    word(other)
                );
                warnings.push(self.problem_of(files, codes::SPLIT_LEAK, message));
            }
            for &file in files {
                splits[file] = first;
            }
        }
        if self
            .usable()
            .any(|(file, _)| splits[file] == Split::Validation)
        {
            return match self.layout.said_by {
                SaidBy::Folders => "folders",
                SaidBy::Manifest => "manifest",
            };
        }
        let strata = self.strata();
        let (files, samples): (Vec<usize>, Vec<([u8; 32], usize)>) = self
            .usable()
            .filter(|&(file, _)| splits[file] == Split::Train)
            .map(|(file, image)| (file, (image.sha256, strata[file])))
            .unzip();
        for (file, side) in files.into_iter().zip(split::by_hash(&samples)) {
            splits[file] = side;
        }
        "hash"
    }

    /// The group that each file is split within: its class; the rarest of several labels, so that
    /// each label is on both sides where possible; one group for all numbers.
    fn strata(&self) -> Vec<usize> {
        let mut counts = vec![0_u64; self.layout.classes.len()];
        for (file, _) in self.usable() {
            for &label in self.target(file).classes() {
                counts[label] += 1;
            }
        }
        let rarest = |file: usize| {
            let labels = self.target(file).classes().iter().copied();
            labels
                .min_by_key(|&label| counts[label])
                .unwrap_or(counts.len())
        };
        (0..self.images.len()).map(rarest).collect()
    }

    /// Usable files by split: of each class, and of all.
    fn count(&self, splits: &[Split]) -> (Vec<SplitSizes>, SplitSizes) {
        let mut counts = vec![SplitSizes::default(); self.layout.classes.len()];
        let mut sizes = SplitSizes::default();
        for (file, _) in self.usable() {
            *sizes.of_mut(splits[file]) += 1;
            for &label in self.target(file).classes() {
                *counts[label].of_mut(splits[file]) += 1;
            }
        }
        (counts, sizes)
    }

    fn dataset(
        &self,
        counts: Vec<SplitSizes>,
        splits: SplitSizes,
        split_by: &str,
        duplicates: u64,
    ) -> Dataset {
        let values: Vec<f64> = self.values().map(|(_, value)| value).collect();
        let usable = self.usable().count();
        let named = self.layout.classes.iter().zip(counts);
        let classes = named.map(|(name, sizes)| Class {
            name: name.clone(),
            train: sizes.train,
            validation: sizes.validation,
            test: sizes.test,
        });
        Dataset {
            modality: Modality::Image,
            task: self.layout.task,
            classes: classes.collect(),
            target: TargetStatistics::of(&values),
            samples: usable as u64,
            splits,
            split_by: split_by.to_owned(),
            unusable: (self.images.len() - usable + self.layout.outside.len()) as u64,
            duplicates,
        }
    }

    fn report_unusable(&self, warnings: &mut Warnings) {
        for (file, error) in self.unusable() {
            warnings.push(self.problem(file, error.code(), error.to_string()));
        }
        let (code, message) = match self.layout.said_by {
            SaidBy::Folders => (
                codes::OUTSIDE_CLASS_FOLDER,
                "this file is in no class's folder and is left out",
            ),
            SaidBy::Manifest => (
                codes::NOT_IN_MANIFEST,
                "the manifest does not name this file, and it is left out",
            ),
        };
        for &entry in &self.layout.outside {
            warnings.push(Problem::new(&self.entries[entry].path, code, message));
        }
    }
}

/// Errors and warnings about classes that a split lacks.
fn check_classes(layout: &Layout, counts: &[SplitSizes], warnings: &mut Warnings) -> Vec<Problem> {
    let mut errors = Vec::new();
    for (name, sizes) in layout.classes.iter().zip(counts) {
        if sizes.train == 0 {
            let place = match layout.said_by {
                SaidBy::Folders => "to its folder in `train`",
                SaidBy::Manifest => "with the split `train`",
            };
            let message = format!(
                "this class has no image to train on; add some {place}, or remove the class"
            );
            errors.push(Problem::new(name, codes::EMPTY_CLASS, message));
        } else if sizes.validation == 0 {
            let message = "this class has no image in the validation split, so how well it is told apart is not measured; add images";
            warnings.push(Problem::new(name, codes::CLASS_NOT_VALIDATED, message));
        }
    }
    errors
}

/// The name of a split's folder.
fn word(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "val",
        Split::Test => "test",
    }
}
