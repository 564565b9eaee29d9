//! Images that are hostile: A11 and A12 of docs/security.md. Each lies among good ones: it is named
//! in the report, or decoded, and never costs the others.

use std::{collections::BTreeMap, io::Write as _};

use flate2::{Compression, Crc, write::ZlibEncoder};
use rehead_domain::progress::Validated;

use super::memory::{LIMITS, dataset};
use crate::support::data::{clipart_subset, unzip, zip};

/// An image's file name, its bytes, and the code it gets; none where it is decoded.
struct Attack(&'static str, Vec<u8>, Option<&'static str>);

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A gray PNG of this size, with chunks before its pixels, which are as many rows as `rows`.
fn png(width: u32, height: u32, before: &[Vec<u8>], rows: usize) -> Vec<u8> {
    let size = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 0, 0, 0, 0],
    ]
    .concat();
    let pixels = zlib(&vec![0; rows * (1 + width as usize)]);
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend(chunk(b"IHDR", &size));
    bytes.extend(before.concat());
    bytes.extend(chunk(b"IDAT", &pixels));
    bytes.extend(chunk(b"IEND", &[]));
    bytes
}

/// A chunk whose content, behind a name and a method, unpacks to so many zeros.
fn bomb(kind: &[u8; 4], zeros: usize) -> Vec<u8> {
    chunk(kind, &[&b"name\0\0"[..], &zlib(&vec![0; zeros])].concat())
}

/// A GIF of one pixel, so many times.
fn gif(frames: usize) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff".to_vec();
    let frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00";
    bytes.extend(frame.repeat(frames));
    bytes.push(0x3b);
    bytes
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 7]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A JPEG whose frame header claims another size.
fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = encoded(image::ImageFormat::Jpeg);
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A BMP that claims this size.
fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut bytes = encoded(image::ImageFormat::Bmp);
    bytes[18..22].copy_from_slice(&width.to_le_bytes());
    bytes[22..26].copy_from_slice(&height.to_le_bytes());
    bytes
}

/// An extended WebP with a canvas of 16384 by 16384.
fn webp() -> Vec<u8> {
    let canvas = [&[0; 4][..], &[0xff, 0x3f, 0], &[0xff, 0x3f, 0]].concat();
    let mut body = b"WEBPVP8X\x0a\x00\x00\x00".to_vec();
    body.extend(canvas);
    body.extend(b"VP8L\x05\x00\x00\x00\x2f\xff\xff\xff\x0f\x00");
    [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat()
}

fn attacks() -> Vec<Attack> {
    let pixels = Some("too_many_pixels");
    let unreadable = Some("unreadable_image");
    let none = Some("not_an_image");
    let cut = |format| {
        let bytes = encoded(format);
        bytes[..bytes.len() / 2].to_vec()
    };
    let polyglot = [encoded(image::ImageFormat::Png), zip(&[("x", "y")])].concat();
    let svg =
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>";
    let html = b"<!doctype html><script>alert(1)</script>";
    vec![
        Attack("60000-square.png", png(60_000, 60_000, &[], 1), pixels),
        Attack("1-by-2-31.png", png(1, i32::MAX as u32, &[], 1), pixels),
        Attack("2-32-square.png", png(u32::MAX, u32::MAX, &[], 0), pixels),
        Attack("no-pixels.png", png(0, 0, &[], 0), unreadable),
        Attack("too-few-rows.png", png(4_000, 4_000, &[], 1), unreadable),
        Attack(
            "text-bomb.png",
            png(8, 9, &[bomb(b"zTXt", 200 << 20)], 9),
            None,
        ),
        Attack(
            "text-bombs.png",
            png(8, 10, &vec![bomb(b"zTXt", 8 << 20); 200], 10),
            None,
        ),
        Attack(
            "profile-bomb.png",
            png(8, 11, &[bomb(b"iCCP", 1 << 30)], 11),
            None,
        ),
        Attack("100000-frames.gif", gif(100_000), None),
        Attack("65535-square.jpg", jpeg(65_535, 65_535), pixels),
        Attack("no-height.jpg", jpeg(64, 0), unreadable),
        Attack(
            "cut.jpg",
            cut(image::ImageFormat::Jpeg),
            Some("truncated_image"),
        ),
        Attack(
            "cut.png",
            cut(image::ImageFormat::Png),
            Some("truncated_image"),
        ),
        Attack("2-31-square.bmp", bmp(i32::MAX, i32::MAX), unreadable),
        Attack("negative.bmp", bmp(64, i32::MIN), unreadable),
        Attack("canvas.webp", webp(), pixels),
        Attack("drawing.svg", svg.to_vec(), none),
        Attack("page.png", html.to_vec(), none),
        Attack("zip-behind.png", polyglot, None),
    ]
}

/// A11: one upload with all of them. Memory and time of its validation are limited by `dataset`.
#[test]
fn hostile_images_are_named_and_cost_no_others() {
    let attacks = attacks();
    let mut files: Vec<(String, Vec<u8>)> = unzip(&clipart_subset(&["animals", "food"], 5))
        .into_iter()
        .collect();
    let hostile = attacks
        .iter()
        .map(|Attack(name, bytes, _)| (format!("food/{name}"), bytes.clone()));
    files.extend(hostile);
    let validation = dataset("images", &zip(&files), LIMITS);
    assert_eq!(validation.verdict, Validated::Accepted);
    let named: BTreeMap<String, String> = validation.problems().into_iter().collect();
    for Attack(name, _, code) in &attacks {
        let found = named.get(&format!("food/{name}")).map(String::as_str);
        assert_eq!(found, *code, "{name}: {named:?}");
    }
    let dataset = validation.report.unwrap().dataset.unwrap();
    let refused = attacks
        .iter()
        .filter(|Attack(.., code)| code.is_some())
        .count();
    assert_eq!(dataset.unusable, refused as u64);
    assert_eq!(dataset.samples as usize, 10 + attacks.len() - refused);
}

/// As many images at once as there are, each of which asks for the most that one may: the limit on
/// memory holds for all of them together.
#[test]
fn many_bombs_at_once_take_the_memory_of_few() {
    let mut files: Vec<(String, Vec<u8>)> = unzip(&clipart_subset(&["animals", "food"], 5))
        .into_iter()
        .collect();
    let profile = png(8, 11, &[bomb(b"iCCP", 900 << 20)], 11);
    files.extend((0..40).map(|number| (format!("food/bomb-{number}.png"), profile.clone())));
    let validation = dataset("bombs", &zip(&files), LIMITS);
    assert_eq!(validation.verdict, Validated::Accepted);
}
