//! Samples, splits and labels on the way to training.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Cursor, Read as _},
};

use rehead_domain::{
    file::{FileReport, Split},
    progress::Validated,
    work::DatasetLimits,
};
use rehead_trainer::{
    data::{pack::Pack, target::Target, validate},
    train::input::samples::{Samples, Targets},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    data::{clipart_subset, zip},
    training::{Material, recipe},
};

type Files = Vec<(String, Vec<u8>)>;

/// A small image that no other number gives.
fn image(number: u32) -> Vec<u8> {
    let [_, high, middle, low] = number.to_be_bytes();
    let image = image::RgbImage::from_pixel(5, 4, image::Rgb([high, middle, low]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn validated(files: &Files) -> (TempDir, Validated, FileReport) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    fs::write(&input, zip(files)).unwrap();
    let limits = DatasetLimits {
        entries: 1_000,
        unpacked_bytes: 1 << 26,
        entry_bytes: 1 << 24,
        ratio: 1_000,
        page_bytes: 1 << 24,
        pixels: 1_000_000,
        report_problems: 100,
        thumbnails: 100,
    };
    let said = validate::run(&input, &limits, 1, dir.path());
    let report = fs::read(dir.path().join(validate::REPORT)).unwrap();
    (dir, said, serde_json::from_slice(&report).unwrap())
}

fn packed(files: &Files) -> Pack {
    let (dir, said, report) = validated(files);
    assert_eq!(said, Validated::Accepted, "{report:?}");
    Pack::open(&dir.path().join(validate::PACK)).unwrap()
}

/// The class of every sample, by its path.
fn classes(pack: &Pack) -> BTreeMap<String, String> {
    let class = |sample| match pack.target(sample) {
        Target::Class(class) => pack.classes()[class].clone(),
        other => panic!("{other:?}"),
    };
    (0..pack.len())
        .map(|sample| (pack.path(sample).to_owned(), class(sample)))
        .collect()
}

/// Turned, CMYK, gray, 16-bit and cut-off images: each decodes in one way or is reported, and none
/// takes another's label.
#[test]
fn trap_12_odd_images_do_not_shift_labels() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images");
    let mut files: Files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        if image::ImageFormat::from_path(&path).is_ok() {
            files.push((format!("odd/{name}"), bytes.clone()));
            files.push((format!("odd/cut {name}"), bytes[..bytes.len() / 2].to_vec()));
        }
    }
    files.extend((0..20).map(|n| (format!("plain/{n}.png"), image(n))));
    let (pack, again) = (packed(&files), packed(&files));
    let (_, _, report) = validated(&files);
    let found = classes(&pack);
    assert_eq!(found, classes(&again));
    for (path, class) in &found {
        assert_eq!(path.split_once('/').unwrap().0, class, "{path}");
    }
    let reported: BTreeSet<&str> = report
        .warnings
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    for (path, bytes) in &files {
        let kept = (0..pack.len()).find(|&sample| pack.path(sample) == path);
        assert!(kept.is_some() || reported.contains(path.as_str()), "{path}");
        assert!(
            kept.is_none_or(|sample| pack.bytes(sample) == bytes),
            "{path}"
        );
    }
    let cut = reported
        .iter()
        .filter(|path| path.starts_with("odd/cut"))
        .count();
    assert!(cut > 5, "{reported:?}");
}

#[test]
fn trap_13_no_image_is_on_two_sides_and_more_images_move_none() {
    let of = |count: u32| {
        let mut files: Files = Vec::new();
        for n in 0..count {
            let class = ["cats", "dogs"][n as usize % 2];
            files.push((format!("{class}/{n}.png"), image(n)));
            files.push((format!("{class}/copy of {n}.png"), image(n)));
        }
        files
    };
    let sides = |files: &Files| {
        let pack = packed(files);
        let mut sides: BTreeMap<[u8; 32], BTreeSet<Split>> = BTreeMap::new();
        for sample in 0..pack.len() {
            let side = sides.entry(pack.sha256(sample)).or_default();
            side.insert(pack.split(sample));
        }
        sides
    };
    let (before, after) = (sides(&of(60)), sides(&of(100)));
    assert!(after.values().all(|sides| sides.len() == 1));
    for (hash, side) in &before {
        assert_eq!(&after[hash], side);
    }
    let validated = before
        .values()
        .filter(|side| side.contains(&Split::Validation));
    assert!(validated.count() > 5);
}

