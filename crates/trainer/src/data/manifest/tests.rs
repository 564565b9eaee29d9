use super::*;

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 10,
    unpacked_bytes: 0,
    entry_bytes: 0,
    ratio: 0,
    page_bytes: 0,
    pixels: 0,
    report_problems: 20,
    thumbnails: 100,
};

fn entries(paths: &[&str]) -> Vec<Entry> {
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    let entry = |path: &str| Entry {
        path: path.to_owned(),
        offset: 0,
        size: 1,
    };
    paths.into_iter().map(entry).collect()
}

/// Reads a manifest in an archive with the images a, b, c and d.
fn result(text: &str) -> Result<(Layout, Vec<Problem>), Vec<Problem>> {
    let entries = entries(&["a.png", "b.png", "c.png", "d.png", "manifest.csv"]);
    let found = find(&entries).unwrap().unwrap();
    read(&entries, &found, text.as_bytes(), &LIMITS)
}

fn layout(text: &str) -> Layout {
    result(text)
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .0
}

fn targets(text: &str) -> Vec<Target> {
    let files = layout(text).files.into_iter();
    files.map(|file| file.target).collect()
}

/// Line and code of each problem.
fn problems(text: &str) -> Vec<(u64, String)> {
    let problems = result(text).unwrap_err().into_iter();
    problems
        .map(|problem| {
            assert_eq!(problem.path, "manifest.csv");
            assert!(problem.message.len() > 15, "{problem:?}");
            (problem.line.unwrap_or(0), problem.code)
        })
        .collect()
}

fn expect(text: &str, wanted: &[(u64, &str)]) {
    let found = problems(text);
    let found: Vec<(u64, &str)> = found
        .iter()
        .map(|(line, code)| (*line, code.as_str()))
        .collect();
    assert_eq!(found, wanted, "{text}");
}

#[test]
fn a_manifest_is_at_the_root_or_in_the_folder_around_everything() {
    let found = |paths: &[&str]| find(&entries(paths)).map(|found| found.map(|found| found.root));
    assert_eq!(found(&["a.png", "manifest.csv"]), Ok(Some(String::new())));
    let nested = ["x/y/a.png", "x/y/manifest.jsonl", "x/y/z/b.png"];
    assert_eq!(found(&nested), Ok(Some("x/y/".to_owned())));
    assert_eq!(
        found(&["cats/a.png", "cats/manifest.csv", "dogs/b.png"]),
        Ok(None)
    );
    assert_eq!(found(&["a.png"]), Ok(None));
    let both = find(&entries(&["manifest.csv", "manifest.jsonl"])).unwrap_err();
    assert_eq!(both.code, "invalid_manifest");
}

#[test]
fn a_manifest_is_found_in_any_case_and_beside_a_readme() {
    let found = |paths: &[&str]| find(&entries(paths)).map(|found| found.map(|found| found.root));
    assert_eq!(
        found(&["Manifest.CSV", "p0/a.png"]),
        Ok(Some(String::new()))
    );
    let beside = ["README.md", "data/manifest.csv", "data/p0/a.png"];
    assert_eq!(found(&beside), Ok(Some("data/".to_owned())));
}

/// Tables as Excel, pandas, Macs and Windows' programs write them.
#[test]
fn a_table_is_read_as_programs_write_it() {
    let plain = layout("path,label\na.png,cat\nb.png,dog\n");
    for text in [
        "path;label\na.png;cat\nb.png;dog\n",
        "path\tlabel\na.png\tcat\nb.png\tdog\n",
        ",path,label\n0,a.png,cat\n1,b.png,dog\n",
        "Unnamed: 0,path,label\n0,a.png,cat\n1,b.png,dog\n",
        "path,label,\na.png,cat,\nb.png,dog,\n",
        "path,label\na.png,cat,\nb.png,dog,,\n",
        "path, label\na.png, cat\nb.png, \"dog\"\n",
        "\u{feff}path,label\r\na.png,cat\r\nb.png,dog\r\n,\r\n,\r\n",
        "path,label\ra.png,cat\rb.png,dog\r",
        "\u{200b}path,label\n\u{200b}a.png,cat\u{200b}\nb.png,dog\n",
        "Path,Label\na.png,cat\nb.png,dog\n",
        "file_name,class\na.png,cat\nb.png,dog\n",
        "path,label\n.\\a.png,cat\nb.png,dog\n",
        "[{\"path\": \"a.png\", \"label\": \"cat\"},\n {\"path\": \"b.png\", \"label\": \"dog\"}]",
        "{\"file_name\": \"a.png\", \"label\": \"cat\"}\n{\"file_name\": \"b.png\", \"label\": \"dog\"}",
    ] {
        assert_eq!(layout(text), plain, "{text:?}");
    }
    let numbers = layout("path,value\na.png,1.5\nb.png,-2\n");
    assert_eq!(layout("path;value\na.png;1,5\nb.png;-2\n"), numbers);
}

