use super::*;
use crate::data::{layout, target::Target};

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 1_000,
    unpacked_bytes: 1 << 20,
    entry_bytes: 1 << 20,
    ratio: 100,
    page_bytes: 16 << 20,
    pixels: 1,
    report_problems: 100,
    thumbnails: 100,
};

type Outcome = Result<(Layout, Vec<Problem>), Vec<Problem>>;

/// Reads empty images with these tables.
fn read(images: &[&str], tables: &[(&str, &str)]) -> Outcome {
    let mut files: Vec<(&str, &str)> = images.iter().map(|path| (*path, "")).collect();
    files.extend(tables);
    files.sort_unstable();
    let entries: Vec<Entry> = files
        .iter()
        .map(|(path, text)| Entry {
            path: (*path).to_owned(),
            offset: 0,
            size: text.len() as u64,
        })
        .collect();
    let content = |entry: &Entry| {
        let found = files.iter().find(|(path, _)| *path == entry.path);
        found.unwrap().1.as_bytes()
    };
    let folders = layout::read(&entries, &[]);
    read_tables(&entries, &content, folders, &LIMITS)
}

/// Classes, warnings' codes, and the class of each image in the order of paths.
#[track_caller]
fn labels(images: &[&str], tables: &[(&str, &str)]) -> (Vec<String>, Vec<String>, Vec<Vec<usize>>) {
    let (layout, warnings) = read(images, tables).unwrap_or_else(|error| panic!("{error:?}"));
    let targets = layout.files.iter().map(|file| match &file.target {
        Target::Value(value) => vec![*value as usize],
        target => target.classes().to_vec(),
    });
    let targets = targets.collect();
    let warnings = warnings.into_iter().map(|warning| warning.code);
    (layout.classes, warnings.collect(), targets)
}

const FLAT: [&str; 4] = [
    "images/a.png",
    "images/b.png",
    "images/c.jpg",
    "images/d.jpg",
];
const TREE: [&str; 4] = ["p0/a.png", "p0/b.png", "p1/c.jpg", "p1/d.jpg"];

/// Each names the same images with the same labels, crosswise to the folders.
#[test]
fn tables_are_read_under_any_name() {
    let table = |files: [&str; 4]| {
        let labels = ["red", "blue", "red", "blue"];
        let rows = files
            .iter()
            .zip(labels)
            .map(|(file, label)| format!("{file},{label}\n"));
        rows.collect::<String>()
    };
    let with_paths = table(TREE);
    let with_names = table(["a.png", "b.png", "c.jpg", "d.jpg"]);
    let with_stems = table(["a", "b", "c", "d"]);
    let far = table([
        "/kaggle/input/a.png",
        "/kaggle/input/b.png",
        "C:\\x\\c.jpg",
        "..\\d.jpg",
    ]);
    for (name, text) in [
        ("labels.csv", format!("path,label\n{with_paths}")),
        ("manifest.csv.txt", format!("path,label\n{with_paths}")),
        (
            "deep/in/folders/x.csv",
            format!("image,class,width\n{}", with_names.replace('\n', ",7\n")),
        ),
        ("p0/metadata.csv", format!("file_name,label\n{with_names}")),
        ("train.csv", format!("id,breed\n{with_stems}")),
        ("list.txt", with_paths.replace(',', " ")),
        ("list.tsv", with_paths.replace(',', "\t")),
        (
            "labels.csv",
            format!(",filename,color\n{with_names}")
                .replace("a.png", "0,a.png")
                .replace("b.png", "1,b.png")
                .replace("c.jpg", "2,c.jpg")
                .replace("d.jpg", "3,d.jpg"),
        ),
        ("labels.csv", format!("file,label\n{far}")),
        (
            "labels.json",
            "{\"a.png\": \"red\", \"b.png\": \"blue\", \"c.jpg\": \"red\", \"d.jpg\": \"blue\"}"
                .to_owned(),
        ),
        (
            "_classes.csv",
            "filename, blue, red\na.png,0,1\nb.png,1,0\nc.jpg,0,1\nd.jpg,1,0\n".to_owned(),
        ),
    ] {
        for images in [TREE, FLAT] {
            if images == FLAT && (text.contains("p0/") || name.starts_with("p0")) {
                continue;
            }
            let (classes, warnings, targets) = labels(&images, &[(name, &text)]);
            assert_eq!(classes, ["blue", "red"], "{name}: {text}");
            assert_eq!(targets, [[1], [0], [1], [0]], "{name}: {text}");
            assert_eq!(warnings, ["labels_from_table"], "{name}");
        }
    }
}

#[test]
fn tables_that_say_what_the_folders_say_change_nothing() {
    for (name, text) in [
        ("README.md", "# Images\n\np0/a.png is nice\n"),
        ("LICENSE.txt", "Do with a.png what you like.\n"),
        ("classes.txt", "p0\np1\n"),
        (
            "labels.csv",
            "path,label\np0/a.png,p0\np0/b.png,p0\np1/c.jpg,p1\np1/d.jpg,p1\n",
        ),
        (
            "labels.csv",
            "path,label\np0/a.png,0\np0/b.png,0\np1/c.jpg,1\np1/d.jpg,1\n",
        ),
        (
            "sizes.csv",
            "path,width,height\np0/a.png,10,20\np0/b.png,10,20\np1/c.jpg,1,2\np1/d.jpg,1,2\n",
        ),
        ("sampleSubmission.csv", "id,label\na,0\nb,1\nc,0\nd,1\n"),
        ("test.csv", "image\na.png\nb.png\n"),
        (
            "constant.csv",
            "image,source\na.png,web\nb.png,web\nc.jpg,web\nd.jpg,web\n",
        ),
        ("numbers.csv", "n,text\n1,one\n2,two\n"),
    ] {
        let (classes, warnings, targets) = labels(&TREE, &[(name, text)]);
        assert_eq!(classes, ["p0", "p1"], "{name}");
        let in_folders = match name {
            "LICENSE.txt" | "README.md" => &targets[..],
            _ => &targets[..4],
        };
        assert_eq!(in_folders, [[0], [0], [1], [1]], "{name}");
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }
}

