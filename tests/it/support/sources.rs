//! The product's sources, and which file imports from which. The same rules as in
//! `scripts/structure.py`, which measures more; both expect code that rustfmt has formatted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use regex::Regex;

use crate::support::data;

/// The packages by name, each with its folder. Every package knows `rehead_domain` as `domain`.
const PACKAGES: [(&str, &str); 3] = [
    ("rehead", "src/"),
    ("rehead_trainer", "crates/trainer/src/"),
    ("rehead_domain", "crates/domain/src/"),
];
const DOMAIN: &str = "domain";

static TEST_ITEM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"#\[cfg\((?:all\()?test\b[^\]]*\](?:\s*#\[[^\]]*\])*\s*").unwrap()
});
static MODULE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;").unwrap());
static USE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\buse\s+([^;]+);").unwrap());
static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:\w+\s*::\s*)+\w+").unwrap());

type Module = Vec<String>;

pub(crate) struct Source {
    /// Path below the repository's root.
    pub(crate) path: String,
    /// The code without comments, without the contents of strings, and without test items.
    pub(crate) code: String,
    module: Module,
}

impl Source {
    /// The first folder below the package's `src`, or the file's own name at the top; `domain` for
    /// that package.
    pub(crate) fn layer(&self) -> &str {
        layer(&self.path)
    }
}

pub(crate) fn layer(path: &str) -> &str {
    for (package, folder) in PACKAGES {
        if let Some(rest) = path.strip_prefix(folder) {
            let first = rest.split('/').next().unwrap().trim_end_matches(".rs");
            return if package == "rehead_domain" {
                DOMAIN
            } else {
                first
            };
        }
    }
    panic!("{path} is in no package");
}

/// Every Rust file of the product; test modules are left out.
pub(crate) fn read() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut tests) = (Vec::new(), HashSet::new());
    for (package, folder) in PACKAGES {
        for file in data::files_below(&root.join(folder)) {
            let path = Path::new(&file).strip_prefix(root).unwrap();
            let path = path.to_str().unwrap().to_owned();
            let Some(inside) = path[folder.len()..].strip_suffix(".rs") else {
                continue;
            };
            let mut module: Module = vec![package.to_owned()];
            module.extend(inside.split('/').map(str::to_owned));
            if matches!(module.last().unwrap().as_str(), "mod" | "lib" | "main") {
                module.pop();
            }
            let (code, test_modules) =
                without_tests(&code_only(&fs::read_to_string(&file).unwrap()));
            tests.extend(test_modules.into_iter().map(|name| join(&module, &name)));
            sources.push(Source { path, code, module });
        }
    }
    sources
        .retain(|source| (1..=source.module.len()).all(|n| !tests.contains(&source.module[..n])));
    assert!(sources.len() > 100, "found only {} sources", sources.len());
    sources
}

fn join(module: &[String], name: &str) -> Module {
    let mut module = module.to_vec();
    module.push(name.to_owned());
    module
}

/// Takes out comments and what is between quotes.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else if first == 'r' && !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            raw_string_length(rest)
        } else if first == '\'' {
            character_length(rest)
        } else {
            0
        };
        if skipped > 0 {
            if !rest.starts_with('/') {
                code.push_str("\"\"");
            }
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#`; 0 for anything else, such as a name that begins with r.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 2 + hashes;
    text[begin..]
        .find(&end)
        .map_or(text.len(), |at| begin + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Takes out items under `#[cfg(test)]`, and names the test modules that are files.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut modules) = (String::new(), Vec::new());
    let mut rest = code;
    while let Some(found) = TEST_ITEM.find(rest) {
        kept.push_str(&rest[..found.start()]);
        let item = &rest[found.end()..];
        if let Some(module) = MODULE.captures(item) {
            modules.push(module[1].to_owned());
        }
        rest = &item[item_length(item)..];
    }
    kept.push_str(rest);
    (kept, modules)
}

/// The length of an item, up to its `;` or closing brace.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, character) in item.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    item.len()
}

/// Which file imports from which. Arrows from a file to a module above it are kept apart.
pub(crate) struct Imports {
    modules: HashMap<Module, String>,
    arrows: BTreeMap<String, BTreeSet<String>>,
    to_parents: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    pub(crate) fn read(sources: &[Source]) -> Self {
        let mut modules = HashMap::new();
        for source in sources {
            // `main.rs` is a crate of its own beside `lib.rs`.
            let taken = modules.contains_key(&source.module);
            if !taken || source.path.ends_with("/lib.rs") {
                modules.insert(source.module.clone(), source.path.clone());
            }
        }
        let mut imports = Self {
            modules,
            arrows: BTreeMap::new(),
            to_parents: BTreeMap::new(),
        };
        for source in sources {
            imports.add(source);
        }
        imports
    }

