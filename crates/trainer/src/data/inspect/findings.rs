//! What the images of an upload add up to: errors, warnings, splits and counts. Pure.

use std::collections::BTreeMap;

use crate::{
    data::{archive::Entry, codes, image::DecodeError, layout::Layout, split},
    domain::{
        file::{Class, Dataset, FileReport, Split, SplitSizes},
        problem::Problem,
    },
};

/// An image that was decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    /// In pixels, upright.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Of the encoded bytes.
    pub(super) sha256: [u8; 32],
}

/// The report, and the split of each file in a class's folder (of no meaning for those that are unusable).
pub(super) struct Verdict {
    pub(super) report: FileReport,
    pub(super) splits: Vec<Split>,
}

/// Judges an upload. `images` are what became of `layout.files`; `max_warnings` is how many warnings are listed.
pub(super) fn judge(
    entries: &[Entry],
    layout: &Layout,
    images: &[Result<Image, DecodeError>],
    max_warnings: u64,
) -> Verdict {
    let mut warnings = Warnings {
        listed: Vec::new(),
        omitted: 0,
        max: max_warnings,
    };
    let files = Files {
        entries,
        layout,
        images,
    };
    let mut splits = vec![Split::Train; images.len()];
    let mut errors = files.check_classes();
    let mut dataset = None;
    if errors.is_empty() {
        let (duplicates, copies) = files.duplicates(&mut warnings);
        let split_by = files.split(&copies, &mut splits, &mut warnings);
        let counts = files.count(&splits);
        errors.extend(check_splits(&layout.classes, &counts, &mut warnings));
        dataset = Some(files.dataset(counts, split_by, duplicates));
    }
    files.report_unusable(&mut warnings);
    let dataset = dataset.filter(|_| errors.is_empty());
    let report = FileReport {
        dataset,
        errors,
        warnings: warnings.listed,
        warnings_omitted: warnings.omitted,
    };
    Verdict { report, splits }
}

/// Warnings, up to a number.
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
}

/// Indices of usable files with the same bytes, ascending, by hash.
type Copies = BTreeMap<[u8; 32], Vec<usize>>;

