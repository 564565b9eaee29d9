//! The files that weights are in: one, or several that an index lists.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::problem::quoted;

/// Weights in one file, the better formats first.
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Files that list those that weights are in.
const INDEXES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];
/// Longest name of such a file in bytes.
const NAME_BYTES: usize = 96;

/// The files that weights are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsFiles {
    Single(&'static str),
    /// The name of the index.
    Several(&'static str),
}

/// Finds the weights among the files of a repository.
///
/// # Errors
/// There are none that can be read.
pub fn weights_files(has: impl Fn(&str) -> bool) -> Result<WeightsFiles, String> {
    for (single, index) in SINGLE.into_iter().zip(INDEXES) {
        if has(single) {
            return Ok(WeightsFiles::Single(single));
        }
        if has(index) {
            return Ok(WeightsFiles::Several(index));
        }
    }
    Err(format!(
        "has neither `{}` nor `{}`; give a repository with weights of PyTorch",
        SINGLE[0], SINGLE[1]
    ))
}

/// The names of the files that an index lists, in order, at most `limit`.
///
/// # Errors
/// It lists no files, too many, or such as the repository does not have.
pub fn shards(
    index: &Value,
    limit: usize,
    has: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let map = index.get("weight_map").and_then(Value::as_object);
    let names = map.map(|map| map.values().map(Value::as_str).collect());
    let names: Option<BTreeSet<&str>> = names.and_then(|names: Option<_>| names);
    let names = names.filter(|names| !names.is_empty());
    let Some(names) = names else {
        return Err("has an index of weights without a `weight_map` of file names".to_owned());
    };
    if names.len() > limit {
        return Err(format!(
            "has weights in {} files, of which at most {limit} are joined; save it in larger ones, or have `--hub-max-files` raised",
            names.len()
        ));
    }
    for name in &names {
        let shown = quoted(name);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !name.chars().all(plain) || name.starts_with('.') || name.len() > NAME_BYTES {
            return Err(format!(
                "has an index of weights that names `{shown}`, which is no file beside it"
            ));
        }
        if !has(name) {
            return Err(format!(
                "lacks `{shown}`, which its index of weights names; upload it there"
            ));
        }
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(names: &[&str]) -> Value {
        let map = names.iter().enumerate();
        let map = map.map(|(tensor, name)| (format!("t{tensor}"), json!(name)));
        json!({"metadata": {"total_size": 1}, "weight_map": map.collect::<serde_json::Map<_, _>>()})
    }

    #[test]
    fn weights_are_found_in_the_better_format() {
        let of = |files: &[&str]| weights_files(|name| files.contains(&name));
        let several = WeightsFiles::Several(INDEXES[0]);
        assert_eq!(of(&[SINGLE[1], INDEXES[0]]), Ok(several));
        assert_eq!(of(&SINGLE), Ok(WeightsFiles::Single(SINGLE[0])));
        assert_eq!(of(&[SINGLE[1]]), Ok(WeightsFiles::Single(SINGLE[1])));
        let message = of(&["tf_model.h5"]).unwrap_err();
        assert!(message.contains("neither `model.safetensors`"), "{message}");
    }

    #[test]
    fn shards_are_listed_once_in_order() {
        let found = shards(&index(&["b.bin", "a.bin", "b.bin"]), 2, |_| true);
        assert_eq!(found.unwrap(), ["a.bin", "b.bin"]);
    }

    #[test]
    fn bad_indexes_are_one_sentence() {
        let many: Vec<String> = (0..4).map(|number| format!("{number}.bin")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(shards(&index(&many[..3]), 3, |_| true).is_ok());
        let long = "a".repeat(NAME_BYTES + 1);
        for (index, words) in [
            (index(&many), "in 4 files, of which at most 3"),
            (index(&["../x.bin"]), "`../x.bin`, which is no file"),
            (index(&["/etc/passwd"]), "which is no file"),
            (index(&["a\\b"]), "which is no file"),
            (index(&[".."]), "which is no file"),
            (index(&[&long]), "which is no file"),
            (index(&["gone.bin"]), "lacks `gone.bin`"),
            (index(&[]), "without a `weight_map`"),
            (json!({"weight_map": {"a": 1}}), "without a `weight_map`"),
            (json!([]), "without a `weight_map`"),
        ] {
            let message = shards(&index, 3, |name| name != "gone.bin").unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        assert!(shards(&self::index(&[&long[1..]]), 3, |_| true).is_ok());
    }
}
