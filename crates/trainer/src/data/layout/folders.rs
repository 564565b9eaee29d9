//! From paths to classes and splits: a folder per class, optionally inside `train`, `val` and
//! `test`. Pure.

use std::{collections::BTreeSet, ops::Bound};

use super::{
    names,
    placed::{Layout, Placed, SaidBy},
};
use crate::{
    data::{archive::Entry, codes, target::Target},
    domain::{file::Split, limits, problem::Problem, recipe::Task},
};

/// Finds classes and splits.
///
/// A single folder around everything is skipped, repeatedly. If then every folder is called
/// `train`, `val`, `valid`, `validation` or `test` (in any case) and has folders inside, these are
/// the splits; otherwise every folder is a class. Files of a class may lie in subfolders.
///
/// # Errors
/// No class folders, split folders mixed with others, or class names that cannot be used.
pub fn read(entries: &[Entry], folders: &[String]) -> Result<Layout, Vec<Problem>> {
    let tree = Tree::new(entries, folders);
    let root = tree.root();
    let tops = tree.folders_in(&root);
    let splits: Vec<(&str, Option<Split>)> =
        tops.iter().map(|&top| (top, split_named(top))).collect();
    let has_inner = |top: &str| !tree.folders_in(&format!("{root}{top}/")).is_empty();
    let named = splits
        .iter()
        .filter(|(top, split)| split.is_some() && has_inner(top));
    let named: Vec<&str> = named.map(|(top, _)| *top).collect();
    let by_folder = !named.is_empty() && splits.iter().all(|(_, split)| split.is_some());
    if !by_folder && !named.is_empty() {
        let others = splits.iter().filter(|(_, split)| split.is_none());
        let others: Vec<&str> = others.map(|(top, _)| *top).collect();
        return Err(vec![ambiguous(&named, &others)]);
    }
    if by_folder && splits.iter().all(|(_, split)| *split != Some(Split::Train)) {
        let message = "there are folders for validation or test, but none called `train`; add one with a folder per class";
        return Err(vec![Problem::new(root, codes::NO_TRAINING_SPLIT, message)]);
    }

    let class_folders: BTreeSet<&str> = if by_folder {
        tops.iter()
            .flat_map(|top| tree.folders_in(&format!("{root}{top}/")))
            .collect()
    } else {
        tops.iter().copied().collect()
    };
    let problems = check_names(&class_folders);
    if !problems.is_empty() {
        return Err(problems);
    }
    let classes: Vec<String> = class_folders.iter().map(|&name| name.to_owned()).collect();
    let mut layout = Layout {
        task: Task::SingleLabelClassification,
        said_by: SaidBy::Folders,
        classes,
        files: Vec::new(),
        outside: Vec::new(),
    };
    for (index, entry) in entries.iter().enumerate() {
        match place(&entry.path, &root, by_folder, &layout.classes) {
            Some((label, split)) => layout.files.push(Placed {
                entry: index,
                target: Target::Class(label),
                split,
            }),
            None => layout.outside.push(index),
        }
    }
    Ok(layout)
}

fn place(
    path: &str,
    root: &str,
    by_folder: bool,
    classes: &[String],
) -> Option<(usize, Option<Split>)> {
    let mut rest = path.strip_prefix(root)?;
    let mut split = None;
    if by_folder {
        let (top, below) = rest.split_once('/')?;
        split = split_named(top);
        rest = below;
    }
    let (class, _) = rest.split_once('/')?;
    let label = classes.binary_search_by(|name| name.as_str().cmp(class));
    Some((label.ok()?, split))
}

pub(in crate::data) fn split_named(folder: &str) -> Option<Split> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

fn ambiguous(named: &[&str], others: &[&str]) -> Problem {
    let shown = |names: &[&str]| {
        let names = names.iter().take(5).map(|name| format!("{name:?}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let message = format!(
        "the folders {} look like splits, but {} beside them do not; move or remove these, or rename the others if \
         they are classes",
        shown(named),
        shown(others)
    );
    Problem::new("", codes::AMBIGUOUS_LAYOUT, message)
}

fn check_names(names: &BTreeSet<&str>) -> Vec<Problem> {
    if names.len() > limits::CLASSES {
        let message = format!(
            "there are {} class folders, more than {}; is every image in a folder of its own?",
            names.len(),
            limits::CLASSES
        );
        return vec![Problem::new("", codes::TOO_MANY_CLASSES, message)];
    }
    if names.is_empty() {
        let message = "there are no folders in the archive; put the images of each class in a folder that has the class's name: `cats/1.jpg`, `dogs/1.jpg`, or add a manifest.csv with the columns `path` and `label`";
        return vec![Problem::new("", codes::NO_CLASS_FOLDERS, message)];
    }
    let problem = |bad: names::BadName<'_>| {
        let message = match bad.code {
            codes::INVALID_CLASS_NAME => format!("{}; rename the folder", bad.why),
            _ => bad.why.clone(),
        };
        Problem::new(bad.shown(), bad.code, message)
    };
    names::check(names).into_iter().map(problem).collect()
}

/// The folders of an archive, listed or implied: each with a slash at its end.
struct Tree<'a> {
    folders: BTreeSet<&'a str>,
}

impl<'a> Tree<'a> {
    fn new(entries: &'a [Entry], listed: &'a [String]) -> Self {
        let mut folders = BTreeSet::new();
        let paths = entries.iter().map(|entry| &entry.path);
        for path in paths.chain(listed) {
            folders.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
        }
        folders.extend(listed.iter().map(String::as_str));
        Self { folders }
    }

    /// Names of the folders directly in `parent`, which is empty or ends in a slash.
    fn folders_in(&self, parent: &str) -> Vec<&'a str> {
        let from_parent = self
            .folders
            .range::<str, _>((Bound::Included(parent), Bound::Unbounded));
        from_parent
            .map_while(|folder| folder.strip_prefix(parent))
            .filter(|name| !name.contains('/'))
            .collect()
    }

    /// The folder that holds the classes or splits; empty or with a slash at its end.
    fn root(&self) -> String {
        let mut root = String::new();
        loop {
            let inside = self.folders_in(&root);
            let [only] = inside[..] else { return root };
            let deeper = format!("{root}{only}/");
            if split_named(only).is_some() || self.folders_in(&deeper).is_empty() {
                return root;
            }
            root = deeper;
        }
    }
}
