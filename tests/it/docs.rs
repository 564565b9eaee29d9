//! The pages that are made from the code, or that speak of it, are current.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use regex::Regex;

use crate::support::data::files_below;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The script also refuses an argument without help.
#[test]
#[cfg_attr(feature = "otel", ignore = "the pages are made without the feature")]
fn reference_pages_are_current() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/reference.py");
    let mut check = Command::new("python3");
    check.arg(script).arg(env!("CARGO_BIN_EXE_rehead"));
    let output = check.arg("--check").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn error_codes_say_what_to_do() {
    let page = page("docs/errors.md");
    let mut column = None;
    let mut rows = 0;
    for line in page.lines() {
        let cells: Vec<&str> = line
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        if line.starts_with("| Code |") {
            column = cells.iter().position(|cell| *cell == "What to do");
        } else if line.starts_with("| `") {
            let cell = cells[column.expect("a table without `What to do`")];
            assert!(!cell.is_empty(), "{line}");
            rows += 1;
        }
    }
    assert!(rows > 100, "only {rows} rows");
}

/// A link to a file of the repository leads to one, and a link to a heading of another page is not
/// checked.
#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = Regex::new(r"\]\(([^)#\s]+)(?:#[^)]*)?\)").unwrap();
    let mut pages = files_below(&root.join("docs"));
    pages
        .extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name).display().to_string()));
    for name in pages.iter().filter(|name| name.ends_with(".md")) {
        let text = fs::read_to_string(name).unwrap();
        for found in link.captures_iter(&text) {
            let target = Path::new(name).with_file_name(&found[1]);
            let outside = found[1].contains("://");
            assert!(outside || target.exists(), "{name} links to {}", &found[1]);
        }
    }
}

/// `trap_N_…` tests are in the packages' tests and in unit tests.
#[test]
fn traps_and_their_tests_are_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut listed, mut tested) = (BTreeSet::new(), BTreeSet::new());
    let row = Regex::new(r"(?m)^\| (\d+) \|").unwrap();
    listed.extend(
        row.captures_iter(&page("docs/traps.md"))
            .map(|row| row[1].to_owned()),
    );
    let test = Regex::new(r"fn trap_(\d+)_").unwrap();
    for folder in ["tests", "crates", "src"] {
        for file in files_below(&root.join(folder))
            .iter()
            .filter(|name| name.ends_with(".rs"))
        {
            let text = fs::read_to_string(file).unwrap();
            tested.extend(test.captures_iter(&text).map(|test| test[1].to_owned()));
        }
    }
    assert_eq!(listed, tested);
}
