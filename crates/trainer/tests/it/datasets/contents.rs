//! Contents of a data set: classes, images, splits, copies.

use super::*;

#[test]
fn classes_must_be_two_and_not_empty() {
    validate(zipped(&images(&["cats"], 0, 5))).assert_refused("one_class");
    validate(zipped(&[("1.png", image(1)), ("2.png", image(2))]))
        .assert_refused("no_class_folders");

    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in cats_and_dogs() {
        zip.start_file(
            path,
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
        )
        .unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.add_directory("birds", SimpleFileOptions::default())
        .unwrap();
    let empty = validate(zip.finish().unwrap().into_inner());
    empty.assert_refused("empty_class");
    assert_eq!(empty.errors(), [("empty_class", "birds")]);

    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in cats_and_dogs() {
        append(&mut builder, tar::EntryType::Regular, &path, &bytes);
    }
    append(&mut builder, tar::EntryType::Directory, "birds/", b"");
    validate(builder.into_inner().unwrap()).assert_refused("empty_class");

    let unusable = validate(zipped(&with(cats_and_dogs(), "birds/notes.txt", "no bird")));
    assert_eq!(unusable.errors(), [("empty_class", "birds")]);
    assert_eq!(unusable.warnings(), [("not_an_image", "birds/notes.txt")]);
}

#[test]
fn all_corrupt_is_refused_and_one_of_a_hundred_is_reported() {
    let mut files = images(&["cats", "dogs"], 0, 50);
    files[70].1.truncate(60);
    let one = validate(zipped(&files));
    let dataset = one.dataset();
    assert_eq!((dataset.samples, dataset.unusable), (99, 1));
    assert_eq!(one.warnings(), [("truncated_image", files[70].0.as_str())]);

    for (_, bytes) in &mut files {
        bytes.truncate(60);
    }
    let all = validate(zipped(&files));
    all.assert_refused("no_usable_images");
    assert_eq!(all.warnings().len(), 100);
    let few = DatasetLimits {
        report_problems: 3,
        ..LIMITS
    };
    let FileReport {
        warnings,
        warnings_omitted,
        ..
    } = validate_within(few, zipped(&files)).report;
    assert_eq!((warnings.len(), warnings_omitted), (3, 97));
}

#[test]
fn a_split_by_hash_stays_when_files_are_added() {
    let classes = ["cats", "dogs", "owls"];
    let before = validate(zipped(&images(&classes, 0, 60))).splits();
    let after = validate(zipped(&images(&classes, 0, 90))).splits();
    for (path, split) in before {
        assert_eq!(after[&path], split, "{path}");
    }
}

#[test]
fn copies_are_on_one_side() {
    let mut files = images(&["cats", "dogs"], 0, 20);
    for number in 0..20 {
        files.push((format!("cats/copy of {number}.png"), image(number)));
    }
    files.push(("dogs/cat.png".to_owned(), image(3)));
    let outcome = validate(zipped(&files));
    assert_eq!(outcome.dataset().duplicates, 41);
    let splits = outcome.splits();
    for number in 0..20 {
        let copy = &splits[&format!("cats/copy of {number}.png")];
        assert_eq!(*copy, splits[&format!("cats/{number}.png")]);
    }
    assert_eq!(splits["dogs/cat.png"], splits["cats/3.png"]);
    let warnings = outcome.warnings();
    assert_eq!(warnings[0], ("conflicting_duplicates", "cats/3.png"));
    assert_eq!(
        warnings
            .iter()
            .filter(|(code, _)| *code == "duplicate_image")
            .count(),
        19
    );
}

#[test]
fn split_folders_are_kept() {
    let mut files = Files::new();
    for (folder, start, count) in [("train", 0, 6), ("val", 100, 3), ("test", 200, 2)] {
        let of_folder = images(&["cats", "dogs"], start, count);
        files.extend(
            of_folder
                .into_iter()
                .map(|(path, bytes)| (format!("set/{folder}/{path}"), bytes)),
        );
    }
    let kept = validate(zipped(&files));
    let sizes = kept.dataset().splits;
    assert_eq!((sizes.train, sizes.validation, sizes.test), (12, 6, 4));
    assert_eq!(kept.dataset().split_by, "folders");

    // A copy of a training image in `val` is not validated on.
    let leak = validate(zipped(&with(
        files.clone(),
        "set/val/cats/leak.png",
        image(0),
    )));
    assert_eq!(leak.dataset().splits.validation, 6);
    assert!(
        leak.warnings()
            .contains(&("split_leak", "set/train/cats/0.png"))
    );

    // Without `val`, training images are split; `test` stays.
    files.retain(|(path, _)| !path.starts_with("set/val"));
    let split = validate(zipped(&files));
    let sizes = split.dataset().splits;
    assert_eq!((sizes.train + sizes.validation, sizes.test), (12, 4));
    assert!(sizes.validation >= 2 && split.dataset().split_by == "hash");
}

#[test]
fn class_names_that_are_twins_are_refused() {
    let twins = validate(zipped(&images(&["cats", "Cats", "dogs"], 0, 3)));
    twins.assert_refused("class_name_twins");
    assert!(twins.report.errors[0].message.contains("\"Cats\""));
}
