//! Manifests: rows are samples of files that are there, with labels that are there, or problems
//! that are listed up to a limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rehead_domain::work::DatasetLimits;
use rehead_fuzz::{check_problems, within};
use rehead_trainer::data::{archive::Entry, manifest, target::Target};

const LIMITS: DatasetLimits = DatasetLimits {
    entries: 50,
    unpacked_bytes: 1 << 20,
    entry_bytes: 1 << 20,
    ratio: 100,
    page_bytes: 16 << 20,
    pixels: 1_000,
    report_problems: 10,
    thumbnails: 100,
};
const FILES: [&str; 9] = [
    "cats/1.png",
    "cats/2.png",
    "dogs/1.png",
    "dogs/\u{e9}.png",
    "manifest.csv",
    "p/q/r.jpg",
    "x.png",
    "y z.png",
    "z,z.png",
];

fuzz_target!(|bytes: &[u8]| {
    let entry = |path: &&str| Entry {
        path: (*path).to_owned(),
        offset: 0,
        size: 1,
    };
    let entries: Vec<Entry> = FILES.iter().map(entry).collect();
    let found = manifest::find(&entries).expect("one manifest");
    let found = found.expect("one manifest");
    let memory = (4 << 20) + 400 * bytes.len();
    let read = within(memory, || manifest::read(&entries, &found, bytes, &LIMITS));
    let (layout, warnings) = match read {
        Ok(read) => read,
        // One more counts those that are not listed.
        Err(problems) => return check_problems(&problems, LIMITS.report_problems as usize + 1),
    };
    if !warnings.is_empty() {
        check_problems(&warnings, LIMITS.report_problems as usize);
    }
    assert!(layout.classes.is_sorted_by(|a, b| a < b));
    assert!(!layout.files.is_empty() && layout.files.len() <= LIMITS.entries as usize);
    assert!(layout.files.is_sorted_by(|a, b| a.entry < b.entry));
    for file in &layout.files {
        assert!(file.entry < entries.len() && file.entry != found.entry);
        match &file.target {
            Target::Class(class) => assert!(*class < layout.classes.len()),
            Target::Classes(classes) => {
                assert!(classes.iter().all(|class| *class < layout.classes.len()));
                assert!(classes.is_sorted_by(|a, b| a < b), "{classes:?}");
            }
            Target::Value(value) => assert!(value.is_finite()),
        }
    }
});
