//! Stored recipes outlive the version that wrote them.

use std::{fs, path::Path};

use super::*;

/// A recipe of each version, as it was stored: `<version>.json`.
const RECIPES: &str = "tests/fixtures/recipes";
const FIRST_RELEASED: u32 = 2;

#[test]
fn recipes_of_every_version_are_read() {
    for version in FIRST_RELEASED..=SPEC_VERSION {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{RECIPES}/{version}.json"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = serde_json::from_str::<Recipe>(&text);
        assert!(
            read.is_ok(),
            "a stored recipe of version {version} cannot be read: {read:?}; give new fields \
             `#[serde(default = …)]` with what a recipe without them means"
        );
    }
}

#[test]
fn a_changed_recipe_has_a_new_version() {
    let path = format!("{RECIPES}/{SPEC_VERSION}.json");
    let stored = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
    let now = serde_json::to_string_pretty(&Recipe::base(Task::SingleLabelClassification)).unwrap();
    assert_eq!(
        stored.trim_end(),
        now,
        "the recipe has changed: raise SPEC_VERSION, and store the right side as the next version \
         beside {path}"
    );
}
