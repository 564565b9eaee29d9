use super::*;
use crate::{
    data::archive::Entry,
    domain::{file::Split, limits},
};

fn entries(paths: &[&str]) -> Vec<Entry> {
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    paths
        .iter()
        .map(|&path| Entry {
            path: path.to_owned(),
            offset: 0,
            size: 1,
        })
        .collect()
}

fn layout(paths: &[&str]) -> Layout {
    read(&entries(paths), &[]).unwrap()
}

fn code(paths: &[&str]) -> String {
    read(&entries(paths), &[]).unwrap_err()[0].code.clone()
}

#[test]
fn classes_are_folders_sorted_by_name() {
    let found = layout(&[
        "dogs/1.jpg",
        "cats/persian/2.jpg",
        "cats/1.jpg",
        "README.txt",
    ]);
    assert_eq!(found.classes, ["cats", "dogs"]);
    assert_eq!(
        found
            .files
            .iter()
            .map(|file| file.target.classes())
            .collect::<Vec<_>>(),
        [[0], [0], [1]]
    );
    assert_eq!(found.outside, [0]);
}

#[test]
fn folders_around_everything_are_looked_through() {
    for prefix in ["", "data/", "a/b/", "b/train/"] {
        let paths: Vec<String> = ["cats/1.jpg", "dogs/1.jpg"]
            .iter()
            .map(|path| format!("{prefix}{path}"))
            .collect();
        let found = layout(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.classes, ["cats", "dogs"], "{prefix}");
    }
    assert_eq!(layout(&["cats/1.jpg"]).classes, ["cats"]);
}

#[test]
fn split_folders_are_told_from_classes() {
    let found = layout(&[
        "x/Train/cats/1.jpg",
        "x/valid/cats/2.jpg",
        "x/test/dogs/3.jpg",
    ]);
    assert_eq!(found.classes, ["cats", "dogs"]);
    let splits: Vec<_> = found.files.iter().map(|file| file.split).collect();
    assert_eq!(
        splits,
        [
            Some(Split::Train),
            Some(Split::Test),
            Some(Split::Validation)
        ]
    );
    // Vehicles.
    assert_eq!(
        layout(&["train/1.jpg", "bus/1.jpg"]).classes,
        ["bus", "train"]
    );
    assert_eq!(
        layout(&["train/1.jpg", "test/1.jpg"]).classes,
        ["test", "train"]
    );
    assert_eq!(
        code(&["train/a/1.jpg", "val/a/1.jpg", "extra/1.jpg"]),
        "ambiguous_layout"
    );
    assert_eq!(code(&["val/a/1.jpg", "test/a/1.jpg"]), "no_training_split");
}

#[test]
fn a_listed_folder_without_files_is_a_class() {
    let found = read(
        &entries(&["cats/1.jpg"]),
        &["cats".to_owned(), "dogs".to_owned()],
    )
    .unwrap();
    assert_eq!(found.classes, ["cats", "dogs"]);
    assert_eq!(code(&["1.jpg", "2.jpg"]), "no_class_folders");
}

#[test]
fn class_names_follow_one_rule() {
    for (pair, wanted) in [
        (["cats/1", "Cats/1"], "class_name_twins"),
        (["cats/1", "cats /1"], "class_name_twins"),
        (["caf\u{e9}/1", "cafe\u{301}/1"], "class_name_twins"),
        (["cats/1", "do\ngs/1"], "invalid_class_name"),
        (["cats/1", "do\u{202e}gs/1"], "invalid_class_name"),
        (["cats/1", " /1"], "invalid_class_name"),
    ] {
        assert_eq!(code(&pair), wanted, "{pair:?}");
    }
    let odd = [
        "<script>/1",
        "=HYPERLINK(1)/1",
        "\"; DROP/1",
        "__proto__/1",
        "\u{1f431}/1",
    ];
    assert_eq!(layout(&odd).classes.len(), odd.len());
    let at_the_limit = format!("{}/1", "é".repeat(limits::LABEL_CHARACTERS));
    let past_it = format!("{}/1", "é".repeat(limits::LABEL_CHARACTERS + 1));
    assert_eq!(layout(&[&at_the_limit, "cats/1"]).classes.len(), 2);
    assert_eq!(code(&[&past_it, "cats/1"]), "invalid_class_name");
}
