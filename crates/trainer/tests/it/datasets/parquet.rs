//! Parquet files: the same samples as from folders, which columns are read, problems with their
//! rows, and damage.

use std::{collections::BTreeMap, fs, path::Path};

use rehead_domain::{file::Split, recipe::Task, work::DatasetLimits};
use rehead_test_support::parquet::{Columns, Values, class_label, file, labelled, nested};
use rehead_trainer::data::target::Target;
use serde_json::json;

use super::{
    Files, LIMITS, Outcome, cats_and_dogs, image, images, tarred, validate, validate_in_a_child,
    validate_within, with, zipped,
};

const CLASSES: [&str; 2] = ["cats", "dogs"];

/// A file with the images of folders, in row groups of `rows` each.
fn of_folders(files: &Files, rows: usize) -> Vec<u8> {
    let label = |path: &str| {
        CLASSES
            .iter()
            .position(|class| path.contains(class))
            .unwrap()
    };
    let images: Vec<(&[u8], i64)> = files
        .iter()
        .map(|(path, bytes)| (&bytes[..], label(path) as i64))
        .collect();
    let groups: Vec<Columns<'_>> = images.chunks(rows).map(labelled).collect();
    file(Some(class_label(&CLASSES)), &groups)
}

/// Split and target of each sample, by the hash of its bytes.
fn samples(outcome: &Outcome) -> BTreeMap<[u8; 32], (Split, Target)> {
    outcome.dataset();
    let pack = outcome.pack();
    let sample = |at| (pack.sha256(at), (pack.split(at), pack.target(at)));
    (0..pack.len()).map(sample).collect()
}

/// A file of images with these other columns, and features.
fn with_columns(features: Option<serde_json::Value>, columns: Columns<'_>) -> Vec<u8> {
    let rows = match &columns[0].1 {
        Values::Text(rows) => rows.len(),
        Values::Integers(rows) => rows.len(),
        Values::Floats(rows) => rows.len(),
        Values::Booleans(rows) => rows.len(),
        Values::Lists(rows) => rows.len(),
        Values::TextLists(rows) => rows.len(),
        Values::Bytes(rows) => rows.len(),
        Values::Images(rows) => rows.len(),
    };
    let images = (0..rows).map(|row| (Some(image(row)), None)).collect();
    let mut all = vec![("image", Values::Images(images))];
    all.extend(columns);
    file(features, &[all])
}

fn text(rows: &[&str]) -> Values {
    Values::Text(rows.iter().map(|row| Some((*row).to_owned())).collect())
}

fn integers(rows: impl IntoIterator<Item = i64>) -> Values {
    Values::Integers(rows.into_iter().map(Some).collect())
}

#[test]
fn parquet_gives_the_samples_of_the_same_folders() {
    let files = cats_and_dogs();
    let folders = validate(zipped(&files));
    let single = validate_in_a_child(of_folders(&files, 7));
    assert_eq!(samples(&single), samples(&folders));
    assert_eq!(single.dataset(), folders.dataset());
    assert!(single.report.warnings.is_empty(), "{:?}", single.report);
    // Numbers of rows, with as many digits each, and the file names that the images had.
    let pack = single.pack();
    assert_eq!([pack.path(0), pack.path(19)], ["01/0.png", "20/5.png"]);

    // Several files in an archive, whose names are splits.
    let parts = [("train", 0, 8), ("val", 100, 4), ("test", 200, 2)];
    let parts = parts.map(|(split, start, count)| (split, images(&CLASSES, start, count)));
    let in_folders: Files = parts
        .iter()
        .flat_map(|(split, files)| {
            files
                .iter()
                .map(move |(path, bytes)| (format!("{split}/{path}"), bytes.clone()))
        })
        .collect();
    let [(_, train), (_, val), (_, test)] = &parts;
    let archive = vec![
        (
            "data/train-00000-of-00002.parquet".to_owned(),
            of_folders(&train[..5].to_vec(), 2),
        ),
        (
            "data/train-00001-of-00002.parquet".to_owned(),
            of_folders(&train[5..].to_vec(), 50),
        ),
        (
            "data/validation-00000-of-00001.parquet".to_owned(),
            of_folders(val, 50),
        ),
        ("test/0000.parquet".to_owned(), of_folders(test, 1)),
        ("README.md".to_owned(), b"# Cats and dogs".to_vec()),
    ];
    let folders = validate(zipped(&in_folders));
    for packed in [tarred(&archive), zipped(&archive)] {
        let several = validate(packed);
        assert_eq!(samples(&several), samples(&folders));
        assert_eq!(several.dataset().split_by, "manifest");
        assert_eq!(several.warnings(), [("not_in_manifest", "README.md")]);
        let paths = several.splits();
        assert_eq!(paths["test/0000.parquet/1/0.png"], Split::Test);
        assert_eq!(
            paths["data/train-00001-of-00002.parquet/01/0.png"],
            Split::Train
        );
    }
}