#[test]
fn a_column_under_two_names_is_refused() {
    let twice = "{\"file\": \"a.png\", \"image\": \"b.png\", \"label\": \"cat\"}";
    expect(twice, &[(1, "invalid_manifest")]);
    expect(
        "file,image,label\na.png,b.png,cat\n",
        &[(1, "invalid_manifest")],
    );
}

#[test]
fn lines_of_problems_are_counted_as_editors_do() {
    for (text, line) in [
        ("path,label\ra.png,cat\rx.png,dog\r", 3),
        ("path,label\r\n\r\na.png,cat\r\nx.png,dog\r\n", 4),
        (
            "[{\"path\": \"a.png\", \"label\": \"cat\"},\n\n{\"path\": \"x.png\", \"label\": \"dog\"}]",
            3,
        ),
    ] {
        expect(text, &[(line, "missing_file")]);
    }
}

#[test]
fn names_are_found_in_either_unicode_form() {
    let entries = entries(&["caf\u{e9}.png", "cafe\u{301}2.png", "manifest.csv"]);
    let found = find(&entries).unwrap().unwrap();
    let text = "path,label\ncafe\u{301}.png,a\ncaf\u{e9}2.png,b\n";
    let (layout, _) = read(&entries, &found, text.as_bytes(), &LIMITS).unwrap();
    assert_eq!(layout.files.len(), 2);
}

#[test]
fn the_task_is_told_by_the_labels() {
    use Target::{Class, Classes, Value};
    let single = layout("path,label\nb.png,dog\na.png,cat\n./c.png,cat\n");
    assert_eq!(single.task, Task::SingleLabelClassification);
    assert_eq!(single.classes, ["cat", "dog"]);
    assert_eq!(single.outside, [3]);
    let entries: Vec<usize> = single.files.iter().map(|file| file.entry).collect();
    assert_eq!(entries, [0, 1, 2]);
    assert_eq!(single.files[1].target, Class(1));

    let listed = [Classes(vec![0, 1]), Classes(vec![1]), Classes(vec![])];
    for text in [
        "path,label\na.png,cat|dog\nb.png,dog\nc.png,[]\n",
        "path,labels\na.png,\"[\"\"dog\"\", \"\"cat\"\"]\"\nb.png,dog\nc.png,[]\n",
        "{\"path\":\"a.png\",\"label\":[\"dog\",\"cat\"]}\n\n{\"path\":\"b.png\",\"label\":\"dog\"}\n{\"path\":\"c.png\",\"labels\":[]}",
    ] {
        assert_eq!(layout(text).task, Task::MultiLabelClassification);
        assert_eq!(targets(text), listed, "{text}");
    }
    let bar = "{\"path\":\"a.png\",\"label\":[\"a|b\"]}\n{\"path\":\"b.png\",\"label\":[\"c\"]}";
    assert_eq!(layout(bar).classes, ["a|b", "c"]);

    for text in [
        "path,value\r\na.png,3\r\nb.png, -0.5\r\n",
        "path,label\na.png,3\nb.png,-5e-1\n",
        "{\"path\":\"a.png\",\"label\":3}\n{\"path\":\"b.png\",\"label\":-0.5}",
        "\u{feff}{\"path\":\"a.png\",\"value\":3}\n{\"path\":\"b.png\",\"value\":-0.5}",
    ] {
        assert_eq!(layout(text).task, Task::Regression);
        assert_eq!(targets(text), [Value(3.0), Value(-0.5)], "{text}");
    }

    let (digits, warnings) = result("path,label\na.png,10\nb.png,2\n").unwrap();
    assert_eq!(digits.task, Task::SingleLabelClassification);
    assert_eq!(digits.classes, ["10", "2"]);
    assert_eq!(warnings[0].code, "numeric_classes");
    let (some, warnings) = result("path,label\na.png,10\nb.png,ten\n").unwrap();
    assert_eq!((some.classes.len(), warnings.len()), (2, 0));
}

