//! Weights that are hostile: A1 to A4 of docs/security.md. They are recognized by content, parsed
//! without running anything, and refused before libtorch sees a byte.

use std::{fmt::Write as _, io::Write as _};

use serde_json::json;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Attack, MARKER, assert_nothing_escaped, attack};
use crate::support::service::Service;

/// Pickles before the object in torch's old format: magic number, version, machine.
const LEGACY: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";

/// A pickle that calls `posix.system` to create a marker file.
fn command() -> Vec<u8> {
    let command = format!("touch /tmp/{MARKER}-pickle");
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    pickle
}

/// A zip of stored entries, as `torch.save` writes it.
fn stored(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A torch file whose object is this pickle, in the old format.
fn legacy(pickle: &[u8]) -> Vec<u8> {
    [LEGACY, pickle, b"\x80\x02]."].concat()
}

/// A state dict of one tensor, described by these opcodes: storage count, offset, size, stride.
fn one_tensor(count: &[u8], view: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage\
        ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        .to_vec();
    pickle.extend(count);
    pickle.extend(b"tQ");
    pickle.extend(view);
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtRu.");
    pickle
}

/// A safetensors file of a header and data.
pub(super) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

fn tensor(dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// A1, A2: code in the place of weights.
fn code() -> Vec<Attack> {
    let refused = "unsupported_format";
    let stack_global = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    let pickle = command();
    header.set_size(pickle.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, "pickle", &pickle[..]).unwrap();
    vec![
        attack("pickle.pt", command(), refused),
        attack("pickle.safetensors", command(), refused),
        attack("protocol-4.pth", &stack_global[..], refused),
        attack(
            "eval.pth",
            &b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."[..],
            refused,
        ),
        attack(
            "hub.pth",
            &b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x001\x85R."[..],
            refused,
        ),
        // INST and OBJ of protocol 0, and an object's __setstate__.
        attack(
            "inst.pth",
            &b"\x80\x02(S'true'\niposix\nsystem\n."[..],
            refused,
        ),
        attack(
            "obj.pth",
            &b"\x80\x02(cposix\nsystem\nX\x04\x00\x00\x00trueo."[..],
            refused,
        ),
        attack("build.pth", &b"\x80\x02cposix\nsystem\n}b."[..], refused),
        attack("extension.pth", &b"\x80\x02\x82\x01."[..], refused),
        attack("in-legacy.pth", legacy(&command()), refused),
        attack(
            "in-zip.pth",
            stored(&[("a/data.pkl", &command()), ("a/byteorder", b"little")]),
            refused,
        ),
        // `weights_only` of torch before 2.6 read this one with an unguarded unpickler
        // (CVE-2025-32434).
        attack("tar.pt", tar.into_inner().unwrap(), refused),
        attack(
            "script.pt",
            stored(&[
                ("m/data.pkl", b"\x80\x02N."),
                ("m/code/__torch__.py", b"x"),
                ("m/constants.pkl", b"\x80\x02)."),
                ("m/version", b"3"),
            ]),
            refused,
        ),
        attack(
            "weights.ot",
            stored(&[("w/data.pkl", b"\x80\x02N."), ("w/code/__torch__.py", b"x")]),
            refused,
        ),
        // Text that Python would run, and a program.
        attack("setup.py", &b"import os; os.system('true')"[..], refused),
        attack("elf.safetensors", &b"\x7fELF\x02\x01\x01"[..], refused),
    ]
}

/// A3: pickles that make an unpickler take memory or time, or read out of bounds.
pub(super) fn pickles() -> Vec<Attack> {
    let refused = "unsupported_format";
    let small = b"K\x00K\x01\x85K\x01\x85";
    // Set items of what is no dictionary: memory corruption in torch before 2.10 (CVE-2026-24747).
    let set_items = b"\x80\x02}(X\x01\x00\x00\x00aK\x01u(K\x01K\x02X\x01\x00\x00\x00bs.";
    let dict_in_itself = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    let far_offset = one_tensor(b"K\x06", b"J\xff\xff\xff\x7fK\x01\x85K\x01\x85");
    let huge_view = one_tensor(b"K\x06", b"K\x00\x8a\x05\x00\x00\x00\x00\x01\x85K\x00\x85");
    let huge_storage = one_tensor(b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40", small);
    let negative = one_tensor(b"J\xff\xff\xff\xff", small);
    vec![
        attack(
            "text-of-4-gib",
            legacy(b"\x80\x02X\xff\xff\xff\xff."),
            refused,
        ),
        attack(
            "bytes-of-4-gib",
            legacy(b"\x80\x03B\xff\xff\xff\xff."),
            refused,
        ),
        attack(
            "long-number",
            legacy(&[b"\x80\x02\x8a\xff", &[1_u8; 255][..], b"."].concat()),
            refused,
        ),
        attack("set-items", legacy(set_items), refused),
        attack("dict-in-itself", legacy(dict_in_itself), refused),
        attack("far-offset", legacy(&far_offset), refused),
        attack("huge-view", legacy(&huge_view), "too_large"),
        attack("huge-storage", legacy(&huge_storage), refused),
        attack("negative-storage", legacy(&negative), refused),
        attack("deep-lists", legacy(&deep_lists()), refused),
        attack(
            "repeated-dictionaries",
            legacy(&repeated_dictionaries()),
            refused,
        ),
        attack(
            "long-pickle",
            legacy(&vec![b'N'; (4 << 20) + 1]),
            "too_large",
        ),
        attack("many-storages", legacy(&many_storages()), refused),
    ]
}

/// A million lists in one another.
fn deep_lists() -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(std::iter::repeat_n(b']', 1_000_000));
    pickle.extend(std::iter::repeat_n(b'a', 999_999));
    pickle.push(b'.');
    pickle
}

/// A list of pairs that is made a dictionary again and again.
fn repeated_dictionaries() -> Vec<u8> {
    let mut pickle =
        b"\x80\x02ccollections\nOrderedDict\nq\x00](X\x01\x00\x00\x00aN\x86q\x01".to_vec();
    pickle.extend(b"h\x01".repeat(100_000));
    pickle.extend(b"e\x85q\x02");
    pickle.extend(b"h\x00h\x02R".repeat(100_000));
    pickle.push(b'.');
    pickle
}

/// As many storages as a file may have, the last of which is then named a million times.
fn many_storages() -> Vec<u8> {
    let mut pickle = b"\x80\x02ctorch\nFloatStorage\nq\x00X\x07\x00\x00\x00storageq\x01".to_vec();
    for place in 0..9_999_u32 {
        pickle.extend(b"(h\x01h\x00X\x08\x00\x00\x00");
        pickle.extend(format!("{place:08}").bytes());
        pickle.extend(b"NK\x01tq\x02Q");
    }
    pickle.extend(b"h\x02Q".repeat(1_000_000));
    pickle.push(b'.');
    pickle
}

/// A4: headers of safetensors that lie.
pub(super) fn headers() -> Vec<Attack> {
    let refused = "unsupported_format";
    let four = tensor("F32", "[1]", 0, 4);
    let of = |entries: &[(&str, String)]| {
        let entries = entries
            .iter()
            .map(|(name, entry)| format!(r#""{name}":{entry}"#));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    };
    let announced = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let mut many = String::from("{");
    for place in 0..12_000 {
        let _ = write!(many, r#""{place}":{},"#, tensor("F32", "[0]", 0, 0));
    }
    many.pop();
    many.push('}');
    let single = |entry: &str| safetensors(&of(&[("a", entry.to_owned())]), &[0; 4]);
    let two = |second: String| of(&[("a", four.clone()), ("b", second)]);
    vec![
        attack("length-2-63", announced(1 << 63), refused),
        attack("length-2-64", announced(u64::MAX), refused),
        attack("length-100-mb", announced(100_000_001), refused),
        attack("length-past-the-end", announced(100), refused),
        attack(
            "header-over-1-mib",
            safetensors(&format!("{{}}{}", " ".repeat(1 << 20)), &[]),
            refused,
        ),
        attack(
            "overlap",
            safetensors(&two(tensor("F32", "[1]", 2, 6)), &[0; 6]),
            refused,
        ),
        attack(
            "same-bytes-twice",
            safetensors(&two(four.clone()), &[0; 4]),
            refused,
        ),
        attack(
            "hole",
            safetensors(&two(tensor("F32", "[1]", 8, 12)), &[0; 12]),
            refused,
        ),
        attack(
            "trailing-bytes",
            safetensors(&of(&[("a", four.clone())]), &[0; 8]),
            refused,
        ),
        attack(
            "zip-behind",
            [single(&four), stored(&[("a", b"x")])].concat(),
            refused,
        ),
        attack(
            "shape-product-2-96",
            single(&tensor("F32", "[4294967296,4294967296,4294967296]", 0, 4)),
            refused,
        ),
        attack(
            "shape-of-2-64",
            single(&tensor("F32", "[18446744073709551616]", 0, 4)),
            refused,
        ),
        attack(
            "negative-shape",
            single(&tensor("F32", "[-1]", 0, 4)),
            refused,
        ),
        attack(
            "end-before-start",
            single(&tensor("F32", "[1]", 4, 0)),
            refused,
        ),
        attack(
            "offset-2-64",
            single(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}"#),
            refused,
        ),
        attack(
            "unknown-type",
            single(&tensor("F4096", "[1]", 0, 4)),
            refused,
        ),
        attack(
            "unsupported-type",
            single(&tensor("F8_E4M3", "[4]", 0, 4)),
            refused,
        ),
        attack(
            "nine-dimensions",
            single(&tensor("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4)),
            "too_large",
        ),
        attack("12000-tensors", safetensors(&many, &[]), "too_large"),
        attack(
            "name-with-control-characters",
            safetensors(&of(&[(r"a\u001b]0;x", four.clone())]), &[0; 4]),
            refused,
        ),
        attack(
            "empty-name",
            safetensors(&of(&[("", four.clone())]), &[0; 4]),
            refused,
        ),
        attack(
            "name-of-600-bytes",
            safetensors(&of(&[(&"n".repeat(600), four.clone())]), &[0; 4]),
            refused,
        ),
        attack(
            "one-name-twice",
            safetensors(
                &of(&[
                    ("a", tensor("F32", "[1]", 0, 4)),
                    ("a", tensor("F32", "[1]", 4, 8)),
                ]),
                &[0; 8],
            ),
            refused,
        ),
        attack(
            "name-that-climbs",
            safetensors(&of(&[("../../etc/passwd", four.clone())]), &[0; 4]),
            "missing_tensor",
        ),
        attack(
            "deep-header",
            safetensors(&format!("{{\"a\":{}", "[".repeat(100_000)), &[0; 4]),
            refused,
        ),
        attack(
            "metadata-of-numbers",
            safetensors(
                &of(&[
                    ("__metadata__", r#"{"a":1}"#.to_owned()),
                    ("a", four.clone()),
                ]),
                &[0; 4],
            ),
            refused,
        ),
        // Shapes without numbers cost no bytes of the file, and must cost no memory either.
        attack(
            "classes-without-numbers",
            safetensors(
                &of(&[
                    ("fc.weight", tensor("F32", "[1000000000,0]", 0, 0)),
                    ("conv1.weight", four.clone()),
                ]),
                &[0; 4],
            ),
            "misshapen_tensor",
        ),
        attack(
            "stem-without-numbers",
            safetensors(
                &of(&[("conv1.weight", tensor("F32", "[1000000000,3,0,0]", 0, 0))]),
                &[],
            ),
            "misshapen_tensor",
        ),
    ]
}

/// Each attack, registered as a base model, is refused with its code, and nothing is run.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_weights_are_refused_unexecuted() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    hostile_weights(&service).await;
    assert_nothing_escaped(&service);
    assert_eq!(service.get("/v1/models").await.ok()["data"], json!([]));
}

pub(super) async fn hostile_weights(service: &Service) {
    let register = async |attack: &Attack| {
        let uploaded = service
            .upload(attack.name, "weights", attack.bytes.clone())
            .await
            .ok();
        let file = uploaded["id"].as_str().unwrap();
        let body = json!({"id": "hostile", "architecture": "resnet18", "weights": {"file": file}});
        let answer = service.post("/v1/base_models", &body).await;
        let text = answer.text();
        assert!(text.contains(attack.code), "{}: {text}", attack.name);
        let message = answer.error(422, attack.code);
        assert!(
            !message.contains("/rehead-it-"),
            "{}: {message}",
            attack.name
        );
        service.delete(&format!("/v1/files/{file}")).await.ok();
    };
    for attack in code().iter().chain(&pickles()).chain(&headers()) {
        register(attack).await;
    }
}