/// The same images and labels as written by pyarrow and `datasets`, in each compression.
#[test]
fn files_of_pyarrow_and_datasets_are_read() {
    let fixture = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
        fs::read(folder.join(format!("{name}.parquet"))).unwrap()
    };
    let expected = samples(&validate(fixture("none")));
    assert_eq!(expected.len(), 6);
    for name in [
        "snappy", "gzip", "zstd", "lz4", "version2", "plain", "datasets",
    ] {
        let outcome = validate(fixture(name));
        assert_eq!(samples(&outcome), expected, "{name}");
        let classes = outcome
            .dataset()
            .classes
            .iter()
            .map(|class| &class.name[..]);
        assert_eq!(classes.collect::<Vec<_>>(), ["cat", "dog"], "{name}");
    }
    for name in ["brotli", "delta"] {
        validate(fixture(name)).assert_refused("unsupported_compression");
    }
    // A page that unpacks to 100 MiB: beyond the limit on pages, or far beyond the file's size.
    let roomy = DatasetLimits {
        page_bytes: 1 << 30,
        unpacked_bytes: 1 << 30,
        entry_bytes: 1 << 30,
        ..LIMITS
    };
    for name in ["bomb-gzip", "bomb-zstd"] {
        validate(fixture(name)).assert_refused("archive_too_large");
    }
    validate_within(roomy, fixture("bomb-zstd")).assert_refused("archive_ratio");
    let outcome = validate_within(
        DatasetLimits {
            ratio: 100_000,
            ..roomy
        },
        fixture("bomb-zstd"),
    );
    assert_eq!(outcome.errors()[0].0, "one_class");
}

#[test]
fn labels_are_names_numbers_or_lists() {
    let names = json!({"names": ["a", "b", "c"], "_type": "ClassLabel"});
    let several = |list: serde_json::Value| json!({"image": {"_type": "Image"}, "tags": list});
    let classes = |features: Option<serde_json::Value>, column: (&str, Values)| {
        let outcome = validate(with_columns(features, vec![column]));
        let dataset = outcome.dataset();
        let classes = dataset.classes.iter().map(|class| class.name.clone());
        (dataset.task, classes.collect::<Vec<_>>().join(" "), outcome)
    };
    let lists = || Values::Lists(vec![vec![0, 1], vec![1], vec![0], vec![], vec![1, 0]]);
    for list in [
        json!({"feature": names, "_type": "Sequence"}),
        json!({"feature": names, "_type": "List"}),
        json!([names]),
    ] {
        let (task, found, outcome) = classes(Some(several(list)), ("tags", lists()));
        assert_eq!((task, &found[..]), (Task::MultiLabelClassification, "a b"));
        let pack = outcome.pack();
        assert_eq!(pack.target(0), Target::Classes(vec![0, 1]));
        assert_eq!(pack.target(3), Target::Classes(vec![]));
    }
    let words = |rows: &[&[&str]]| {
        let row = |row: &&[&str]| row.iter().map(|&word| word.to_owned()).collect();
        Values::TextLists(rows.iter().map(row).collect())
    };
    let rows: [&[&str]; 4] = [&["x"], &["y", "x"], &["y"], &["x"]];
    let (task, found, _) = classes(None, ("labels", words(&rows)));
    assert_eq!((task, &found[..]), (Task::MultiLabelClassification, "x y"));

    let single = Task::SingleLabelClassification;
    let (task, found, _) = classes(None, ("breed", text(&["pug", "lab", "pug", "lab"])));
    assert_eq!((task, &found[..]), (single, "lab pug"));
    let (task, found, _) = classes(
        None,
        ("label", Values::Booleans(vec![true, false, true, false])),
    );
    assert_eq!((task, &found[..]), (single, "false true"));
    let (task, found, outcome) = classes(None, ("label", integers([7, 9, 7, 9])));
    assert_eq!((task, &found[..]), (single, "7 9"));
    assert_eq!(outcome.warnings(), [("numeric_classes", "")]);

    let floats = Values::Floats([1.5, 2.0, -3.0, 4.0].map(Some).to_vec());
    for column in [("age", floats), ("value", integers([1, 2, 3, 4]))] {
        let (task, found, outcome) = classes(None, column);
        assert_eq!((task, &found[..]), (Task::Regression, ""));
        assert_eq!(outcome.dataset().samples, 4);
    }
}