#[test]
fn the_order_of_rows_and_the_format_change_nothing() {
    let one = layout("path,label,split\na.png,x,train\nb.png,y,val\nc.png,x,test\n");
    let other = "split,path,label\nTEST,c.png,x\nvalidation,b.png,y\nTrain,a.png,x\n";
    assert_eq!(one, layout(other));
    let lines = "{\"path\":\"c.png\",\"split\":\"test\",\"label\":\"x\"}\n{\"path\":\"a.png\",\"label\":\"x\",\"split\":\"train\"}\n{\"path\":\"b.png\",\"label\":\"y\",\"split\":\"valid\"}";
    assert_eq!(one, layout(lines));
    let splits: Vec<Option<Split>> = one.files.iter().map(|file| file.split).collect();
    let wanted = [Split::Train, Split::Validation, Split::Test].map(Some);
    assert_eq!(splits, wanted);
}

#[test]
fn every_problem_comes_with_its_line() {
    expect(
        "path,label,split\n\
         gone.png,cat,train\n\
         a.png,cat,trian\n\
         ../../etc/x,dog,train\n\
         \n\
         b.png,,train\n\
         \"a.png\",\"c\nat\",train\n\
         c.png,dog,\n\
         d.png,dog,train,more\n\
         b.png,cat|,train\n",
        &[
            (2, "missing_file"),
            (3, "invalid_split"),
            (4, "unsafe_path"),
            (6, "missing_label"),
            (7, "duplicate_path"),
            (7, "invalid_class_name"),
            (9, "invalid_split"),
            (10, "invalid_manifest"),
            (11, "invalid_label"),
        ],
    );
    expect(
        "{\"path\":\"a.png\"}\n{\"path\":\"b.png\",\"lable\":\"x\"}\n[1]\n{\"path\":1,\"label\":\"x\"}\n{\"path\":\"c.png\",\"label\":{}}\nnone\n{\"path\":\"d.png\",\"label\":\"x\",\"value\":1}",
        &[
            (1, "missing_label"),
            (2, "invalid_manifest"),
            (3, "invalid_manifest"),
            (4, "invalid_manifest"),
            (5, "invalid_label"),
            (6, "invalid_manifest"),
            (7, "invalid_manifest"),
        ],
    );
    // Lines end in CR LF, and some are empty.
    expect(
        "path,label\r\n\r\na.png,cat\r\n\r\ngone.png,dog\r\n",
        &[(5, "missing_file")],
    );
}

#[test]
fn paths_that_lead_elsewhere_are_refused_row_by_row() {
    for path in [
        "../a.png",
        "/a.png",
        "C:\\x",
        "..././x",
        "a.png\0",
        "x\\..\\..\\y",
    ] {
        expect(
            &format!("path,label\na.png,cat\n{path},dog\n"),
            &[(3, "unsafe_path")],
        );
    }
    let long = format!("path,label\n{},dog\n", "a".repeat(70_000));
    expect(&long, &[(2, "unsafe_path")]);
}

#[test]
fn headers_say_what_they_lack() {
    expect("a.png,cat\nb.png,dog\n", &[(1, "invalid_manifest"); 4]);
    expect("path,label,split,labels\n", &[(1, "invalid_manifest")]);
    expect("path,path,label\n", &[(1, "invalid_manifest")]);
    expect(
        "path,lable\n",
        &[(1, "invalid_manifest"), (1, "invalid_manifest")],
    );
    expect("", &[(0, "invalid_manifest")]);
    expect("path,label\n", &[(0, "invalid_manifest")]);
    let entries = entries(&["manifest.csv"]);
    let found = find(&entries).unwrap().unwrap();
    let latin = read(&entries, &found, b"path,label\na.png,caf\xe9\n", &LIMITS).unwrap_err();
    assert_eq!(
        (latin[0].line, latin[0].code.as_str()),
        (Some(2), "invalid_manifest")
    );
}

#[test]
fn kinds_of_labels_do_not_mix() {
    let mixed = "mixed_labels";
    expect(
        "path,label\na.png,0.5\nb.png,cat\nc.png,1.5\n",
        &[(3, mixed)],
    );
    expect(
        "path,label\na.png,0.5\nb.png,cat\nc.png,dog\n",
        &[(2, mixed)],
    );
    expect("path,label\na.png,0.5\nb.png,a|b\nc.png,1\n", &[(3, mixed)]);
    let typed = "{\"path\":\"a.png\",\"label\":1}\n{\"path\":\"b.png\",\"label\":\"1\"}\n{\"path\":\"c.png\",\"label\":\"x\"}";
    expect(typed, &[(1, mixed)]);
    let columns = "{\"path\":\"a.png\",\"value\":1}\n{\"path\":\"b.png\",\"label\":\"x\"}";
    expect(columns, &[(2, mixed)]);
}

