//! Containers: formats, paths, links, lies, limits.

use super::*;

#[test]
fn every_container_gives_the_same_pack() {
    let files = with(cats_and_dogs(), "__MACOSX/cats/._0.png", "x");
    let tar = tarred(&files);
    let first = validate(zipped(&files));
    let dataset = first.dataset();
    assert_eq!((dataset.samples, dataset.unusable), (20, 0));
    assert_eq!(dataset.classes.len(), 2);
    assert_eq!(dataset.split_by, "hash");
    let sizes = dataset.splits;
    assert_eq!(sizes.train + sizes.validation, 20);
    assert!((2..=6).contains(&sizes.validation));
    assert!(first.warnings().is_empty());
    let mut shuffled = files.clone();
    shuffled.reverse();
    for other in [
        zipped(&shuffled),
        tarred(&shuffled),
        gzipped(&tar),
        zstd::encode_all(&tar[..], 3).unwrap(),
    ] {
        assert!(validate(other).pack_bytes() == first.pack_bytes());
    }
    let pack = first.pack();
    assert_eq!(
        (pack.classes(), pack.path(0)),
        (&["cats", "dogs"].map(str::to_owned)[..], "cats/0.png")
    );
    assert_eq!((pack.bytes(0), pack.size(0)), (&image(0)[..], (8, 6)));
}

#[test]
fn the_trainer_says_what_the_validator_finds() {
    let files = cats_and_dogs();
    let child = validate_in_a_child(zipped(&files));
    assert_eq!(child.report, validate(zipped(&files)).report);
    assert_eq!(child.dataset().samples, 20);
    assert_eq!(child.pack().len(), 20);
    let child = validate_in_a_child(tarred(&with(files, "../x.png", "x")));
    child.assert_refused("unsafe_path");
}

#[test]
fn what_is_no_archive_is_refused() {
    for bytes in [
        &b""[..],
        b"hello",
        &image(1),
        &gzipped(b"hello"),
        &[7; 5_000],
    ] {
        validate(bytes).assert_refused("not_an_archive");
    }
    let whole = zipped(&cats_and_dogs());
    validate(&whole[..whole.len() / 2]).assert_refused("corrupt_archive");
    let gz = gzipped(&tarred(&cats_and_dogs()));
    validate(&gz[..gz.len() / 2]).assert_refused("corrupt_archive");
    validate(&tarred(&cats_and_dogs())[..3_000]).assert_refused("corrupt_archive");
    validate(zipped::<&str, &str>(&[])).assert_refused("no_class_folders");
    validate(tarred(&vec![])).assert_refused("no_class_folders");
}

#[test]
fn unsafe_paths_refuse_the_whole_archive() {
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().join("escaped.png");
    let absolute = absolute.to_str().unwrap();
    for path in [
        "../escaped.png",
        "cats/../../escaped.png",
        absolute,
        "C:/x.png",
        "cats\\..\\x.png",
    ] {
        let placeholder = "p".repeat(path.len());
        let zip = zipped(&with(cats_and_dogs(), &placeholder, image(1)));
        let zip = validate(bent(zip, placeholder.as_bytes(), path.as_bytes()));
        zip.assert_refused("unsafe_path");
        let tar = validate(tarred(&with(cats_and_dogs(), path, image(1))));
        tar.assert_refused("unsafe_path");
        assert!(zip.errors() == tar.errors() && zip.errors()[0].1 == path);
        assert!(
            !zip.folder
                .path()
                .parent()
                .unwrap()
                .join("escaped.png")
                .exists()
        );
    }
    assert!(!Path::new(absolute).exists());
}

#[test]
fn links_and_devices_refuse_the_whole_archive() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    zip.add_symlink("cats/1.png", "/etc/passwd", options)
        .unwrap();
    let zip = zip.finish().unwrap().into_inner();
    validate(zip).assert_refused("unsafe_entry");
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Block,
        tar::EntryType::Fifo,
        tar::EntryType::GNUSparse,
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, kind, "cats/1.png", b"");
        validate(builder.into_inner().unwrap()).assert_refused("unsafe_entry");
    }
}

