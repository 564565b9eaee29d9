//! docs/failures.md names the test of each failure; here both are held equal.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use crate::support::data::files_below;

const PAGE: &str = include_str!("../../../docs/failures.md");

/// Functions of the tests that take nothing, which tests are.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = ["tests/it", "crates/trainer/tests/it"]
        .iter()
        .flat_map(|folder| files_below(&root.join(folder)))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let function = Regex::new(r"(?m)^(?:async )?fn (\w+)\(\) \{").unwrap();
    function
        .captures_iter(&sources)
        .map(|found| found[1].to_owned())
        .collect()
}

/// `make mutations` shows that they fail.
#[test]
fn the_table_of_mutations_names_every_patch_and_real_tests() {
    let functions = functions();
    let row = Regex::new(r"(?m)^\| `([a-z-]+)` \| [^|]+ \| (`.+`) \|$").unwrap();
    let mut listed = BTreeSet::new();
    for found in row.captures_iter(PAGE) {
        let (_, [mutation, tests]) = found.extract();
        listed.insert(format!("{mutation}.patch"));
        for test in tests.split(", ").map(|test| test.trim_matches('`')) {
            assert!(functions.contains(test), "`{test}` of `{mutation}`");
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mutations");
    let patches = fs::read_dir(folder).unwrap();
    let patches: BTreeSet<String> = patches
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, patches);
}

#[test]
fn the_table_of_failures_and_the_tests_are_equal() {
    let functions = functions();
    let page = PAGE;
    let row = Regex::new(r"(?m)^\| F(\d+) \| [^|]+ \| `(\w+)` \|").unwrap();
    let listed: Vec<(u32, &str)> = row
        .captures_iter(page)
        .map(|found| found.extract::<2>().1)
        .map(|[number, test]| (number.parse().unwrap(), test))
        .collect();
    let prefix = Regex::new(r"^(?:f\d\d_)+").unwrap();
    for (number, test) in &listed {
        assert!(
            functions.contains(*test),
            "docs/failures.md names `{test}`, which is no test"
        );
        if let Some(numbers) = prefix.find(test) {
            assert!(
                numbers.as_str().contains(&format!("f{number:02}_")),
                "`{test}` is not of F{number}"
            );
        }
    }
    let number = Regex::new(r"f(\d\d)_").unwrap();
    for test in functions.iter().filter(|test| prefix.is_match(test)) {
        let head: String = test
            .split_inclusive('_')
            .take_while(|part| number.is_match(part))
            .collect();
        for found in number.captures_iter(&head) {
            let wanted = (found[1].parse().unwrap(), test.as_str());
            assert!(
                listed.contains(&wanted),
                "docs/failures.md lacks F{} with `{test}`",
                wanted.0
            );
        }
    }
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(listed, sorted, "the table is not in order");
}