#[test]
fn limits_are_held_at_the_limit_and_one_past() {
    let list = |count: usize| {
        (0..count)
            .map(|n| format!("l{n}"))
            .collect::<Vec<_>>()
            .join("|")
    };
    let of = |labels: &str| format!("path,label\na.png,{labels}\nb.png,x\n");
    assert_eq!(
        layout(&of(&list(limits::LABELS))).classes.len(),
        limits::LABELS + 1
    );
    expect(&of(&list(limits::LABELS + 1)), &[(2, "too_many_labels")]);

    let name = |count: usize| "é".repeat(count);
    assert_eq!(
        layout(&of(&name(limits::LABEL_CHARACTERS))).classes.len(),
        2
    );
    expect(
        &of(&name(limits::LABEL_CHARACTERS + 1)),
        &[(2, "invalid_class_name")],
    );

    let value = |value: &str| format!("path,value\na.png,{value}\nb.png,0\n");
    assert_eq!(targets(&value("-1e12"))[0], Target::Value(-1e12));
    for bad in ["1.0000000001e12", "nan", "inf", "1,5", "cat", "\"1,5\""] {
        assert!(result(&value(bad)).is_err(), "{bad}");
    }
    expect(&value("nan"), &[(2, "invalid_number")]);

    let rows = |count: usize| {
        let rows = (0..count).map(|n| format!("{n}.png,{n}.5\n"));
        format!("path,value\n{}", rows.collect::<String>())
    };
    let last = |text: &str| problems(text).into_iter().map(|(_, code)| code).next_back();
    assert_eq!(last(&rows(10)).as_deref(), Some("missing_file"));
    assert_eq!(last(&rows(11)).as_deref(), Some("too_many_rows"));
    let few = DatasetLimits {
        report_problems: 3,
        ..LIMITS
    };
    let entries = entries(&["manifest.csv"]);
    let found = find(&entries).unwrap().unwrap();
    // A problem of all rows takes the place of one of a line.
    let splits = (0..9).map(|n| format!("{n}.png,x,validation\n"));
    let splits = format!("path,label,split\n{}", splits.collect::<String>());
    let listed = read(&entries, &found, splits.as_bytes(), &few).unwrap_err();
    assert_eq!(listed.len(), 4, "{listed:?}");
    let listed = read(&entries, &found, rows(9).as_bytes(), &few).unwrap_err();
    assert_eq!(
        (listed.len(), listed[3].code.as_str()),
        (4, "more_problems")
    );
    assert!(
        listed[3].message.contains("and 6 more"),
        "{}",
        listed[3].message
    );
}

#[test]
fn classes_have_a_limit() {
    let classes = |count: usize| {
        let names = (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let rows = names.chunks(1_000).enumerate();
        let rows = rows.map(|(n, names)| format!("{n}.png,{}\n", names.join("|")));
        format!("path,label\n{}", rows.collect::<String>())
    };
    let roomy = DatasetLimits {
        entries: 100,
        ..LIMITS
    };
    let images: Vec<String> = (0..11).map(|n| format!("{n}.png")).collect();
    let mut paths: Vec<&str> = images.iter().map(String::as_str).collect();
    paths.push("manifest.csv");
    let entries = entries(&paths);
    let found = find(&entries).unwrap().unwrap();
    let read = |count| read(&entries, &found, classes(count).as_bytes(), &roomy);
    assert_eq!(
        read(limits::CLASSES).unwrap().0.classes.len(),
        limits::CLASSES
    );
    let past = read(limits::CLASSES + 1).unwrap_err();
    assert_eq!(past[0].code, "too_many_classes");
}

#[test]
fn odd_names_are_kept_as_they_are_and_twins_refused() {
    let odd = [
        "<script>",
        "=HYPERLINK(1)",
        "'; DROP",
        "__proto__",
        "\u{1f431}",
        "a\"b",
    ];
    for name in odd {
        let found = layout(&format!("path,label\na.png,{name}\nb.png,cat\n"));
        assert!(found.classes.iter().any(|class| class == name), "{name}");
    }
    for (one, other) in [("cat", "Cat"), ("caf\u{e9}", "cafe\u{301}")] {
        let text = format!("path,label\na.png,{one}\nb.png,{other}\n");
        assert_eq!(problems(&text).len(), 1, "{one} {other}");
        assert_eq!(problems(&text)[0].1, "class_name_twins");
    }
    assert_eq!(
        layout("path,label\na.png,cat\nb.png,cat \n").classes,
        ["cat"]
    );
}
