//! Small real data: archives made of the demo's clip art, and published weights. `make demo-data`
//! downloads both.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use zip::{ZipWriter, write::SimpleFileOptions};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder that `make demo-data` fills.
pub fn demo() -> PathBuf {
    let folder = root().join(".deps/demo");
    assert!(
        folder.exists(),
        "no {}: run `make demo-data` first",
        folder.display()
    );
    folder
}

/// EfficientNet-Lite0 as published: a legacy torch pickle.
pub fn lite0_weights() -> Vec<u8> {
    let path = find(&demo().join("lite0"), "efficientnet-lite0-57934424.pth");
    fs::read(path).unwrap()
}

/// ImageNet photos that come with foolbox, each with its class.
pub fn foolbox_photos() -> Vec<(Vec<u8>, i64)> {
    files_below(&demo().join("foolbox/foolbox/data"))
        .iter()
        .filter_map(|path| {
            let name = Path::new(path).file_stem()?.to_str()?;
            let (_, class) = name.strip_prefix("imagenet_")?.split_once('_')?;
            Some((fs::read(path).unwrap(), class.parse().unwrap()))
        })
        .collect()
}

/// All of the six-category clip art that the demo trains on.
pub fn clipart() -> Vec<u8> {
    fs::read(demo().join("clipart.zip")).unwrap()
}

/// The first `per_class` images of some of the clip-art categories.
pub fn clipart_subset(classes: &[&str], per_class: usize) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(Cursor::new(clipart())).unwrap();
    let mut names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    names.sort();
    let mut entries = Vec::new();
    for class in classes {
        let of_class = names
            .iter()
            .filter(|name| name.split('/').any(|part| part == *class) && !name.ends_with('/'));
        let chosen: Vec<&String> = of_class.take(per_class).collect();
        assert_eq!(chosen.len(), per_class, "clip art of {class}");
        for (i, name) in chosen.into_iter().enumerate() {
            let mut bytes = Vec::new();
            std::io::copy(&mut archive.by_name(name).unwrap(), &mut bytes).unwrap();
            entries.push((format!("{class}/{i}.png"), bytes));
        }
    }
    zip(&entries)
}

/// The files of a zip archive, by their names.
pub fn unzip(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        files.insert(entry.name().unwrap().into_owned(), bytes);
    }
    files
}

/// A zip archive of these entries.
pub fn zip<N: AsRef<str>, B: AsRef<[u8]>>(entries: &[(N, B)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer
            .start_file(name.as_ref(), SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes.as_ref()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The one file of that name somewhere below `folder`.
pub fn find(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}; run `make demo-data`", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return path;
            }
        }
    }
    panic!(
        "no {name} below {}: run `make demo-data` first",
        folder.display()
    );
}

/// Paths of all regular files below a folder, in order; none when the folder is not there.
pub fn files_below(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    found
}

/// Files that work has left in a worker's folder: all but the lock of the idle trainer's home.
pub fn files_of_work(worker: &Path) -> Vec<String> {
    let mut found = files_below(worker);
    found.retain(|path| !(path.contains("/jobs/warm-") && path.ends_with(".lock")));
    found
}