impl Files<'_> {
    fn path(&self, file: usize) -> &str {
        &self.entries[self.layout.files[file].entry].path
    }

    /// Usable files: index, label and image.
    fn usable(&self) -> impl Iterator<Item = (usize, usize, &Image)> {
        let files = self.layout.files.iter().zip(self.images).enumerate();
        files.filter_map(|(file, (placed, image))| Some((file, placed.label, image.as_ref().ok()?)))
    }

    /// Errors of the data set as a whole: nothing usable, one class, empty classes.
    fn check_classes(&self) -> Vec<Problem> {
        let classes = &self.layout.classes;
        let mut usable = vec![0_u64; classes.len()];
        for (_, label, _) in self.usable() {
            usable[label] += 1;
        }
        if let [only] = &classes[..] {
            let message = format!(
                "there is only one class, {only:?}; a classifier needs at least two: a folder of images for each"
            );
            return vec![Problem::new(only, codes::ONE_CLASS, message)];
        }
        let first_bad = self
            .images
            .iter()
            .enumerate()
            .find_map(|(file, image)| Some((file, image.as_ref().err()?)));
        if let (Some((file, error)), true) = (first_bad, usable.iter().all(|&count| count == 0)) {
            let message = format!(
                "none of the {} files in class folders is a usable image; the first: {error}",
                self.images.len()
            );
            return vec![Problem::new(
                self.path(file),
                codes::NO_USABLE_IMAGES,
                message,
            )];
        }
        let mut found = vec![0_u64; classes.len()];
        for file in &self.layout.files {
            found[file.label] += 1;
        }
        let empty = (0..classes.len()).filter(|&label| usable[label] == 0);
        empty
            .map(|label| {
                let message = match found[label] {
                    0 => "this class's folder is empty; add images, or remove the folder".to_owned(),
                    count => format!("none of the {count} files of this class is a usable image; replace them, or remove the folder"),
                };
                Problem::new(&classes[label], codes::EMPTY_CLASS, message)
            })
            .collect()
    }

    /// Finds files with the same bytes, and warns of them. Counts those whose bytes occur more than once.
    fn duplicates(&self, warnings: &mut Warnings) -> (u64, Copies) {
        let mut copies = Copies::new();
        for (file, _, image) in self.usable() {
            copies.entry(image.sha256).or_default().push(file);
        }
        let mut repeated: Vec<&Vec<usize>> =
            copies.values().filter(|files| files.len() > 1).collect();
        repeated.sort();
        let label = |file: usize| self.layout.files[file].label;
        let (conflicting, plain): (Vec<&Vec<usize>>, Vec<&Vec<usize>>) = repeated
            .iter()
            .partition(|files| files.iter().any(|&file| label(file) != label(files[0])));
        for files in conflicting {
            let message = format!(
                "the same image is in different classes: {}; keep the right one",
                self.others(files)
            );
            warnings.push(Problem::new(
                self.path(files[0]),
                codes::CONFLICTING_DUPLICATES,
                message,
            ));
        }
        for files in plain {
            let message = format!(
                "the same image is here {} times: {}",
                files.len(),
                self.others(files)
            );
            warnings.push(Problem::new(
                self.path(files[0]),
                codes::DUPLICATE_IMAGE,
                message,
            ));
        }
        (
            repeated.iter().map(|files| files.len() as u64).sum(),
            copies,
        )
    }

    /// The copies of a file, some of them.
    fn others(&self, files: &[usize]) -> String {
        let shown: Vec<String> = files[1..]
            .iter()
            .take(3)
            .map(|&file| format!("also {:?}", self.path(file)))
            .collect();
        let more = files.len() - 1 - shown.len();
        if more > 0 {
            format!("{} and {more} more", shown.join(", "))
        } else {
            shown.join(", ")
        }
    }

    /// Settles each file's split, by folders or else by hash; says which.
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
                warnings.push(Problem::new(
                    self.path(files[0]),
                    codes::SPLIT_LEAK,
                    message,
                ));
            }
            for &file in files {
                splits[file] = first;
            }
        }
        if self
            .usable()
            .any(|(file, _, _)| splits[file] == Split::Validation)
        {
            return "folders";
        }
        let to_split: Vec<(usize, ([u8; 32], usize))> = self
            .usable()
            .filter(|&(file, _, _)| splits[file] == Split::Train)
            .map(|(file, label, image)| (file, (image.sha256, label)))
            .collect();
        let sides = split::by_hash(
            &to_split
                .iter()
                .map(|&(_, sample)| sample)
                .collect::<Vec<_>>(),
        );
        for ((file, _), side) in to_split.into_iter().zip(sides) {
            splits[file] = side;
        }
        "hash"
    }

    fn count(&self, splits: &[Split]) -> Vec<SplitSizes> {
        let mut counts = vec![SplitSizes::default(); self.layout.classes.len()];
        for (file, label, _) in self.usable() {
            *counts[label].of_mut(splits[file]) += 1;
        }
        counts
    }

    fn dataset(&self, counts: Vec<SplitSizes>, split_by: &str, duplicates: u64) -> Dataset {
        let total = |split: Split| counts.iter().map(|sizes| sizes.of(split)).sum();
        let splits = SplitSizes {
            train: total(Split::Train),
            validation: total(Split::Validation),
            test: total(Split::Test),
        };
        let usable = self.usable().count();
        let classes = self.layout.classes.iter().zip(counts).map(
            |(
                name,
                SplitSizes {
                    train,
                    validation,
                    test,
                },
            )| Class {
                name: name.clone(),
                train,
                validation,
                test,
            },
        );
        Dataset {
            modality: "image".to_owned(),
            task: "single_label_classification".to_owned(),
            classes: classes.collect(),
            samples: usable as u64,
            splits,
            split_by: split_by.to_owned(),
            unusable: (self.images.len() - usable + self.layout.outside.len()) as u64,
            duplicates,
        }
    }

    fn report_unusable(&self, warnings: &mut Warnings) {
        for (file, image) in self.images.iter().enumerate() {
            if let Err(error) = image {
                warnings.push(Problem::new(
                    self.path(file),
                    error.code(),
                    error.to_string(),
                ));
            }
        }
        for &entry in &self.layout.outside {
            let message = "this file is in no class's folder and is left out";
            warnings.push(Problem::new(
                &self.entries[entry].path,
                codes::OUTSIDE_CLASS_FOLDER,
                message,
            ));
        }
    }
}

/// Errors and warnings about classes that a split lacks.
fn check_splits(
    classes: &[String],
    counts: &[SplitSizes],
    warnings: &mut Warnings,
) -> Vec<Problem> {
    let mut errors = Vec::new();
    for (name, sizes) in classes.iter().zip(counts) {
        if sizes.train == 0 {
            let message = "this class has no image to train on; add some to its folder in `train`, or remove the class";
            errors.push(Problem::new(name, codes::EMPTY_CLASS, message));
        } else if sizes.validation == 0 {
            let message = "this class has no image in the validation split, so how well it is told apart is not measured; add images";
            warnings.push(Problem::new(name, codes::CLASS_NOT_VALIDATED, message));
        }
    }
    if errors.is_empty() && counts.iter().all(|sizes| sizes.validation == 0) {
        let message =
            "no class has two different images, so there is nothing to validate on; add images";
        errors.push(Problem::new("", codes::TOO_FEW_IMAGES, message));
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
