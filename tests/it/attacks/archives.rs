//! Archives that are hostile: A6 to A9 of docs/security.md. The validation process is tested on
//! each kind of entry in crates/trainer/tests/it/datasets; here they go through a service.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use super::{Attack, MARKER, assert_nothing_escaped, attack};
use crate::support::{
    data::{clipart_subset, files_below, files_of_work, unzip, zip},
    process::eventually,
    service::Service,
};

/// Real images of two classes, by path.
fn good() -> Vec<(String, Vec<u8>)> {
    unzip(&clipart_subset(&["animals", "food"], 4))
        .into_iter()
        .collect()
}

fn with(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = good();
    let image = files[0].1.clone();
    files.push((name.to_owned(), image));
    files
}

/// A zip whose last entry has this name, byte by byte.
fn zip_with(name: &[u8]) -> Vec<u8> {
    let stand_in = "n".repeat(name.len());
    let mut bytes = zip(&with(&stand_in));
    let places: Vec<usize> = bytes
        .windows(name.len())
        .enumerate()
        .filter(|(_, found)| *found == stand_in.as_bytes())
        .map(|(place, _)| place)
        .collect();
    // In the entry's own header, and in the directory.
    assert_eq!(places.len(), 2);
    for place in places {
        bytes[place..place + name.len()].copy_from_slice(name);
    }
    bytes
}

/// Appends an entry whose header has this name as it is.
fn append(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &[u8], bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o4755);
    if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
        header.set_link_name("/tmp").unwrap();
    }
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

/// A tar of good files, and what `further` appends.
fn tar_with(further: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in good() {
        append(&mut tar, tar::EntryType::Regular, name.as_bytes(), &bytes);
    }
    further(&mut tar);
    tar.into_inner().unwrap()
}

/// A record of a PAX header.
fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [key.as_bytes(), b"=", value, b"\n"].concat();
    let digits = (1..).find(|digits| (body.len() + 1 + digits).to_string().len() == *digits);
    let length = body.len() + 1 + digits.unwrap();
    [format!("{length} ").as_bytes(), &body].concat()
}

/// A6: names that lead out of the folder, in both formats.
fn names() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for name in [
        "../M.png",
        "animals/../../M.png",
        "../../../../../../../../tmp/M.png",
        "/tmp/M.png",
        "//tmp/M.png",
        "C:\\M.png",
        "c:M.png",
        "\\\\server\\share\\M.png",
        "..././M.png",
        "....//M.png",
        "animals/..\\..\\M.png",
        "animals/.../M.png",
        "animals/..",
    ] {
        let name = name.replace('M', MARKER).into_bytes();
        attacks.push(attack("a name in a zip", zip_with(&name), "unsafe_path"));
        let in_tar = tar_with(|tar| append(tar, tar::EntryType::Regular, &name, b"x"));
        attacks.push(attack("a name in a tar", in_tar, "unsafe_path"));
    }
    let long = vec![b'a'; 60_000];
    attacks.push(attack(
        "a long name in a zip",
        zip_with(&long),
        "unsafe_path",
    ));
    attacks.push(attack(
        "a NUL in a zip",
        zip_with(b"animals/a\0.png"),
        "unsafe_path",
    ));
    for (kind, header) in [
        (tar::EntryType::XHeader, pax("path", b"animals/a\0.png")),
        (
            tar::EntryType::XHeader,
            pax("path", format!("../{MARKER}").as_bytes()),
        ),
        (tar::EntryType::XHeader, pax("path", &vec![b'a'; 70_000])),
        (tar::EntryType::GNULongName, vec![b'a'; 70_000]),
        (
            tar::EntryType::GNULongName,
            format!("/tmp/{MARKER}\0").into_bytes(),
        ),
    ] {
        let bytes = tar_with(|tar| {
            append(tar, kind, b"././@Header", &header);
            append(tar, tar::EntryType::Regular, b"animals/x.png", b"x");
        });
        attacks.push(attack("a name in a tar's header", bytes, "unsafe_path"));
    }
    attacks
}

