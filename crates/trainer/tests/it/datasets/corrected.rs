//! Data sets made of others: every task, every path that an upload may have, and splits as before.

use rehead_domain::{corrections::Corrections, sample_report::Answer};
use rehead_trainer::data::{corrected, target::Target};

use super::*;

/// Paths, names of labels or the number, and split of each sample.
fn described(pack: &Pack) -> Vec<(String, String, Split)> {
    let label = |sample: usize| match pack.target(sample) {
        Target::Class(class) => pack.classes()[class].clone(),
        Target::Classes(classes) => {
            let names = classes.iter().map(|&class| pack.classes()[class].as_str());
            names.collect::<Vec<_>>().join("+")
        }
        Target::Value(value) => value.to_string(),
    };
    let sample = |at: usize| (pack.path(at).to_owned(), label(at), pack.split(at));
    (0..pack.len()).map(sample).collect()
}

/// Corrects a data set; asserts that exactly these samples have changed or are gone.
#[track_caller]
fn assert_corrected(archive: impl AsRef<[u8]>, exclude: &[u64], relabel: &[(u64, Answer, &str)]) {
    let before = validate(archive);
    let mut expected = described(&before.pack());
    for (sample, _, label) in relabel {
        expected[*sample as usize].1 = (*label).to_owned();
    }
    let mut at = 0;
    expected.retain(|_| {
        at += 1;
        !exclude.contains(&(at - 1))
    });
    let corrections = Corrections {
        exclude: exclude.iter().copied().collect(),
        relabel: relabel
            .iter()
            .map(|(sample, answer, _)| (*sample, answer.clone()))
            .collect(),
    };
    let problems = corrections.problems(before.dataset());
    assert!(problems.is_empty(), "{problems:?}");
    let folder = tempfile::tempdir().unwrap();
    let input = before.folder.path().join("pack.safetensors");
    let said = corrected::run((&input, &corrections), &LIMITS, 2, folder.path());
    let after = Outcome::read(folder, said);
    assert_eq!(described(&after.pack()), expected);
    assert_eq!(after.dataset().task, before.dataset().task);
    assert_eq!(after.dataset().unusable, 0);
}

/// Images with a manifest of these labels, as JSON, all of which are in the split of their place.
fn labelled(labels: &[&str], column: &str) -> Vec<u8> {
    let splits = ["train", "train", "validation", "test"];
    let row = |(at, label): (usize, &&str)| {
        let split = splits[at % 4];
        format!("{{\"path\": \"{at:02}.png\", \"{column}\": {label}, \"split\": \"{split}\"}}\n")
    };
    let manifest: String = labels.iter().enumerate().map(row).collect();
    let mut files: Files = (0..labels.len())
        .map(|at| (format!("{at:02}.png"), image(at)))
        .collect();
    files.push(("manifest.jsonl".to_owned(), manifest.into_bytes()));
    zipped(&files)
}

#[test]
fn corrected_labels_are_of_every_task() {
    let class = |name: &str| Answer::Class(name.to_owned());
    let classes = |names: &[&str]| Answer::Classes(names.iter().map(|&name| name.into()).collect());
    let single = [
        "\"cat\"", "\"dog\"", "\"1.5\"", "\"cat\"", "\"dog\"", "\"1.5\"", "\"cat\"", "\"dog\"",
    ];
    assert_corrected(
        labelled(&single, "label"),
        &[3],
        &[(1, class("1.5"), "1.5"), (7, class("cat"), "cat")],
    );
    let several = [
        "[\"a\", \"b\"]",
        "[]",
        "[\"b\"]",
        "[\"a\"]",
        "[\"c|d\"]",
        "[\"a\"]",
        "[\"b\", \"c|d\"]",
        "[]",
    ];
    assert_corrected(
        labelled(&several, "label"),
        &[5],
        &[
            (0, classes(&["b"]), "b"),
            (1, classes(&["c|d", "a"]), "a+c|d"),
            (3, classes(&[]), ""),
        ],
    );
    let numbers = ["1", "2", "3.5", "-1e-3", "5", "6", "7", "1e9"];
    assert_corrected(
        labelled(&numbers, "value"),
        &[4, 6],
        &[
            (0, Answer::Value(0.1), "0.1"),
            (7, Answer::Value(-3.0), "-3"),
        ],
    );
}

/// Without a split of its own, a data set keeps the one that its hashes decided.
#[test]
fn corrected_data_set_keeps_its_split_and_paths() {
    let mut files = images(&["cats", "größe & co", "d"], 0, 12);
    let long = format!("d/{}/{}.png", "x".repeat(120), "é".repeat(60));
    files.push((long, image(50_000)));
    assert_corrected(
        zipped(&files),
        &[0, 13, 30],
        &[(1, Answer::Class("d".to_owned()), "d")],
    );
}

/// The same corrections give the same archive, and so the same data set.
#[test]
fn corrected_archive_is_the_same_each_time() {
    let before = validate(zipped(&images(&["cats", "dogs"], 0, 6)));
    let input = before.folder.path().join("pack.safetensors");
    let corrections = Corrections {
        exclude: [2].into(),
        ..Corrections::default()
    };
    let archives = [0, 1].map(|_| {
        let folder = tempfile::tempdir().unwrap();
        let said = corrected::run((&input, &corrections), &LIMITS, 2, folder.path());
        assert_eq!(said, Validated::Accepted);
        fs::read(folder.path().join("corrected.tar")).unwrap()
    });
    assert_eq!(archives[0], archives[1]);
}
