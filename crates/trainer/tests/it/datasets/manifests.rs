//! Archives with a manifest.

use rehead_domain::{
    file::{Class, SplitSizes},
    recipe::Task,
};
use rehead_trainer::data::target::Target;

use super::*;

/// Twenty images `0.png` to `19.png`.
fn twenty() -> Files {
    (0..20).map(|n| (format!("{n}.png"), image(n))).collect()
}

/// A manifest with one line for each of the twenty.
fn rows(header: &str, row: impl Fn(usize) -> String) -> String {
    let rows: String = (0..20).map(|n| format!("{n}.png,{}\n", row(n))).collect();
    format!("{header}\n{rows}")
}

#[test]
fn one_label_a_row_is_as_a_folder_per_class() {
    let manifest = rows("path,label", |n| ["cat", "dog"][n % 2].to_owned());
    let files = with(twenty(), "manifest.csv", manifest);
    let kept: Vec<_> = [zipped(&files), tarred(&files), gzipped(&tarred(&files))]
        .map(validate)
        .into_iter()
        .collect();
    for found in &kept {
        let dataset = found.dataset();
        assert_eq!(dataset.task, Task::SingleLabelClassification);
        assert_eq!((dataset.samples, dataset.unusable), (20, 0));
        assert_eq!(dataset.split_by, "hash");
        assert_eq!(found.warnings(), []);
        assert_eq!(found.pack_bytes(), kept[0].pack_bytes());
    }
    // The same images in folders are split in the same way.
    let folders = twenty().into_iter().enumerate();
    let folders: Files = folders
        .map(|(n, (path, bytes))| (format!("{}/{path}", ["cat", "dog"][n % 2]), bytes))
        .collect();
    let folders = validate(zipped(&folders));
    assert_eq!(kept[0].dataset().classes, folders.dataset().classes);
    for (path, split) in folders.splits() {
        let name = path.split_once('/').unwrap().1;
        assert_eq!(kept[0].splits()[name], split);
    }
}

#[test]
fn lists_of_labels_and_numbers_are_kept() {
    let labels = |n: usize| match n % 4 {
        0 => "cat|dog".to_owned(),
        1 => "[]".to_owned(),
        2 => "dog".to_owned(),
        _ => "owl|cat|dog".to_owned(),
    };
    let manifest = rows("path,labels", labels);
    let several = validate(zipped(&with(twenty(), "manifest.csv", manifest)));
    let dataset = several.dataset();
    assert_eq!(dataset.task, Task::MultiLabelClassification);
    let having = |class: &Class| class.train + class.validation + class.test;
    let counts: Vec<_> = dataset
        .classes
        .iter()
        .map(|class| (class.name.as_str(), having(class)))
        .collect();
    assert_eq!(counts, [("cat", 10), ("dog", 15), ("owl", 5)]);
    assert!(
        dataset
            .classes
            .iter()
            .all(|class| class.train > 0 && class.validation > 0)
    );
    let SplitSizes {
        train, validation, ..
    } = dataset.splits;
    assert!(train + validation == 20 && validation >= 2);
    let pack = several.pack();
    assert_eq!(pack.task(), Task::MultiLabelClassification);
    let at = (0..20).find(|&at| pack.path(at) == "3.png").unwrap();
    assert_eq!(pack.target(at), Target::Classes(vec![0, 1, 2]));

    let manifest = rows("path,value", |n| format!("{}", n as f64 / 4.0));
    let numbers = validate(zipped(&with(
        twenty(),
        "data/manifest.csv",
        manifest.clone(),
    )));
    // Images lie outside of its folder: it is read as a table by another name.
    assert_eq!(numbers.dataset().task, Task::Regression);
    let from_table = ("labels_from_table", "data/manifest.csv");
    assert_eq!(numbers.warnings(), [from_table]);
    let numbers = validate(zipped(&with(twenty(), "manifest.csv", manifest)));
    let dataset = numbers.dataset();
    assert_eq!((dataset.task, dataset.classes.len()), (Task::Regression, 0));
    let target = dataset.target.unwrap();
    assert_eq!(
        (target.count, target.mean, target.min, target.max),
        (20, 2.375, 0.0, 4.75)
    );
    assert_eq!(target.quantiles.p50, 2.375);
    let pack = numbers.pack();
    let at = (0..20).find(|&at| pack.path(at) == "3.png").unwrap();
    assert_eq!(pack.target(at), Target::Value(0.75));
}