    /// Every arrow, as (who imports, what from).
    pub(crate) fn arrows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arrows
            .iter()
            .chain(&self.to_parents)
            .flat_map(|(start, ends)| ends.iter().map(move |end| (start.as_str(), end.as_str())))
    }

    /// Files that need each other, each such set once; imports from parents are left to `upward`.
    pub(crate) fn circles(&self) -> BTreeSet<BTreeSet<&str>> {
        let reachable: BTreeMap<&str, BTreeSet<&str>> = self
            .arrows
            .keys()
            .map(|start| (start.as_str(), self.reachable(start, false)))
            .collect();
        let circle = |start: &str| -> BTreeSet<&str> {
            let back = |other: &&&str| reachable.get(**other).is_some_and(|r| r.contains(start));
            reachable[start].iter().filter(back).copied().collect()
        };
        let circles = reachable.keys().map(|start| circle(start));
        circles.filter(|circle| !circle.is_empty()).collect()
    }

    /// Imports from a parent module that itself needs the importing file.
    pub(crate) fn upward(&self) -> Vec<(&str, &str)> {
        let needs = |parent: &str, child: &str| self.reachable(parent, true).contains(child);
        self.to_parents
            .iter()
            .flat_map(|(child, parents)| {
                parents
                    .iter()
                    .map(move |parent| (child.as_str(), parent.as_str()))
            })
            .filter(|(child, parent)| needs(parent, child))
            .collect()
    }

    fn reachable(&self, start: &str, through_parents: bool) -> BTreeSet<&str> {
        let (mut seen, mut rest) = (BTreeSet::new(), vec![start]);
        while let Some(file) = rest.pop() {
            let up = through_parents.then(|| self.to_parents.get(file)).flatten();
            for other in self.arrows.get(file).into_iter().chain(up).flatten() {
                if seen.insert(other.as_str()) {
                    rest.push(other);
                }
            }
        }
        seen
    }

    fn add(&mut self, source: &Source) {
        let (mut aliases, mut used) = (HashMap::new(), Vec::new());
        for tree in USE.captures_iter(&source.code) {
            for (path, alias) in expand(&tree[1], &[]) {
                match self.resolve(source, &path, &HashMap::new()) {
                    Some((module, true)) => {
                        aliases.insert(alias, module);
                    }
                    Some((module, false)) => used.push(module),
                    None => {}
                }
            }
        }
        for path in PATH.find_iter(&USE.replace_all(&source.code, "")) {
            let path: Module = path
                .as_str()
                .split("::")
                .map(|part| part.trim().to_owned())
                .collect();
            used.extend(
                self.resolve(source, &path, &aliases)
                    .map(|(module, _)| module),
            );
        }
        for module in used {
            if module == source.module {
                continue;
            }
            let arrows = if source.module.starts_with(&module) {
                &mut self.to_parents
            } else {
                &mut self.arrows
            };
            let file = self.modules[&module].clone();
            arrows.entry(source.path.clone()).or_default().insert(file);
        }
    }

    /// The module that a path names an item of, and true when the path is the module itself.
    fn resolve(
        &self,
        source: &Source,
        path: &[String],
        aliases: &HashMap<String, Module>,
    ) -> Option<(Module, bool)> {
        let first = path[0].as_str();
        let mut rest = &path[1..];
        let mut module = if first == "crate" {
            source.module[..1].to_vec()
        } else if matches!(first, "self" | "super") {
            let mut module = source.module.clone();
            rest = path;
            while let Some(step @ ("self" | "super")) = rest.first().map(String::as_str) {
                if step == "super" {
                    module.pop();
                }
                rest = &rest[1..];
            }
            module
        } else if let Some(module) = aliases.get(first) {
            module.clone()
        } else if PACKAGES.iter().any(|(package, _)| *package == first) {
            vec![first.to_owned()]
        } else if self.modules.contains_key(&join(&source.module, first)) {
            join(&source.module, first)
        } else if first == DOMAIN {
            vec!["rehead_domain".to_owned()]
        } else {
            return None;
        };
        while let Some(next) = rest.first() {
            let below = join(&module, next);
            if module.len() == 1 && next == DOMAIN {
                module = vec!["rehead_domain".to_owned()];
            } else if self.modules.contains_key(&below) {
                module = below;
            } else {
                break;
            }
            rest = &rest[1..];
        }
        let is_module = rest.is_empty();
        self.modules
            .contains_key(&module)
            .then_some((module, is_module))
    }
}

/// All paths of a `use` tree, each with the name that it binds.
fn expand(tree: &str, prefix: &[String]) -> Vec<(Module, String)> {
    let parts = |text: &str| -> Module {
        let parts = text
            .split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty());
        prefix
            .iter()
            .cloned()
            .chain(parts.map(str::to_owned))
            .collect()
    };
    let Some((head, body)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = parts(path);
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let Some(last) = path.last().cloned() else {
            return Vec::new();
        };
        let alias = if alias.is_empty() {
            last
        } else {
            alias.trim().to_owned()
        };
        return vec![(path, alias)];
    };
    let prefix = parts(head);
    let body = &body[..body.rfind('}').unwrap()];
    let (mut items, mut depth) = (vec![String::new()], 0);
    for character in body.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if character == ',' && depth == 0 {
            items.push(String::new());
        } else {
            items.last_mut().unwrap().push(character);
        }
    }
    let whole = items.iter().filter(|item| !item.trim().is_empty());
    whole.flat_map(|item| expand(item, &prefix)).collect()
}
