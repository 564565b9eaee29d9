use std::fs;

use super::*;

fn sample<'a>(path: &'a str, target: &'a Target) -> Sample<'a> {
    Sample {
        path,
        bytes: path.as_bytes(),
        sha256: [path.len() as u8; 32],
        target,
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
    let task = Task::SingleLabelClassification;
    let targets = [Target::Class(1), Target::Class(0)];
    let samples = [sample("x/1", &targets[0]), sample("y/22", &targets[1])];
    write(&path, task, &classes, &samples).unwrap();
    let pack = Pack::open(&path).unwrap();
    assert_eq!((pack.len(), pack.classes()), (2, &classes[..]));
    assert_eq!(
        (pack.path(1), pack.bytes(1), pack.target(1)),
        ("y/22", &b"y/22"[..], Target::Class(0))
    );
    assert_eq!(
        (pack.sha256(0), pack.split(0), pack.size(0)),
        ([3; 32], Split::Test, (3, 2))
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_index_that_points_outside_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let classes = ["a".to_owned()];
    let (task, targets) = (
        Task::SingleLabelClassification,
        [Target::Class(0), Target::Class(1)],
    );
    write(&path, task, &classes, &[sample("x/1", &targets[1])]).unwrap();
    assert!(
        matches!(Pack::open(&path), Err(PackError::Invalid(_))),
        "a label that no class has"
    );
    let samples = [sample("x/1", &targets[0]), sample("x/2", &targets[0])];
    write(&path, task, &classes, &samples).unwrap();
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

#[test]
fn targets_of_every_task_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let classes = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let several = [vec![0, 2], vec![], vec![1]].map(Target::Classes);
    let numbers = [-0.1, 1e12, 5e-324].map(Target::Value);
    let cases = [
        (Task::MultiLabelClassification, &classes[..], several),
        (Task::Regression, &[], numbers),
    ];
    for (task, classes, targets) in cases {
        let samples = [0, 1, 2].map(|at| sample("x/1", &targets[at]));
        write(&path, task, classes, &samples).unwrap();
        let pack = Pack::open(&path).unwrap();
        assert_eq!((pack.task(), pack.classes()), (task, classes));
        assert_eq!([0, 1, 2].map(|at| pack.target(at)), targets);
    }
    for bad in [vec![0, 3], vec![1, 0], vec![1, 1]] {
        let bad = Target::Classes(bad);
        let task = Task::MultiLabelClassification;
        write(&path, task, &classes, &[sample("x/1", &bad)]).unwrap();
        assert!(Pack::open(&path).is_err(), "{bad:?}");
    }
    let bad = Target::Value(f64::NAN);
    write(&path, Task::Regression, &[], &[sample("x/1", &bad)]).unwrap();
    assert!(Pack::open(&path).is_err());
}
