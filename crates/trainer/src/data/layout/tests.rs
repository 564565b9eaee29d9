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
        code(&["train/a/1.jpg", "val/a/1.jpg", "extra/1.jpg"]),
        "ambiguous_layout"
    );
    assert_eq!(code(&["val/a/1.jpg", "test/a/1.jpg"]), "no_training_split");
}

/// Folders named like splits were taken for classes, and the job learned train against test.
#[test]
fn folders_named_like_splits_are_never_classes() {
    for names in [
        ["training_set", "test_set"],
        ["seg_train", "seg_test"],
        ["train", "test1"],
        ["rps", "rps-test-set"],
        ["Train2017", "VAL2017"],
    ] {
        for nested in [false, true] {
            let path = |split: &str, class: &str| match nested {
                true => format!("data/{split}/{split}/{class}/1.jpg"),
                false => format!("{split}/{class}/1.jpg"),
            };
            let paths: Vec<String> = names
                .iter()
                .flat_map(|split| ["cats", "dogs"].map(|class| path(split, class)))
                .collect();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            if nested && names[0] == "rps" {
                continue;
            }
            let found = layout(&paths);
            assert_eq!(found.classes, ["cats", "dogs"], "{names:?}");
            let train = found
                .files
                .iter()
                .filter(|file| file.split == Some(Split::Train));
            assert_eq!(train.count(), 2, "{names:?}");
        }
        let [one, other] = names.map(|name| format!("{name}/1.jpg"));
        if names[0] != "rps" {
            assert_eq!(code(&[&one, &other]), "no_class_folders", "{names:?}");
        }
    }
    assert_eq!(code(&["train/1.jpg", "test/1.jpg"]), "no_class_folders");
    let three = [
        "train/a/1.jpg",
        "train/b/1.jpg",
        "test1/1.jpg",
        "val/a/2.jpg",
    ];
    assert_eq!(layout(&three).classes, ["a", "b"]);
    assert_eq!(
        code(&["seg_train/a/1", "seg_test/a/1", "seg_pred/1"]),
        "ambiguous_layout"
    );
}

#[test]
fn classes_whose_names_hold_a_split_s_word_stay_classes() {
    for paths in [
        ["crash_test/x/1.jpg", "normal/y/1.jpg"],
        ["crash_test/1.jpg", "normal/1.jpg"],
        ["train/1.jpg", "tram/1.jpg"],
        ["high speed train/1.jpg", "freight train/1.jpg"],
        ["test strip/1.jpg", "blood/1.jpg"],
        ["cats/indoor/1.jpg", "dogs/indoor/1.jpg"],
    ] {
        let classes = paths.map(|path| path.split('/').next().unwrap());
        let mut classes = classes.to_vec();
        classes.sort_unstable();
        assert_eq!(layout(&paths).classes, classes);
    }
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