#[test]
fn columns_are_told_by_features_types_and_names() {
    let bytes = |start: usize| Values::Bytes((start..start + 4).map(image).collect());
    let noise = || Values::Bytes(vec![b"no image".to_vec(); 4]);
    let pair = || text(&["x", "y", "x", "y"]);
    let numbers = || integers([0, 1, 0, 1]);
    let ids = || integers([10, 11, 12, 13]);
    let label = |columns: Columns<'_>, features| {
        let outcome = validate(file(features, &[columns]));
        let classes = outcome
            .dataset()
            .classes
            .iter()
            .map(|class| class.name.clone());
        (
            classes.collect::<Vec<_>>().join(" "),
            outcome.pack().bytes(0).to_vec(),
        )
    };
    let of_names = json!({"fine": {"names": ["p", "q"], "_type": "ClassLabel"}});
    let masks = || Values::Images((4..8).map(|row| (Some(image(row)), None)).collect());
    for (columns, features, classes) in [
        // Plain bytes; other bytes beside them; ids.
        (vec![("photo", bytes(0)), ("color", pair())], None, "x y"),
        (
            vec![("raw", noise()), ("photo", bytes(0)), ("color", pair())],
            None,
            "x y",
        ),
        (
            vec![("id", ids()), ("photo", bytes(0)), ("color", pair())],
            None,
            "x y",
        ),
        // By its name, beside masks and sizes.
        (
            vec![
                ("mask", masks()),
                ("image", bytes(0).images()),
                ("label", numbers()),
            ],
            None,
            "0 1",
        ),
        (
            vec![("photo", bytes(0)), ("width", ids()), ("label", pair())],
            None,
            "x y",
        ),
        // Names of classes in the features, beside other numbers.
        (
            vec![("photo", bytes(0)), ("width", ids()), ("fine", numbers())],
            Some(of_names),
            "p q",
        ),
        // Two columns that say the same: the names.
        (
            vec![
                ("photo", bytes(0)),
                ("label", numbers()),
                ("label_name", pair()),
            ],
            None,
            "x y",
        ),
    ] {
        let (found, first) = label(columns, features);
        assert_eq!(found, classes);
        assert_eq!(first, image(0));
    }
    let two = json!({
        "image": {"_type": "Image"},
        "fine": {"names": ["p", "q"], "_type": "ClassLabel"},
        "coarse": {"names": ["r", "s"], "_type": "ClassLabel"},
    });
    for (columns, features, code, named) in [
        (
            vec![("left", bytes(0)), ("right", bytes(4)), ("label", pair())],
            None,
            "unclear_columns",
            "`left`, `right`",
        ),
        (
            vec![
                ("image", bytes(0)),
                ("fine", numbers()),
                ("coarse", numbers()),
            ],
            Some(two),
            "unclear_columns",
            "`fine`, `coarse`",
        ),
        (
            vec![("image", bytes(0)), ("a", pair()), ("b", pair())],
            None,
            "unclear_columns",
            "`a`, `b`",
        ),
        (
            vec![
                ("image", bytes(0)),
                ("label", numbers()),
                ("class", text(&["x", "x", "y", "y"])),
            ],
            None,
            "unclear_columns",
            "`label`, `class`",
        ),
        (
            vec![("image", bytes(0)), ("id", ids())],
            None,
            "unclear_columns",
            "no column could be the label",
        ),
        (
            vec![("file_name", pair()), ("label", numbers())],
            None,
            "unclear_columns",
            "no column holds images",
        ),
        (
            vec![("text", pair()), ("label", numbers())],
            None,
            "text_data",
            "`text`",
        ),
    ] {
        let outcome = validate(file(features, &[columns]));
        outcome.assert_refused(code);
        let message = &outcome.report.errors[0].message;
        assert!(message.contains(named), "{message}");
    }
    // A column of splits, in which each row has one.
    let splits = text(&["train", "train", "train", "train", "validation", "test"]);
    let labels = text(&["x", "y", "x", "y", "x", "y"]);
    let outcome = validate(with_columns(
        None,
        vec![("split", splits), ("label", labels)],
    ));
    assert_eq!(outcome.dataset().splits.test, 1);
    assert_eq!(outcome.dataset().split_by, "manifest");
}

