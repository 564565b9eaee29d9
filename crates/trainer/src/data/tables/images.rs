//! The images of an archive, and which of them a cell of a table names.

use std::collections::HashMap;

use crate::data::{
    archive::{Entry, entry_path},
    layout::is_named_like_an_image,
    manifest::nfc,
};

/// The images of an archive, by all that a cell may say.
pub(super) struct Images<'a> {
    pub(super) paths: HashMap<String, usize>,
    /// `None` where two have the name.
    pub(super) names: HashMap<&'a str, Option<usize>>,
    pub(super) stems: HashMap<&'a str, Option<usize>>,
}

/// How surely a cell names an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// A name without its ending.
    Stem,
    Name,
    Path,
}

impl<'a> Images<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Self {
        let mut images = Self {
            paths: HashMap::new(),
            names: HashMap::new(),
            stems: HashMap::new(),
        };
        for (index, entry) in entries.iter().enumerate() {
            let path = entry.path.as_str();
            if !is_named_like_an_image(path) {
                continue;
            }
            images.paths.insert(nfc(path), index);
            let name = path.rsplit('/').next().unwrap_or(path);
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            for (map, key) in [(&mut images.names, name), (&mut images.stems, stem)] {
                map.entry(key)
                    .and_modify(|found| *found = None)
                    .or_insert(Some(index));
            }
        }
        images
    }

    /// The image that a cell of a table in `folder` names.
    pub(super) fn find(&self, folder: &str, cell: &str) -> Option<(Match, usize)> {
        if cell.is_empty() || cell.len() > 4_096 {
            return None;
        }
        let path = cell.replace('\\', "/");
        let normal = entry_path::normal(path.as_bytes()).ok().flatten();
        for path in normal
            .iter()
            .flat_map(|path| [format!("{folder}{path}"), path.clone()])
        {
            if let Some(&index) = self.paths.get(&nfc(&path)) {
                return Some((Match::Path, index));
            }
        }
        let name = path.rsplit('/').next().unwrap_or(&path);
        let by_name = self.names.get(name).copied().flatten();
        let by_stem = || self.stems.get(name).copied().flatten();
        by_name
            .map(|index| (Match::Name, index))
            .or_else(|| by_stem().map(|index| (Match::Stem, index)))
    }
}
