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
/// A single folder around everything is skipped, repeatedly. Folders that are called `train`, `val`
/// or `test`, or whose names say so beside each other (`seg_train` and `seg_test`, `train` and
/// `test1`), are splits, which hold a folder per class; otherwise every folder is a class. Files of
/// a class may lie in subfolders.
///
/// # Errors
/// No class folders, split folders mixed with others, or class names that cannot be used.
pub fn read(entries: &[Entry], folders: &[String]) -> Result<Layout, Vec<Problem>> {
    let tree = Tree::new(entries, folders);
    let root = tree.root();
    let places = match splits(&tree, &root).map_err(|problem| vec![problem])? {
        Some(splits) => splits,
        None => vec![Place {
            folder: root,
            split: None,
        }],
    };
    let class_folders: BTreeSet<&str> = places
        .iter()
        .flat_map(|place| tree.folders_in(&place.folder))
        .collect();
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
        match place(&entry.path, &places, &layout.classes) {
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

/// A folder that holds class folders.
struct Place {
    /// Empty, or with a slash at its end.
    folder: String,
    split: Option<Split>,
}

fn place(path: &str, places: &[Place], classes: &[String]) -> Option<(usize, Option<Split>)> {
    places.iter().find_map(|place| {
        let (class, _) = path.strip_prefix(&place.folder)?.split_once('/')?;
        let label = classes.binary_search_by(|name| name.as_str().cmp(class));
        Some((label.ok()?, place.split))
    })
}

/// The split folders in `root`; `None` where its folders are classes.
fn splits(tree: &Tree<'_>, root: &str) -> Result<Option<Vec<Place>>, Problem> {
    let tops = tree.folders_in(root);
    let inner = |top: &str| tree.folders_in(&format!("{root}{top}/"));
    let said = match said_splits(&tops) {
        said if said.contains(&Some(Split::Train)) => said,
        said => held_out_beside(&tops, &inner).unwrap_or(said),
    };
    let named = |with_inner: bool| {
        let tops = tops.iter().zip(&said);
        let named =
            tops.filter(|(top, split)| split.is_some() && !(with_inner && inner(top).is_empty()));
        named.map(|(top, _)| *top).collect::<Vec<_>>()
    };
    let (all_named, with_classes) = (named(false), named(true));
    if all_named.len() < tops.len() {
        if with_classes.is_empty() {
            return Ok(None);
        }
        let others: Vec<&str> = tops
            .into_iter()
            .filter(|top| !all_named.contains(top))
            .collect();
        return Err(ambiguous(&with_classes, &others));
    }
    if with_classes.is_empty() {
        return if tops.len() > 1 {
            Err(no_classes(root, &tops))
        } else {
            Ok(None)
        };
    }
    if !said.contains(&Some(Split::Train)) {
        let message = "there are folders for validation or test, but none called `train`; add one with a folder per class";
        return Err(Problem::new(root, codes::NO_TRAINING_SPLIT, message));
    }
    let places = tops.iter().zip(said).map(|(top, split)| Place {
        folder: tree.undoubled(root, top),
        split,
    });
    Ok(Some(places.collect()))
}

/// The split that each folder's name says: the word itself; or a name with that word in it, where
/// one says `train` and another does not.
fn said_splits(tops: &[&str]) -> Vec<Option<Split>> {
    let inside: Vec<_> = tops.iter().map(|top| split_inside(top)).collect();
    let is_train = |split: &&Option<Split>| **split == Some(Split::Train);
    let named = inside.iter().filter(|split| split.is_some()).count();
    let train = inside.iter().filter(is_train).count();
    if train > 0 && train < named {
        return inside;
    }
    tops.iter().map(|top| split_named(top)).collect()
}

/// The splits where the folder to train on has another name: `rps` beside `rps-test-set`, with the
/// same classes in both.
fn held_out_beside<'a>(
    tops: &[&'a str],
    inner: &impl Fn(&str) -> Vec<&'a str>,
) -> Option<Vec<Option<Split>>> {
    let mut said: Vec<_> = tops.iter().map(|top| split_inside(top)).collect();
    let unnamed: Vec<usize> = (0..tops.len()).filter(|&top| said[top].is_none()).collect();
    let &[only] = &unnamed[..] else { return None };
    let classes = inner(tops[only]);
    let alike = tops.len() > 1 && classes.len() > 1 && tops.iter().all(|top| inner(top) == classes);
    said[only] = Some(Split::Train);
    alike.then_some(said)
}

pub(in crate::data) fn split_named(folder: &str) -> Option<Split> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// The split whose word is in the name: `seg_train`, `test1`, `rps-test-set`.
pub(in crate::data) fn split_inside(folder: &str) -> Option<Split> {
    let mut words = folder.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(split_named)
}

fn no_classes(root: &str, splits: &[&str]) -> Problem {
    let (shown, first) = (shown(splits), splits[0]);
    let message = format!(
        "the folders {shown} are splits, and the images in them are in no class's folder; put those of each class in \
         a folder that has its name (`{first}/cats/1.jpg`), or add a manifest.csv with the columns `path`, `label` and `split`"
    );
    Problem::new(root, codes::NO_CLASS_FOLDERS, message)
}

fn shown(names: &[&str]) -> String {
    let names = names.iter().take(5).map(|name| format!("{name:?}"));
    names.collect::<Vec<_>>().join(", ")
}

fn ambiguous(named: &[&str], others: &[&str]) -> Problem {
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

    /// `root/top/`, or `root/top/top/` where that is all there is in it, as some programs unpack.
    fn undoubled(&self, root: &str, top: &str) -> String {
        let folder = format!("{root}{top}/");
        if self.folders_in(&folder) == [top] {
            format!("{folder}{top}/")
        } else {
            folder
        }
    }
}
