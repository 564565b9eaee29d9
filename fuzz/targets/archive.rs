//! Archives: whatever is unpacked lies within the limits, under names that lead nowhere else, and
//! is the same when it is packed and unpacked again.

#![no_main]

use std::{
    fs,
    io::{Read as _, Seek as _},
};

use libfuzzer_sys::fuzz_target;
use rehead_domain::work::DatasetLimits;
use rehead_fuzz::{OneFile, check_problems, within};
use rehead_trainer::data::archive::{ArchiveError, Spool, unpack};

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 100,
    unpacked_bytes: 1 << 20,
    entry_bytes: 1 << 19,
    ratio: 100,
    page_bytes: 16 << 20,
    pixels: 1_000,
    report_problems: 10,
    thumbnails: 100,
};
/// Buffers, tables of the decompressors, and the directory.
const MEMORY: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some(spool) = unpacked(bytes) else { return };
    let contents = contents(&spool);
    let mut packed = tar::Builder::new(Vec::new());
    for (entry, content) in spool.entries.iter().zip(&contents) {
        let mut header = tar::Header::new_gnu();
        header.set_size(entry.size);
        packed
            .append_data(&mut header, &entry.path, &content[..])
            .expect("a tar in memory");
    }
    let again = unpacked(&packed.into_inner().expect("a tar in memory"));
    let again = again.expect("what was unpacked can be packed");
    // In a tar of another order they lie elsewhere.
    let names = |spool: &Spool| -> Vec<String> {
        let paths = spool.entries.iter().map(|entry| entry.path.clone());
        paths.collect()
    };
    assert_eq!(names(&again), names(&spool));
    assert!(self::contents(&again) == contents, "other contents");
});

fn unpacked(bytes: &[u8]) -> Option<Spool> {
    let file = OneFile::new(bytes);
    let result = within(MEMORY, || unpack(&file.path(), &LIMITS, &file.folder()));
    let left = fs::read_dir(file.folder()).expect("its folder").count();
    assert_eq!(left, 1, "a file is left");
    let spool = match result {
        Ok(spool) => spool,
        Err(ArchiveError::Refused(problem)) => {
            check_problems(&[problem], 1);
            return None;
        }
        Err(ArchiveError::Io(error)) => panic!("{error}"),
    };
    assert!(spool.entries.len() + spool.folders.len() <= LIMITS.entries as usize);
    assert!(spool.entries.is_sorted_by(|a, b| a.path < b.path));
    let names = spool
        .entries
        .iter()
        .map(|entry| &entry.path)
        .chain(&spool.folders);
    for name in names {
        let is_inside = |part: &str| !part.is_empty() && part.bytes().any(|byte| byte != b'.');
        assert!(
            name.split('/').all(is_inside) && !name.contains(['\0', '\\']),
            "{name:?}"
        );
    }
    let total: u64 = spool.entries.iter().map(|entry| entry.size).sum();
    let written = spool.bytes.metadata().expect("its size").len();
    assert!(
        total == written && total <= LIMITS.unpacked_bytes,
        "{total} of {written}"
    );
    assert!(
        spool
            .entries
            .iter()
            .all(|entry| entry.size <= LIMITS.entry_bytes)
    );
    Some(spool)
}

fn contents(spool: &Spool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut bytes = &spool.bytes;
    bytes.rewind().expect("a file that was just written");
    bytes
        .read_to_end(&mut all)
        .expect("a file that was just written");
    let content = |offset: u64, size: u64| all[offset as usize..(offset + size) as usize].to_vec();
    spool
        .entries
        .iter()
        .map(|entry| content(entry.offset, entry.size))
        .collect()
}
