//! The files of a data set in a repository: which belong to which configuration and split, by the
//! card's `configs`, or else by the names of the files as the hub understands them
//! (<https://huggingface.co/docs/hub/datasets-data-files-configuration>).

use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobBuilder, GlobMatcher};
use serde_json::Value;

use crate::problem::quoted;

/// Where the hub keeps Parquet files that it made of a repository's.
pub const CONVERTED: &str = "refs/convert/parquet";
/// Longest name of a file in a tar, in bytes.
const NAME_BYTES: usize = 100;
/// Configurations or splits that a message lists.
const LISTED: usize = 20;
/// Names of archives.
const ARCHIVES: [&str; 6] = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];
/// Names of images, and of tables beside them.
const IMAGES: [&str; 7] = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".jfif"];
const TABLES: [&str; 4] = [".csv", ".tsv", ".jsonl", ".json"];
/// Words in names of files and folders that stand for a split, by the name of its folder.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The configuration and the split that a request names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part<'a> {
    pub config: Option<&'a str>,
    pub split: Option<&'a str>,
}

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFile {
    /// Its path in the repository.
    pub path: String,
    /// Its name in the tar of several.
    pub name: String,
}

/// Files by split.
type Splits<'a> = BTreeMap<String, Vec<&'a str>>;

/// The files of a data set among those of a repository: Parquet files, one archive, or images.
/// `None`: there are none of these, so that `converted_files` may find some.
///
/// # Errors
/// The end of a sentence about the repository: the part is not clear, or not there; too many files.
pub fn dataset_files(
    paths: &[&str],
    card: &Value,
    part: Part<'_>,
    limit: usize,
) -> Result<Option<Vec<DatasetFile>>, String> {
    // The hub and its cache list the same files in different orders.
    let paths = &*sorted(paths);
    let is_parquet = |path: &&str| ends_with(path, &[".parquet"]);
    let configs = read_configs(card);
    let splits = if configs.is_empty() {
        let parquet = paths.iter().copied().filter(is_parquet);
        let splits = by_names(parquet);
        if !splits.is_empty() {
            choose_config(&["default"], None, part.config)?;
        }
        splits
    } else {
        let names: Vec<&str> = configs.iter().map(|config| &config.name[..]).collect();
        let marked = configs.iter().position(|config| config.is_default);
        let config = &configs[choose_config(&names, marked, part.config)?];
        let splits = config.splits(paths)?;
        let is_whole = splits.values().flatten().all(is_parquet);
        if is_whole { splits } else { Splits::new() }
    };
    if splits.values().any(|paths| !paths.is_empty()) {
        return named_by_split(choose_splits(splits, part.split)?, limit).map(Some);
    }
    if part.config.is_some() || part.split.is_some() {
        return Ok(None);
    }
    let archives: Vec<&str> = paths
        .iter()
        .copied()
        .filter(|path| ends_with(path, &ARCHIVES))
        .collect();
    if let [only] = archives[..] {
        let name = only.rsplit('/').next().unwrap_or(only);
        return Ok(Some(vec![file(only, name)]));
    }
    Ok(images(paths, limit))
}

/// The files of a data set in the branch `CONVERTED`: `CONFIG/SPLIT/NUMBER.parquet`.
///
/// # Errors
/// As `dataset_files`.
pub fn converted_files(
    paths: &[&str],
    part: Part<'_>,
    limit: usize,
) -> Result<Vec<DatasetFile>, String> {
    let paths = sorted(paths);
    let places = paths.iter().filter(|path| ends_with(path, &[".parquet"]));
    let places = places.filter_map(|path| {
        let (config, rest) = path.split_once('/')?;
        let (split, _) = rest.rsplit_once('/')?;
        Some((config, split, *path))
    });
    let places: Vec<(&str, &str, &str)> = places.collect();
    let configs: BTreeSet<&str> = places.iter().map(|(config, ..)| *config).collect();
    let configs: Vec<&str> = configs.into_iter().collect();
    if configs.is_empty() {
        return Err(no_files());
    }
    let config = configs[choose_config(&configs, None, part.config)?];
    let mut splits = Splits::new();
    for (_, split, path) in places.into_iter().filter(|(of, ..)| *of == config) {
        splits.entry(split.to_owned()).or_default().push(path);
    }
    let chosen = choose_splits(splits, part.split)?;
    if let Some((split, _)) = chosen
        .iter()
        .find(|(split, _)| split.starts_with("partial-"))
    {
        return Err(format!(
            "is so large that the hub has only a part of it as Parquet (`{}`); download it, and upload what you need",
            quoted(split)
        ));
    }
    named_by_split(chosen, limit)
}