/// A7: what is neither a file nor a folder, and files behind it.
fn kinds() -> Vec<Attack> {
    let outside = format!("animals/link/{MARKER}");
    let mut attacks: Vec<Attack> = [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Block,
        tar::EntryType::Fifo,
    ]
    .into_iter()
    .map(|kind| {
        let bytes = tar_with(|tar| {
            append(tar, kind, b"animals/link", b"");
            append(tar, tar::EntryType::Regular, outside.as_bytes(), b"x");
        });
        attack("a link or device in a tar", bytes, "unsafe_entry")
    })
    .collect();
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.add_symlink("animals/link", "/tmp", options).unwrap();
    writer.start_file(outside, options).unwrap();
    writer.write_all(b"x").unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    attacks.push(attack("a link in a zip", bytes, "unsafe_entry"));
    attacks
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A9: archives that unpack to more than they say, or say more than there is.
pub(super) fn bombs() -> Vec<Attack> {
    let zeros = vec![0; 120 << 20];
    let zeros_in_tar =
        tar_with(|tar| append(tar, tar::EntryType::Regular, b"animals/z.png", &zeros));
    let inner = zip(&[("zeros.png", &zeros)]);
    let nested = zip(&[("animals/1.zip", &inner), ("food/1.zip", &inner)]);
    let claimed = tar_with(|tar| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..9].copy_from_slice(b"animals/c");
        header.set_size(1 << 62);
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
    });
    let pax_of = |record: Vec<u8>| {
        tar_with(|tar| {
            append(tar, tar::EntryType::XHeader, b"pax", &record);
            append(tar, tar::EntryType::Regular, b"animals/x.png", b"x");
        })
    };
    // A frame that wants a window of 2 GiB: header, window, one raw block of zeros, the last.
    let mut window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    window.extend([0x01, 0x10, 0x00]);
    window.extend([0; 512]);
    let mut members = Vec::new();
    for _ in 0..200_000 {
        members.extend(EMPTY_GZIP);
    }
    vec![
        attack(
            "zeros in a zip",
            zip(&[("animals/z.png", &zeros)]),
            "archive_ratio",
        ),
        attack("zeros in a tar.gz", gzipped(&zeros_in_tar), "archive_ratio"),
        attack(
            "a gzip in a gzip",
            gzipped(&gzipped(&zeros_in_tar)),
            "not_an_archive",
        ),
        attack("zips in a zip", nested, "no_class_folders"),
        attack("an entry of 4 EiB", claimed, "corrupt_archive"),
        attack(
            "a header of 2 MiB",
            pax_of(pax("comment", &vec![b'c'; 2 << 20])),
            "archive_ratio",
        ),
        attack(
            "a size of 20 digits",
            pax_of(pax("size", b"99999999999999999999")),
            "corrupt_archive",
        ),
        attack("a window of 2 GiB", window, "corrupt_archive"),
        attack("members without bytes", members, "not_an_archive"),
    ]
}

/// A gzip member without content.
const EMPTY_GZIP: [u8; 20] = [
    0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Each archive is refused as a whole with its code; nothing of it is kept, inside or outside, and
/// the server does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_whole() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    hostile_archives(&service).await;
    assert_nothing_escaped(&service);
    assert_eq!(service.get("/v1/files").await.ok()["data"], json!([]));
    assert_eq!(files_below(&service.objects()), Vec::<String>::new());
    let work = service.dir.path().join("worker");
    eventually(
        std::time::Duration::from_secs(10),
        "empty work folder",
        || files_of_work(&work).is_empty().then_some(()),
    );
}

pub(super) async fn hostile_archives(service: &Service) {
    let refused = async |attack: &Attack| {
        let file = service.dataset(attack.bytes.clone()).await;
        assert_eq!(file["status"], "error", "{}: {file}", attack.name);
        let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
        let report = service.get(&format!("{path}/report")).await.ok();
        assert_eq!(
            report["errors"][0]["code"], attack.code,
            "{}: {report}",
            attack.name
        );
        assert!(report["errors"].as_array().unwrap().len() == 1, "{report}");
        assert_eq!(service.delete(&path).await.ok()["deleted"], true);
    };
    for attack in names().iter().chain(&kinds()) {
        refused(attack).await;
    }
}

/// A8: the size in a PAX header holds, not the one in the header proper. Readers that take the
/// wrong one see entries inside of a file (CVE-2025-62518).
#[tokio::test(flavor = "multi_thread")]
async fn a_tar_has_the_entries_that_its_pax_sizes_say() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    sizes_in_pax_headers(&service).await;
}

pub(super) async fn sizes_in_pax_headers(service: &Service) {
    let image = good()[0].1.clone();
    let mut inner = tar::Builder::new(Vec::new());
    append(
        &mut inner,
        tar::EntryType::Regular,
        b"smuggled/1.png",
        &image,
    );
    append(
        &mut inner,
        tar::EntryType::Regular,
        b"smuggled/2.png",
        &image,
    );
    let inner = inner.into_inner().unwrap();
    let outer = tar_with(|tar| {
        append(
            tar,
            tar::EntryType::XHeader,
            b"pax",
            &pax("size", inner.len().to_string().as_bytes()),
        );
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..13].copy_from_slice(b"animals/x.bin");
        header.set_size(0);
        header.set_cksum();
        // The builder pads to blocks, which the inner archive is made of.
        tar.append(&header, &inner[..]).unwrap();
    });
    let file = service.dataset(outer).await;
    assert_eq!(file["status"], "processed", "{file}");
    let classes = file["dataset"]["classes"].as_array().unwrap();
    let names: Vec<_> = classes.iter().map(|class| &class["name"]).collect();
    assert_eq!(names, ["animals", "food"], "{file}");
    assert_eq!(file["dataset"]["unusable"], 1, "{file}");
}