trait AsImages {
    fn images(self) -> Values;
}

impl AsImages for Values {
    fn images(self) -> Values {
        match self {
            Self::Bytes(rows) => {
                Self::Images(rows.into_iter().map(|row| (Some(row), None)).collect())
            }
            other => other,
        }
    }
}

#[test]
fn all_problems_are_named_with_file_and_row() {
    let images = vec![
        (Some(image(0)), None),
        (Some(image(1)), None),
        (None, Some("/home/me/a.png".to_owned())),
        (None, None),
        (Some(image(4)), None),
        (Some(Vec::new()), None),
    ];
    let labels = [Some(0), Some(-1), Some(1), Some(2), None, Some(0)];
    let first = vec![
        ("image", Values::Images(images)),
        ("label", Values::Integers(labels.to_vec())),
    ];
    let second = labelled(&[(&image(7), 5)]);
    let files = vec![
        (
            "a.parquet".to_owned(),
            file(Some(class_label(&CLASSES)), &[first]),
        ),
        (
            "b.parquet".to_owned(),
            file(Some(class_label(&CLASSES)), &[second]),
        ),
    ];
    let outcome = validate(zipped(&files));
    let found: Vec<_> = outcome
        .report
        .errors
        .iter()
        .map(|one| (&one.path[..], one.line.unwrap(), &one.code[..]))
        .collect();
    let expected = [
        ("a.parquet", 2, "missing_label"),
        ("a.parquet", 3, "missing_file"),
        ("a.parquet", 4, "invalid_label"),
        ("a.parquet", 4, "missing_file"),
        ("a.parquet", 5, "missing_label"),
        ("a.parquet", 6, "missing_file"),
        ("b.parquet", 1, "invalid_label"),
    ];
    assert_eq!(found, expected);
    let path_only = &outcome.report.errors[1].message;
    assert!(path_only.contains("embed_external_files"), "{path_only}");

    // Several files that cannot be read, each with its problem.
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    let files = vec![
        ("a.parquet".to_owned(), lfs.into()),
        (
            "b.parquet".to_owned(),
            with_columns(None, vec![("id", integers([1]))]),
        ),
        ("c.parquet".to_owned(), b"PAR1".to_vec()),
    ];
    let outcome = validate(zipped(&files));
    let codes = ["corrupt_parquet", "unclear_columns", "corrupt_parquet"];
    let paths = ["a.parquet", "b.parquet", "c.parquet"];
    assert_eq!(
        outcome.errors(),
        codes.into_iter().zip(paths).collect::<Vec<_>>()
    );
    assert!(outcome.report.errors[0].message.contains("git lfs pull"));
    // Files of images beside them.
    let files = with(
        cats_and_dogs(),
        "x.parquet",
        of_folders(&cats_and_dogs(), 50),
    );
    validate(zipped(&files)).assert_refused("ambiguous_layout");
    // Copies, conflicts and broken images are found as elsewhere.
    let (one, two) = (image(1), image(2));
    let images = [
        (&one[..], 0),
        (&one, 1),
        (&two, 0),
        (&two, 0),
        (b"no image", 1),
        (&image(3), 1),
    ];
    let outcome = validate(file(Some(class_label(&CLASSES)), &[labelled(&images)]));
    let found: Vec<&str> = outcome
        .warnings()
        .into_iter()
        .map(|(code, _)| code)
        .collect();
    assert_eq!(
        found[..3],
        ["conflicting_duplicates", "duplicate_image", "not_an_image"]
    );
}