/// The end of a sentence about a repository without data.
pub fn no_files() -> String {
    "has no Parquet files, no single archive, and no images within `--hub-max-files`; upload the data set instead"
        .to_owned()
}

fn file(path: &str, name: &str) -> DatasetFile {
    DatasetFile {
        path: path.to_owned(),
        name: name.to_owned(),
    }
}

fn sorted<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    paths
}

fn ends_with(path: &str, ends: &[&str]) -> bool {
    let path = path.to_ascii_lowercase();
    ends.iter().any(|end| path.ends_with(end))
}

/// A configuration that a card names.
struct Config<'a> {
    name: String,
    is_default: bool,
    /// Splits with their patterns of paths.
    patterns: Vec<(String, Vec<&'a str>)>,
}

/// The configurations of a card that say which files are theirs.
fn read_configs(card: &Value) -> Vec<Config<'_>> {
    let configs = card.get("configs").and_then(Value::as_array);
    let configs = configs.into_iter().flatten();
    configs.filter_map(read_config).collect()
}

fn read_config(said: &Value) -> Option<Config<'_>> {
    let name = said.get("config_name").and_then(Value::as_str);
    let patterns = match said.get("data_files")? {
        Value::Object(splits) => {
            let splits = splits.iter();
            splits
                .map(|(split, paths)| (split.clone(), texts(paths)))
                .collect()
        }
        Value::Array(items) if items.iter().all(Value::is_object) => items
            .iter()
            .map(|item| {
                let split = item.get("split").and_then(Value::as_str);
                let paths = item.get("path").map(texts).unwrap_or_default();
                (split.unwrap_or("train").to_owned(), paths)
            })
            .collect(),
        paths => vec![("train".to_owned(), texts(paths))],
    };
    Some(Config {
        name: name.unwrap_or("default").to_owned(),
        is_default: said
            .get("default")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        patterns,
    })
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

impl Config<'_> {
    fn splits<'a>(&self, paths: &[&'a str]) -> Result<Splits<'a>, String> {
        let mut splits = Splits::new();
        for (split, patterns) in &self.patterns {
            let found = splits.entry(split.clone()).or_default();
            for pattern in patterns {
                let Some(pattern) = glob(pattern) else {
                    let shown = quoted(pattern);
                    return Err(format!("has a card whose pattern `{shown}` cannot be read"));
                };
                found.extend(paths.iter().copied().filter(|path| pattern.is_match(path)));
            }
            found.sort_unstable();
            found.dedup();
        }
        Ok(splits)
    }
}

/// A pattern of paths: `*` and `?` within a folder's name, `**` across folders, `[…]`, `{a,b}`.
fn glob(pattern: &str) -> Option<GlobMatcher> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Some(glob.ok()?.compile_matcher())
}

/// The folder of the split whose word is in a name.
fn split_in(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(split_of)
}

/// The folder of a split that is called so.
fn split_of(word: &str) -> Option<&'static str> {
    let found = SPLITS.iter().find(|(_, words)| words.contains(&word));
    found.map(|(folder, _)| *folder)
}

/// Files by the words in their names, or else in their folders'; without any, they are for
/// training.
fn by_names<'a>(paths: impl Iterator<Item = &'a str>) -> Splits<'a> {
    let mut splits = Splits::new();
    for path in paths {
        let split = path.rsplit('/').find_map(split_in);
        splits
            .entry(split.unwrap_or("train").to_owned())
            .or_default()
            .push(path);
    }
    splits
}

/// The place of the configuration that is asked for, or else is the only one or the default.
fn choose_config(
    names: &[&str],
    marked: Option<usize>,
    asked: Option<&str>,
) -> Result<usize, String> {
    let find = |wanted: &str| names.iter().position(|name| *name == wanted);
    match asked {
        Some(asked) => find(asked).ok_or_else(|| {
            format!(
                "has no configuration `{}`; it has {}",
                quoted(asked),
                listed(names.iter())
            )
        }),
        None if names.len() == 1 => Ok(0),
        None => marked.or_else(|| find("default")).ok_or_else(|| {
            format!(
                "has several configurations; name one as `config`: {}",
                listed(names.iter())
            )
        }),
    }
}

/// The split that is asked for, or all whose names say what they are for.
fn choose_splits<'a>(
    splits: Splits<'a>,
    asked: Option<&str>,
) -> Result<Vec<(String, Vec<&'a str>)>, String> {
    let splits: Vec<(String, Vec<&str>)> = splits
        .into_iter()
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    let names: Vec<String> = splits.iter().map(|(name, _)| name.clone()).collect();
    let is_known = |name: &str| split_of(name).is_some();
    let chosen: Vec<_> = match asked {
        Some(asked) => splits
            .into_iter()
            .filter(|(name, _)| name == asked)
            .collect(),
        None if splits.len() == 1 => splits,
        None => splits
            .into_iter()
            .filter(|(name, _)| is_known(name))
            .collect(),
    };
    match (chosen.is_empty(), asked) {
        (false, _) => Ok(chosen),
        (true, Some(asked)) => Err(format!(
            "has no split `{}`; it has {}",
            quoted(asked),
            listed(names.iter())
        )),
        (true, None) => Err(format!(
            "has several splits; name one as `split`: {}",
            listed(names.iter())
        )),
    }
}

