//! docs/failures.md names the test of each failure; here both are held equal.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use crate::support::data::files_below;

#[test]
fn the_table_of_failures_and_the_tests_are_equal() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let functions: String = files_below(&root.join("tests/it"))
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let function = Regex::new(r"(?m)^(?:async )?fn (\w+)\(\) \{").unwrap();
    let functions: BTreeSet<&str> = function
        .captures_iter(&functions)
        .map(|found| found.extract::<1>().1[0])
        .collect();

    let page = include_str!("../../../docs/failures.md");
    let row = Regex::new(r"(?m)^\| F(\d+) \| [^|]+ \| `(\w+)` \|").unwrap();
    let listed: Vec<(u32, &str)> = row
        .captures_iter(page)
        .map(|found| found.extract::<2>().1)
        .map(|[number, test]| (number.parse().unwrap(), test))
        .collect();
    let prefix = Regex::new(r"^(?:f\d\d_)+").unwrap();
    for (number, test) in &listed {
        assert!(
            functions.contains(test),
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
            let wanted = (found[1].parse().unwrap(), *test);
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