#[test]
fn a_split_column_is_kept_and_leaks_are_closed() {
    let split = |n: usize| ["train", "train", "val", "test"][n % 4];
    let manifest = rows("path,value,split", |n| format!("{n},{}", split(n)));
    let files = with(twenty(), "manifest.csv", manifest.clone());
    let kept = validate(zipped(&files));
    assert_eq!(kept.dataset().split_by, "manifest");
    let sizes = SplitSizes {
        train: 10,
        validation: 5,
        test: 5,
    };
    assert_eq!(kept.dataset().splits, sizes);
    assert_eq!(kept.splits()["7.png"], Split::Test);

    let mut files = with(twenty(), "manifest.csv", manifest);
    files[7].1 = files[4].1.clone();
    let leaking = validate(zipped(&files));
    let warnings = leaking.warnings();
    assert!(warnings.contains(&("split_leak", "4.png")), "{warnings:?}");
    assert!(
        warnings.contains(&("conflicting_duplicates", "4.png")),
        "{warnings:?}"
    );
    assert_eq!(leaking.splits()["7.png"], Split::Train);
}

#[test]
fn what_does_not_fit_is_refused_or_reported() {
    let manifest = rows("path,value", |n| n.to_string());
    let mut files = with(twenty(), "manifest.csv", manifest.clone());
    files.retain(|(path, _)| path != "3.png" && path != "5.png");
    let missing = validate(zipped(&files));
    assert_eq!(missing.errors(), [("missing_file", "manifest.csv"); 2]);
    let lines: Vec<_> = missing
        .report
        .errors
        .iter()
        .map(|problem| problem.line)
        .collect();
    assert_eq!(lines, [Some(5), Some(7)]);

    let files = with(twenty(), "manifest.csv", manifest);
    let more = validate(zipped(&with(
        with(files, "extra.png", image(99)),
        "notes.txt",
        "x",
    )));
    assert_eq!(more.dataset().samples, 20);
    let outside = [
        ("not_in_manifest", "extra.png"),
        ("not_in_manifest", "notes.txt"),
    ];
    assert_eq!(more.warnings(), outside);

    let constant = rows("path,value", |_| "1.5".to_owned());
    validate(zipped(&with(twenty(), "manifest.csv", constant))).assert_refused("constant_value");
    let lone = rows("path,label", |_| "cat".to_owned());
    validate(zipped(&with(twenty(), "manifest.csv", lone))).assert_refused("one_class");
    let untrained = rows("path,label,split", |n| match n {
        0 => "cat,val".to_owned(),
        1..8 => "dog,train".to_owned(),
        _ => "owl,train".to_owned(),
    });
    let untrained = validate(zipped(&with(twenty(), "manifest.csv", untrained)));
    assert_eq!(untrained.errors(), [("empty_class", "cat")]);
    let no_train = rows("path,label,split", |n| format!("{},val", ["a", "b"][n % 2]));
    let no_train = validate(zipped(&with(twenty(), "manifest.csv", no_train)));
    assert_eq!(no_train.errors(), [("no_training_split", "manifest.csv")]);
}

#[test]
fn rows_that_are_added_move_no_others() {
    let of = |count: usize| {
        let images: Files = (0..count).map(|n| (format!("{n}.png"), image(n))).collect();
        let rows: String = (0..count).map(|n| format!("{n}.png,{n}\n")).collect();
        validate(zipped(&with(
            images,
            "manifest.csv",
            format!("path,value\n{rows}"),
        )))
        .splits()
    };
    let after = of(90);
    for (path, split) in of(60) {
        assert_eq!(after[&path], split, "{path}");
    }
}
