use std::fs;

use super::*;

fn sample(path: &str, label: usize) -> Sample<'_> {
    Sample {
        path,
        bytes: path.as_bytes(),
        sha256: [label as u8; 32],
        label,
        split: Split::Test,
        width: 3,
        height: 2,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let classes = ["a\"b".to_owned(), "ü".to_owned()];
    write(&path, &classes, &[sample("x/1", 1), sample("y/22", 0)]).unwrap();
    let pack = Pack::open(&path).unwrap();
    assert_eq!((pack.len(), pack.classes()), (2, &classes[..]));
    assert_eq!(
        (pack.path(1), pack.bytes(1), pack.label(1)),
        ("y/22", &b"y/22"[..], 0)
    );
    assert_eq!(
        (pack.sha256(0), pack.split(0), pack.size(0)),
        ([1; 32], Split::Test, (3, 2))
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_index_that_points_outside_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let classes = ["a".to_owned()];
    write(&path, &classes, &[sample("x/1", 1)]).unwrap();
    assert!(
        matches!(Pack::open(&path), Err(PackError::Invalid(_))),
        "a label that no class has"
    );
    write(&path, &classes, &[sample("x/1", 0), sample("x/2", 0)]).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(Pack::open(&path).is_err(), "cut at {cut}");
    }
    // The second offset, behind the header and the first.
    let header_bytes = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let mut bent = whole.clone();
    bent[8 + header_bytes + 8..][..8].copy_from_slice(&i64::MAX.to_le_bytes());
    fs::write(&path, &bent).unwrap();
    assert!(matches!(Pack::open(&path), Err(PackError::Invalid(_))));
}