#[test]
fn limits_hold_at_their_values_and_not_beyond() {
    let files = cats_and_dogs();
    let parquet = of_folders(&files, 4);
    let largest = files
        .iter()
        .map(|(_, bytes)| bytes.len() as u64)
        .max()
        .unwrap();
    let total: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    // In a page, each image has four bytes before it.
    let page = |group: &[(String, Vec<u8>)]| {
        group
            .iter()
            .map(|(_, bytes)| bytes.len() as u64 + 4)
            .sum::<u64>()
    };
    let page = files.chunks(4).map(page).max().unwrap();
    for (at, beyond, code) in [
        (
            DatasetLimits {
                entries: 20,
                ..LIMITS
            },
            DatasetLimits {
                entries: 19,
                ..LIMITS
            },
            "too_many_rows",
        ),
        (
            DatasetLimits {
                entry_bytes: largest,
                ..LIMITS
            },
            DatasetLimits {
                entry_bytes: largest - 1,
                ..LIMITS
            },
            "archive_too_large",
        ),
        (
            DatasetLimits {
                unpacked_bytes: total,
                ..LIMITS
            },
            DatasetLimits {
                unpacked_bytes: total - 1,
                ..LIMITS
            },
            "archive_too_large",
        ),
        (
            DatasetLimits {
                page_bytes: page,
                ..LIMITS
            },
            DatasetLimits {
                page_bytes: page - 1,
                ..LIMITS
            },
            "archive_too_large",
        ),
    ] {
        validate_within(at, &parquet).dataset();
        validate_within(beyond, &parquet).assert_refused(code);
    }
    // A Parquet file in an archive is no single image.
    let archive = tarred(&vec![("a.parquet".to_owned(), parquet)]);
    validate_within(
        DatasetLimits {
            entry_bytes: largest,
            ..LIMITS
        },
        archive,
    )
    .dataset();
    // Levels of a schema, beyond which reading it would exhaust the stack.
    for (depth, code) in [
        (64, "unclear_columns"),
        (65, "corrupt_parquet"),
        (100_000, "corrupt_parquet"),
    ] {
        validate(nested(depth)).assert_refused(code);
    }
    // The number of problems in a report.
    let wrong: Vec<(Vec<u8>, i64)> = (0..4).map(|row| (image(row), -1)).collect();
    let wrong: Vec<(&[u8], i64)> = wrong
        .iter()
        .map(|(bytes, label)| (&bytes[..], *label))
        .collect();
    let wrong = file(Some(class_label(&CLASSES)), &[labelled(&wrong)]);
    let few = validate_within(
        DatasetLimits {
            report_problems: 3,
            ..LIMITS
        },
        &wrong,
    );
    assert_eq!(few.errors().len(), 4);
    assert!(few.errors().contains(&("more_problems", "")));
}

/// Files that are cut off or altered anywhere are refused with a reason, or read.
#[test]
fn damaged_files_are_refused_and_never_crash() {
    let whole = of_folders(&images(&CLASSES, 0, 3), 2);
    for end in (4..whole.len()).step_by(61) {
        validate(&whole[..end]).assert_refused("corrupt_parquet");
    }
    let mut codes = BTreeMap::new();
    let mut random = 1_u64;
    // Footers and headers of pages are what is read as structure.
    for _ in 0..600 {
        let mut altered = whole.clone();
        for _ in 0..1 + random % 3 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (random >> 33) as usize % whole.len();
            altered[at] = (random >> 24) as u8;
        }
        let outcome = validate(&altered);
        let code = outcome.errors().first().map(|(code, _)| (*code).to_owned());
        *codes.entry(code.unwrap_or_default()).or_insert(0) += 1;
    }
    let damaged = codes.get("corrupt_parquet").copied().unwrap_or_default();
    assert!(
        damaged > 50 && !codes.contains_key("internal_error"),
        "{codes:?}"
    );
}