fn listed(names: impl ExactSizeIterator<Item = impl AsRef<str>>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let names = names
        .take(LISTED)
        .map(|name| format!("`{}`", quoted(name.as_ref())));
    let names = names.collect::<Vec<_>>().join(", ");
    if more > 0 {
        format!("{names} and {more} more")
    } else {
        names
    }
}

/// Files with names in a tar that say their splits.
fn named_by_split(
    splits: Vec<(String, Vec<&str>)>,
    limit: usize,
) -> Result<Vec<DatasetFile>, String> {
    let count: usize = splits.iter().map(|(_, paths)| paths.len()).sum();
    if count > limit {
        return Err(format!(
            "has {count} files in these splits, of which at most {limit} are joined; name a `split`, or have \
             `--hub-max-files` raised"
        ));
    }
    let mut files = Vec::new();
    for (split, paths) in &splits {
        // Words in a file's own name could say another split than the card.
        let folder = split_of(split).unwrap_or("data");
        for path in paths {
            let name = format!("{folder}/{:05}.parquet", files.len());
            files.push(file(path, &name));
        }
    }
    Ok(files)
}

/// Folders of images, with the tables among them; `None` where there are none, or too many files.
fn images(paths: &[&str], limit: usize) -> Option<Vec<DatasetFile>> {
    let is_hidden = |path: &str| path.split('/').any(|part| part.starts_with('.'));
    let wanted = paths
        .iter()
        .copied()
        .filter(|path| !is_hidden(path) && (ends_with(path, &IMAGES) || ends_with(path, &TABLES)));
    let files: Vec<DatasetFile> = wanted.map(|path| file(path, path)).collect();
    let has_images = files.iter().any(|file| ends_with(&file.path, &IMAGES));
    let are_short = files.iter().all(|file| file.name.len() <= NAME_BYTES);
    (has_images && are_short && files.len() <= limit).then_some(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMIT: usize = 10;

    /// Paths of the files, with their names in a tar.
    fn found(paths: &[&str], card: &Value, part: Part<'_>) -> Vec<(String, String)> {
        let files = dataset_files(paths, card, part, LIMIT)
            .unwrap()
            .unwrap_or_default();
        files
            .into_iter()
            .map(|file| (file.path, file.name))
            .collect()
    }

    fn refused(paths: &[&str], card: &Value, part: Part<'_>) -> String {
        dataset_files(paths, card, part, LIMIT).unwrap_err()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
            .collect()
    }

    fn config(name: &str) -> Part<'_> {
        Part {
            config: Some(name),
            split: None,
        }
    }

    fn split(name: &str) -> Part<'_> {
        Part {
            config: None,
            split: Some(name),
        }
    }

    #[test]
    fn splits_are_in_the_names_of_parquet_files() {
        let paths = [
            "README.md",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
            "dev/part.parquet",
        ];
        let train = [
            ("data/train-00000-of-00002.parquet", "train/00001.parquet"),
            ("data/train-00001-of-00002.parquet", "train/00002.parquet"),
        ];
        let all = [
            &[("data/test-00000-of-00001.parquet", "test/00000.parquet")],
            &train[..],
            &[("dev/part.parquet", "validation/00003.parquet")],
        ];
        assert_eq!(
            found(&paths, &Value::Null, Part::default()),
            pairs(&all.concat())
        );
        let only = [
            (train[0].0, "train/00000.parquet"),
            (train[1].0, "train/00001.parquet"),
        ];
        assert_eq!(found(&paths, &Value::Null, split("train")), pairs(&only));
        let message = refused(&paths, &Value::Null, split("extra"));
        assert_eq!(
            message,
            "has no split `extra`; it has `test`, `train`, `validation`"
        );
        let message = refused(&paths, &Value::Null, config("small"));
        assert_eq!(message, "has no configuration `small`; it has `default`");
    }

    #[test]
    fn a_card_says_which_files_are_whose() {
        let card = json!({"configs": [
            {"config_name": "cats", "data_files": [
                {"split": "train", "path": "cats/train-*"},
                {"split": "test", "path": ["cats/**/held-out.parquet", "./cats/x[0-9].parquet"]},
            ]},
            {"config_name": "dogs", "data_files": {"train": "dogs/{a,b}.parquet", "unlabelled": "dogs/u.parquet"}},
            {"config_name": "rest", "data_files": "rest/*.parquet"},
        ]});
        let paths = [
            "cats/train-0.parquet",
            "cats/a/b/held-out.parquet",
            "cats/x1.parquet",
            "cats/xx.parquet",
            "dogs/a.parquet",
            "dogs/c.parquet",
            "dogs/u.parquet",
            "rest/deep/no.parquet",
            "rest/test.parquet",
        ];
        let expected = [
            ("cats/a/b/held-out.parquet", "test/00000.parquet"),
            ("cats/x1.parquet", "test/00001.parquet"),
            ("cats/train-0.parquet", "train/00002.parquet"),
        ];
        assert_eq!(found(&paths, &card, config("cats")), pairs(&expected));
        // Splits that are for nothing known are left out, unless they are named.
        let dogs = [("dogs/a.parquet", "train/00000.parquet")];
        assert_eq!(found(&paths, &card, config("dogs")), pairs(&dogs));
        let named = Part {
            split: Some("unlabelled"),
            ..config("dogs")
        };
        let expected = [("dogs/u.parquet", "data/00000.parquet")];
        assert_eq!(found(&paths, &card, named), pairs(&expected));
        // The card's word comes before that of a file's name.
        let rest = [("rest/test.parquet", "train/00000.parquet")];
        assert_eq!(found(&paths, &card, config("rest")), pairs(&rest));
        let message = refused(&paths, &card, Part::default());
        assert_eq!(
            message,
            "has several configurations; name one as `config`: `cats`, `dogs`, `rest`"
        );
        let mut marked = card.clone();
        marked["configs"][1]["default"] = json!(true);
        assert_eq!(found(&paths, &marked, Part::default()), pairs(&dogs));
        let broken = json!({"configs": [{"data_files": "a[.parquet"}]});
        let message = refused(&paths, &broken, Part::default());
        assert!(
            message.contains("pattern `a[.parquet` cannot be read"),
            "{message}"
        );
    }

    #[test]
    fn without_parquet_an_archive_or_images_are_taken() {
        let archive = ["README.md", "data/pets.tar.gz", "preview.png"];
        let expected = [("data/pets.tar.gz", "pets.tar.gz")];
        assert_eq!(
            found(&archive, &Value::Null, Part::default()),
            pairs(&expected)
        );
        let images = [
            "cats/1.PNG",
            "dogs/2.jpg",
            ".cache/3.jpg",
            "metadata.csv",
            "run.py",
        ];
        let expected = ["cats/1.PNG", "dogs/2.jpg", "metadata.csv"].map(|path| (path, path));
        assert_eq!(
            found(&images, &Value::Null, Part::default()),
            pairs(&expected)
        );
        for nothing in [&["a.zip", "b.zip"][..], &["a.txt"], &[], &["a.csv"]] {
            assert_eq!(found(nothing, &Value::Null, Part::default()), []);
        }
        // A split of an archive is not known from outside.
        assert_eq!(found(&archive, &Value::Null, split("train")), []);
    }

    #[test]
    fn files_are_joined_up_to_the_limit_and_not_beyond() {
        let parquet: Vec<String> = (0..=LIMIT)
            .map(|number| format!("{number}.parquet"))
            .collect();
        let mut paths: Vec<&str> = parquet.iter().map(String::as_str).collect();
        let message = refused(&paths, &Value::Null, Part::default());
        assert!(
            message.starts_with("has 11 files in these splits, of which at most 10"),
            "{message}"
        );
        paths.pop();
        assert_eq!(found(&paths, &Value::Null, Part::default()).len(), LIMIT);
        let images: Vec<String> = (0..=LIMIT).map(|number| format!("{number}.png")).collect();
        let mut paths: Vec<&str> = images.iter().map(String::as_str).collect();
        assert_eq!(found(&paths, &Value::Null, Part::default()).len(), 0);
        paths.pop();
        assert_eq!(found(&paths, &Value::Null, Part::default()).len(), LIMIT);
    }

    #[test]
    fn converted_files_are_told_by_their_folders() {
        let paths = [
            "default/train/0000.parquet",
            "default/validation/0000.parquet",
            "other/partial-train/0000.parquet",
        ];
        let files = converted_files(&paths, Part::default(), LIMIT).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["train/00000.parquet", "validation/00001.parquet"]);
        let message = converted_files(&paths, config("other"), LIMIT).unwrap_err();
        assert!(message.contains("only a part of it"), "{message}");
        let message = converted_files(&["x.txt"], Part::default(), LIMIT).unwrap_err();
        assert_eq!(message, no_files());
    }
}