#[test]
fn what_cannot_be_told_is_refused_by_name() {
    let two =
        "image,species,breed\na.png,cat,persian\nb.png,dog,pug\nc.jpg,cat,siam\nd.jpg,dog,pug\n";
    let other = "image,camera,place\na.png,x,s\nb.png,y,t\nc.jpg,x,t\nd.jpg,y,s\n";
    for (name, text) in [("labels.csv", two), ("annotations.csv", other)] {
        for images in [TREE, FLAT] {
            let problems = read(&images, &[(name, text)]).unwrap_err();
            let [problem] = &problems[..] else {
                panic!("{problems:?}");
            };
            assert_eq!(
                (problem.code.as_str(), problem.path.as_str()),
                ("invalid_manifest", name)
            );
            assert!(problem.message.contains("manifest.csv"), "{problem:?}");
        }
    }
    // Beside folders of classes, a table that need not have labels is named, not refused.
    let (classes, warnings, _) = labels(&TREE, &[("photographers.csv", other)]);
    assert_eq!(
        (classes.len(), warnings),
        (2, vec!["table_not_read".to_owned()])
    );
    assert!(read(&FLAT, &[("photographers.csv", other)]).is_err());
}

#[test]
fn tables_in_split_folders_give_the_splits() {
    let images = [
        "test/a.png",
        "test/b.png",
        "train/a.png",
        "train/b.png",
        "valid/a.png",
        "valid/b.png",
    ];
    let table = "file_name,label\na.png,red\nb.png,blue\n";
    let tables = [
        "train/metadata.csv",
        "valid/metadata.csv",
        "test/metadata.csv",
    ];
    let (layout, _) = read(&images, &tables.map(|name| (name, table))).unwrap();
    let splits: Vec<_> = layout.files.iter().map(|file| file.split).collect();
    let [test, train, valid] = [Split::Test, Split::Train, Split::Validation].map(Some);
    assert_eq!(splits, [test, test, train, train, valid, valid]);
    assert_eq!(layout.classes, ["blue", "red"]);
    // By the images' folders, where one table has all.
    let rows =
        images.map(|path| format!("{path},{}\n", if path.contains('a') { "x" } else { "y" }));
    let one = format!("path,label\n{}", rows.concat());
    let (layout, _) = read(&images, &[("labels.csv", &one)]).unwrap();
    assert_eq!(layout.files[2].split, train);
}

#[test]
fn several_labels_and_numbers_are_read() {
    let coco = r#"{"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 8}, {"image_id": 2, "category_id": 8}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]}"#;
    let (classes, _, targets) = labels(&FLAT[..2], &[("_annotations.coco.json", coco)]);
    assert_eq!(classes, ["cat", "dog"]);
    assert_eq!(targets, [vec![0, 1], vec![1]]);
    let several = "filename,cat,dog\na.png,1,1\nb.png,0,0\n";
    let (_, _, targets) = labels(&FLAT[..2], &[("_classes.csv", several)]);
    assert_eq!(targets, [vec![0, 1], vec![]]);
    let (classes, _, targets) = labels(&FLAT[..2], &[("x.csv", "image,value\na.png,3\nb.png,4\n")]);
    assert!(classes.is_empty());
    assert_eq!(targets, [[3], [4]]);
}

#[test]
fn rows_that_contradict_or_name_nothing_are_problems_with_their_line() {
    let rows = "path,label\na.png,x\nb.png,y\na.png,y\nmissing.png,x\nc.jpg,\n";
    let problems = read(&FLAT, &[("labels.csv", rows)]).unwrap_err();
    let found: Vec<_> = problems
        .iter()
        .map(|one| (one.code.as_str(), one.line))
        .collect();
    assert_eq!(
        found,
        [
            ("duplicate_path", Some(4)),
            ("missing_file", Some(5)),
            ("missing_label", Some(6))
        ]
    );
}

#[test]
fn data_sets_of_another_kind_are_named() {
    let yolo = ["train/images/a.png", "train/images/b.png"];
    let boxes = [
        ("train/labels/a.txt", "0 0.5 0.5 1 1"),
        ("train/labels/b.txt", "1 0.5 0.5 1 1"),
    ];
    let problems = read(&yolo, &boxes).unwrap_err();
    assert!(
        problems[0].message.contains("object detection"),
        "{problems:?}"
    );
    let problems = read(
        &[],
        &[
            ("train.zip", "PK"),
            ("sampleSubmission.csv", "id,label\n1,0\n"),
        ],
    )
    .unwrap_err();
    assert_eq!(problems[0].path, "train.zip");
    assert!(problems[0].message.contains("unpack"), "{problems:?}");
}