/// The images of two categories below `train`, `val` and `test`; the labels of the test split as
/// they are, or swapped.
fn three_splits(swapped: bool) -> Vec<u8> {
    let archive = clipart_subset(&["animals", "food"], 20);
    let mut archive = ::zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut files: Files = Vec::new();
    for class in ["animals", "food"] {
        for n in 0..20 {
            let mut bytes = Vec::new();
            let mut entry = archive.by_name(&format!("{class}/{n}.png")).unwrap();
            entry.read_to_end(&mut bytes).unwrap();
            let split = ["train", "train", "val", "test"][n % 4];
            let other = if class == "food" { "animals" } else { "food" };
            let label = if swapped && split == "test" && n % 8 == 3 {
                other
            } else {
                class
            };
            files.push((format!("{split}/{label}/{class}-{n}.png"), bytes));
        }
    }
    zip(&files)
}

#[test]
fn trap_14_the_labels_of_the_test_split_choose_nothing() {
    let run = |swapped: bool| {
        let material = Material::of_archive("resnet18", &three_splits(swapped));
        let recipe = rehead_domain::recipe::Recipe {
            n_epochs: 4,
            learning_rate: 0.05,
            ..recipe()
        };
        let mut trainer = material.start("run", &material.plan(recipe));
        let (said, status) = trainer.end();
        assert!(status.success(), "{said:?}");
        let read = |name: &str| fs::read(trainer.folder.join(name)).unwrap();
        let config: Value = serde_json::from_slice(&read("bundle/config.json")).unwrap();
        let temperature = config["rehead"]["temperature"].clone();
        let report: Value = serde_json::from_slice(&read("report.json")).unwrap();
        assert_eq!(report["split"], "test");
        (
            read("bundle/model.safetensors"),
            temperature,
            report["log_loss"].clone(),
        )
    };
    let (plain, swapped) = (run(false), run(true));
    assert!(plain.0 == swapped.0, "other weights were chosen");
    assert_eq!(plain.1, swapped.1);
    // The comparison can fail: the report is of those labels.
    assert_ne!(plain.2, swapped.2);
}

#[test]
fn trap_19_a_class_keeps_its_index() {
    let mut files: Files = Vec::new();
    for (place, class) in ["zebras", "ants", "mice"].into_iter().enumerate() {
        let first = place as u32 * 100;
        files.extend((first..first + 10).map(|n| (format!("{class}/{n}.png"), image(n))));
    }
    let sorted = packed(&files);
    files.reverse();
    let reversed = packed(&files);
    assert_eq!(sorted.classes(), ["ants", "mice", "zebras"]);
    assert_eq!(reversed.classes(), sorted.classes());
    assert_eq!(classes(&reversed), classes(&sorted));

    let split = |path: &str| format!("{path}/{}", path.len());
    let mut only = vec![(split("val/bees") + ".png", image(900))];
    for (path, bytes) in &files {
        only.push((format!("train/{path}"), bytes.clone()));
    }
    let (_, said, report) = validated(&only);
    assert!(matches!(said, Validated::Refused { .. }), "{said:?}");
    assert_eq!(
        (
            report.errors[0].code.as_str(),
            report.errors[0].path.as_str()
        ),
        ("empty_class", "bees")
    );

    // A validation file that lacks classes, and so numbers them in another way, is read by name.
    let material = Material::of_archive("resnet18", &zip(&files));
    let few: Files = (0..20)
        .map(|n| {
            let class = ["zebras", "mice"][n as usize % 2];
            (format!("{class}/{n}.png"), image(5_000 + n))
        })
        .collect();
    let (dir, said, _) = validated(&few);
    assert_eq!(said, Validated::Accepted);
    let mut plan = material.plan(recipe());
    plan.validation_pack = Some(dir.path().join(validate::PACK));
    let samples = Samples::open(&plan).unwrap();
    let Targets::Class(labels) = &samples.targets else {
        panic!("another task")
    };
    let validated: BTreeSet<usize> = samples.validation.iter().map(|&at| labels[at]).collect();
    assert_eq!(validated, BTreeSet::from([1, 2]));
    assert_eq!(samples.classes, ["ants", "mice", "zebras"]);
}
