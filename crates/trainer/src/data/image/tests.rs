use std::{fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::*;
use crate::domain::base_model::{Interpolation, Preprocessing};

/// Pillow's results for the fixtures (`crates/trainer/tests/python/record_pillow.py`).
#[derive(Deserialize)]
struct Recorded {
    decoded: Vec<Decoded>,
    preprocessed: Vec<Preprocessed>,
}

#[derive(Deserialize)]
struct Decoded {
    file: String,
    width: u32,
    height: u32,
    /// Left out for red, green and blue.
    #[serde(default = "rgb")]
    channels: u32,
    pixels: String,
}

fn rgb() -> u32 {
    3
}

#[derive(Deserialize)]
struct Preprocessed {
    file: String,
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
    #[serde(default = "rgb")]
    channels: u32,
    pixels: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn recorded() -> Recorded {
    serde_json::from_slice(&fixture("recorded.json")).unwrap()
}

/// Mean and largest difference of two images' bytes.
fn difference(ours: &[u8], theirs: &[u8]) -> (f64, u8) {
    assert_eq!(ours.len(), theirs.len());
    let differences: Vec<u8> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    let sum: f64 = differences.iter().map(|&one| f64::from(one)).sum();
    (
        sum / ours.len() as f64,
        differences.into_iter().max().unwrap(),
    )
}

/// Multiplies colors by their alpha.
fn weigh(rgba: &mut [u8]) {
    for pixel in rgba.as_chunks_mut::<4>().0 {
        let alpha = u32::from(pixel[3]);
        for color in &mut pixel[..3] {
            *color = (u32::from(*color) * alpha / 255) as u8;
        }
    }
}

#[test]
fn every_format_decodes_as_in_pillow() {
    for Decoded {
        file,
        width,
        height,
        channels,
        pixels,
    } in recorded().decoded
    {
        let image = decode(&fixture(&file), 36 * 24, channels).unwrap();
        assert_eq!((image.width, image.height), (width, height), "{file}");
        let (mean, largest) = difference(&image.pixels, &BASE64_STANDARD.decode(pixels).unwrap());
        println!("{file} in {channels}: mean {mean:.3}, largest {largest}");
        // Lossless formats up to rounding; lossy ones up to the decoders' freedom (chroma between
        // samples).
        let lossy = file.ends_with(".jpg") || file == "rgb.webp";
        let (mean_limit, limit) = if lossy { (1.0, 24) } else { (0.7, 1) };
        assert!(
            mean <= mean_limit && largest <= limit,
            "{file} in {channels}: mean {mean}, largest {largest}"
        );
    }
}

#[test]
fn preprocessing_is_pillows() {
    for Preprocessed {
        file,
        input_size,
        crop_fraction,
        interpolation,
        channels,
        pixels,
    } in recorded().preprocessed
    {
        let preprocessing = Preprocessing {
            input_size,
            channels,
            crop_fraction,
            interpolation,
            mean: vec![0.5; channels as usize].into(),
            std: vec![0.5; channels as usize].into(),
        };
        let (mut ours, mut theirs) = (
            preprocess(&fixture(&file), 1 << 20, &preprocessing).unwrap(),
            BASE64_STANDARD.decode(pixels).unwrap(),
        );
        if channels == 4 {
            // A color is known as well as it is opaque.
            weigh(&mut ours);
            weigh(&mut theirs);
        }
        let (mean, largest) = difference(&ours, &theirs);
        println!(
            "{file} in {channels} {input_size} {crop_fraction} {interpolation:?}: mean {mean:.4}, largest {largest}"
        );
        // Colors are multiplied by alpha and divided again, and rounded each time.
        let (mean_limit, limit) = if channels == 4 { (0.5, 2) } else { (0.02, 1) };
        assert!(
            mean <= mean_limit && largest <= limit,
            "{file} in {channels} {input_size} {interpolation:?}: mean {mean}, largest {largest}"
        );
    }
}

#[test]
fn preprocessing_takes_any_shape() {
    let preprocessing = Preprocessing {
        input_size: 32,
        channels: 3,
        crop_fraction: 0.875,
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5; 3].into(),
        std: vec![0.5; 3].into(),
    };
    for (width, height) in [
        (1, 1),
        (1, 5_000),
        (5_000, 1),
        (1, 1_000_003),
        (31, 37),
        (32, 32),
        (36, 36),
        (37, 4_999),
    ] {
        let pixels = vec![77; width as usize * height as usize * 3];
        let image = Bitmap {
            width,
            height,
            channels: 3,
            pixels,
        };
        let target = Target::square((width, height), &preprocessing);
        let mut square = vec![0; preprocessing.square_bytes()];
        resize(image.as_view(), target, Interpolation::Bicubic, &mut square);
        assert!(square.iter().all(|&byte| byte == 77), "{width} x {height}");
    }
}

#[test]
fn pixels_are_counted_before_decoding() {
    let too_many = |bytes: &[u8], max| {
        matches!(
            decode(bytes, max, 3),
            Err(DecodeError::TooManyPixels { .. })
        )
    };
    for file in ["rgb.jpg", "rgb.png", "rgb.webp", "animated.gif", "rgb.bmp"] {
        let bytes = fixture(file);
        assert!(decode(&bytes, 36 * 24, 3).is_ok(), "{file}");
        assert!(too_many(&bytes, 36 * 24 - 1), "{file}");
    }
    // A header that claims 60,000 x 60,000 pixels; 2^31 - 1 x 2^31 - 1.
    for (width, height) in [
        (60_000_u32, 60_000_u32),
        (0x7fff_ffff, 0x7fff_ffff),
        (1, 0x7fff_ffff),
    ] {
        let mut bytes = fixture("rgb.png");
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let check = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&check.to_be_bytes());
        assert!(
            too_many(&bytes, 50_000_000),
            "{width} x {height}: {:?}",
            decode(&bytes, 50_000_000, 3).err()
        );
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn cut_off_images_are_errors_not_gray() {
    for file in [
        "rgb.jpg",
        "rgb-progressive.jpg",
        "gray.jpg",
        "rgb.png",
        "rgb.webp",
        "transparent.gif",
        "rgb.bmp",
    ] {
        let bytes = fixture(file);
        for share in [3, 2] {
            let outcome = decode(&bytes[..bytes.len() - bytes.len() / share], 1 << 20, 3);
            assert!(outcome.is_err(), "{file} without its last 1/{share}");
        }
    }
    assert_eq!(
        decode(&fixture("rgb.jpg")[..500], 1 << 20, 3),
        Err(DecodeError::Truncated)
    );
}

/// Found by fuzzing: the decoder allocated as many bytes as the last chunk claims.
#[test]
fn chunks_of_a_webp_claim_no_memory_beyond_the_file() {
    let plain = fixture("rgba.webp");
    let image = decode(&plain, 1 << 20, 4).unwrap();
    let extended = |claimed: u32, metadata: &[u8]| {
        let side = |pixels: u32| (pixels - 1).to_le_bytes()[..3].to_vec();
        let mut bytes = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x18\0\0\0".to_vec();
        bytes.extend([side(image.width), side(image.height)].concat());
        bytes.extend(&plain[12..]);
        bytes.extend(b"EXIF");
        bytes.extend(claimed.to_le_bytes());
        bytes.extend(metadata);
        let size = bytes.len() as u32 - 8;
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    let whole = extended(4, b"II*\0");
    for bytes in [
        whole.clone(),
        [&whole[..], b"EXIF\xff\xff\xff\x7f"].concat(),
    ] {
        assert_eq!(decode(&bytes, 1 << 20, 4).as_ref(), Ok(&image));
    }
    for claimed in [5, 1 << 20, 3_000_000_000, u32::MAX] {
        let cut_off = decode(&extended(claimed, b"II*\0"), 1 << 20, 4);
        assert_eq!(cut_off, Err(DecodeError::Truncated), "{claimed}");
    }
}

/// Motion photos have a film behind the image, cameras a second JPEG or data of their own; about
/// half of such files were taken for cut off.
#[test]
fn bytes_behind_the_end_of_a_jpeg_say_nothing() {
    let mut film: Vec<u8> = (0..300_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    film[150_000..150_002].copy_from_slice(&[0xff, 0xda]);
    let other = fixture("gray.jpg");
    for file in ["rgb.jpg", "rgb-progressive.jpg", "gray.jpg", "cmyk.jpg"] {
        let bytes = fixture(file);
        let image = decode(&bytes, 1 << 20, 3).unwrap();
        for trailer in [
            &film[..],
            &[0; 64],
            &other,
            &other[..other.len() / 2],
            b"\xff\xda\0\x08",
        ] {
            let longer = [&bytes, trailer].concat();
            assert_eq!(decode(&longer, 1 << 20, 3).as_ref(), Ok(&image), "{file}");
        }
        for share in [3, 2] {
            let cut = &bytes[..bytes.len() - bytes.len() / share];
            assert!(
                decode(cut, 1 << 20, 3).is_err(),
                "{file} without its last 1/{share}"
            );
        }
    }
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let message = |bytes: &[u8]| {
        let error = decode(bytes, 1 << 20, 3).unwrap_err();
        assert_eq!(error.code(), "not_an_image");
        error.to_string()
    };
    assert_eq!(decode(b"hello", 1 << 20, 3), Err(DecodeError::NotAnImage));
    assert_eq!(message(b""), "the file is empty; replace it");
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='1' height='1'/></svg>";
    assert_eq!(message(svg), "this is an SVG drawing; export it as PNG");
    let tiff = "this is a TIFF image; save it as JPEG or PNG";
    assert_eq!(message(b"II*\0\x08\0\0\0"), tiff);
    let mut png = fixture("rgb.png");
    png[12..16].copy_from_slice(b"CgBI");
    let error = decode(&png, 1 << 20, 3).unwrap_err();
    assert_eq!(error.code(), "unreadable_image");
    assert!(error.to_string().contains("optimized for iOS"), "{error}");
}

#[test]
fn no_damage_makes_a_panic_pass() {
    // Every byte of every small file in turn, bent: an image or an error, nothing else.
    for file in [
        "rgb.jpg",
        "rgb-progressive.jpg",
        "cmyk.jpg",
        "palette-alpha.png",
        "rgba.webp",
        "animated.gif",
        "palette.bmp",
    ] {
        let bytes = fixture(file);
        for at in (0..bytes.len()).step_by(3) {
            let mut bent = bytes.clone();
            bent[at] ^= 0xff;
            if let Ok(image) = decode(&bent, 1 << 20, 3) {
                assert_eq!(
                    image.pixels.len(),
                    image.width as usize * image.height as usize * 3,
                    "{file} at {at}"
                );
            }
        }
    }
}

#[test]
fn images_are_shrunk_by_their_shorter_side_and_never_enlarged() {
    assert_eq!(shrunk_size(900, 600, 300), (450, 300));
    assert_eq!(shrunk_size(600, 900, 300), (300, 450));
    assert_eq!(shrunk_size(200, 4_000, 300), (134, 2_683));
    assert_eq!(shrunk_size(299, 299, 300), (299, 299));
    assert_eq!(shrunk_size(2_400, 600, 300), (1_200, 300));
    assert_eq!(shrunk_size(1, 50_000_000, 300), (1, 4_242_641));
    for (file, channels) in [("rgb.png", 3), ("palette-alpha.png", 4)] {
        let image = decode(&fixture(file), 1 << 20, channels).unwrap();
        let size = (image.width, image.height);
        let mut same = vec![0; image.pixels.len()];
        let target = Target::whole(size, size);
        resize(image.as_view(), target, Interpolation::Bicubic, &mut same);
        assert_eq!(same, image.pixels, "{file}");
    }
}

/// A PNG of noise in strips, 600 x 900 pixels.
fn noise(color: png::ColorType, depth: png::BitDepth) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 600, 900);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(
            (0..=255)
                .flat_map(|n| [n, n / 2, 255 - n])
                .collect::<Vec<u8>>(),
        );
        encoder.set_trns((0..=255).rev().collect::<Vec<u8>>());
    }
    let line = color.samples() * 600 * (depth as usize) / 8;
    let pixels = (0..(line * 900) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    let mut writer = encoder.write_header().unwrap();
    writer
        .write_image_data(&pixels.collect::<Vec<u8>>())
        .unwrap();
    drop(writer);
    bytes
}

#[test]
fn pngs_read_by_rows_have_the_bits_of_whole_ones() {
    use png::{BitDepth, ColorType};
    let mut pngs: Vec<(String, Vec<u8>)> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".png"))
        .map(|name| (name.clone(), fixture(&name)))
        .collect();
    for color in [
        ColorType::Grayscale,
        ColorType::GrayscaleAlpha,
        ColorType::Rgb,
        ColorType::Rgba,
        ColorType::Indexed,
    ] {
        pngs.push((format!("{color:?}"), noise(color, BitDepth::Eight)));
    }
    pngs.push((
        "gray of a bit".to_owned(),
        noise(ColorType::Grayscale, BitDepth::One),
    ));
    let mut by_rows = 0;
    for (name, bytes) in &pngs {
        by_rows += usize::from(PngRows::open(bytes, 1 << 20, DECODER_BYTES).is_some());
        for channels in [1, 3, 4] {
            let whole = upright(decode_format(bytes, 1 << 20).unwrap(), channels);
            let size = (whole.width, whole.height);
            assert_eq!(
                decode(bytes, 1 << 20, channels).as_ref(),
                Ok(&whole),
                "{name}"
            );
            let inner = Part {
                left: f64::from(size.0) * 0.1,
                top: f64::from(size.1) * 0.3,
                width: f64::from(size.0) * 0.51,
                height: f64::from(size.1) * 0.37,
            };
            let targets = [
                Target::whole(size, (31, 57)),
                Target::whole(size, (size.0, 20)),
                Target {
                    part: inner,
                    width: 24,
                    height: 24,
                },
                Target {
                    part: inner,
                    width: 700,
                    height: 9,
                },
            ];
            for filter in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let form = (channels, filter);
                let resized = decode_resized(bytes, 1 << 20, form, &|_| targets.to_vec()).unwrap();
                for (target, found) in targets.iter().zip(resized.images) {
                    let mut wanted = vec![0; found.len()];
                    resize(whole.as_view(), *target, filter, &mut wanted);
                    assert!(
                        found == wanted,
                        "{name} in {channels}, {filter:?}, {target:?}"
                    );
                }
            }
        }
    }
    assert!(by_rows >= 8, "{by_rows} of {}", pngs.len());
}

#[test]
fn a_png_is_checked_to_its_end_without_targets() {
    let check = |bytes: &[u8]| {
        let form = (3, Interpolation::Bilinear);
        decode_resized(bytes, 1 << 20, form, &|_| Vec::new())
    };
    let mut bytes = noise(png::ColorType::Rgb, png::BitDepth::Eight);
    let found = check(&bytes).unwrap();
    assert_eq!((found.width, found.height), (600, 900));
    assert_eq!(
        check(&bytes[..bytes.len() - 2_000]).unwrap_err(),
        DecodeError::Truncated
    );
    // In the last rows.
    let at = bytes.len() - 300;
    bytes[at] ^= 0xff;
    assert_eq!(check(&bytes).unwrap_err().code(), "unreadable_image");
}