#[test]
fn archives_that_lie_are_refused() {
    let zip = zipped(&cats_and_dogs());
    // In each header of the directory: bit 0 of the flags (encrypted), the size, and where the
    // entry starts.
    let (mut encrypted, mut lying, mut overlapping) = (zip.clone(), zip.clone(), zip.clone());
    for at in 0..zip.len() - 46 {
        if zip[at..].starts_with(b"PK\x01\x02") {
            encrypted[at + 8] |= 1;
            lying[at + 24] ^= 1;
            overlapping[at + 42..at + 46].fill(0);
        }
    }
    validate(encrypted).assert_refused("encrypted_archive");
    validate(lying).assert_refused("corrupt_archive");
    validate(overlapping).assert_refused("corrupt_archive");
    let twice = zipped(&with(cats_and_dogs(), "cats/X.png", image(1)));
    validate(bent(twice, b"cats/X.png", b"cats/1.png")).assert_refused("duplicate_path");
    validate(tarred(&with(cats_and_dogs(), "cats/1.png", image(1))))
        .assert_refused("duplicate_path");
}

#[test]
fn bombs_stop_at_the_ratio() {
    let zeros = vec![0; 16 << 20];
    let files = vec![("cats/1.png".to_owned(), zeros.clone())];
    let bomb = zipped(&files);
    assert!(bomb.len() < 64 << 10);
    validate(bomb).assert_refused("archive_ratio");
    validate(gzipped(&tarred(&files))).assert_refused("archive_ratio");
    validate(zstd::encode_all(&tarred(&files)[..], 3).unwrap()).assert_refused("archive_ratio");
    // A name, which readers hold in memory, of 16 MiB; what is to be ignored, of as much.
    let mut builder = tar::Builder::new(Vec::new());
    append(
        &mut builder,
        tar::EntryType::GNULongName,
        "././@LongLink",
        &zeros,
    );
    validate(gzipped(&builder.into_inner().unwrap())).assert_refused("archive_ratio");
}

#[test]
fn limits_hold_at_the_limit_and_one_past() {
    let files = cats_and_dogs();
    let unpacked_bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let entry_bytes = files
        .iter()
        .map(|(_, bytes)| bytes.len() as u64)
        .max()
        .unwrap();
    let at = DatasetLimits {
        entries: 20,
        unpacked_bytes,
        entry_bytes,
        pixels: 8 * 6,
        ..LIMITS
    };
    for archive in [zipped(&files), tarred(&files), gzipped(&tarred(&files))] {
        assert_eq!(validate_within(at, &archive).dataset().samples, 20);
        for past in [
            DatasetLimits {
                entries: at.entries - 1,
                ..at
            },
            DatasetLimits {
                unpacked_bytes: unpacked_bytes - 1,
                ..at
            },
            DatasetLimits {
                entry_bytes: entry_bytes - 1,
                ..at
            },
        ] {
            validate_within(past, &archive).assert_refused("archive_too_large");
        }
        let past = validate_within(
            DatasetLimits {
                pixels: 8 * 6 - 1,
                ..at
            },
            &archive,
        );
        past_pixels(&past);
    }
}

fn past_pixels(outcome: &Outcome) {
    assert_eq!(outcome.errors(), [("no_usable_images", "cats/0.png")]);
    assert!(
        outcome
            .warnings()
            .iter()
            .all(|(code, _)| *code == "too_many_pixels")
    );
}

#[test]
fn a_full_disk_is_a_failure_that_may_pass() {
    let files: Files = (0..40)
        .map(|number| {
            (
                format!("{}/{number}.png", ["a", "b"][number % 2]),
                vec![number as u8; 1 << 20],
            )
        })
        .collect();
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not run: a small tmpfs cannot be mounted here");
        return;
    };
    let input = disk
        .folder
        .path()
        .parent()
        .unwrap()
        .join(format!("rehead-full-{}", std::process::id()));
    fs::write(&input, tarred(&files)).unwrap();
    let folder = disk.folder.path();
    let said = rehead_trainer::data::validate::run(&input, &LIMITS, 1, folder);
    fs::remove_file(&input).unwrap();
    let Validated::Failed(failure) = said else {
        panic!("{said:?}")
    };
    assert_eq!(
        (failure.code.as_str(), failure.retryable),
        ("storage_full", true)
    );
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

/// A tmpfs of 1 MiB; unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}
