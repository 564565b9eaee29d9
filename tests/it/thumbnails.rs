//! Thumbnails of a data set and contents of its samples: what a page shows of the images that a
//! user uploaded, without trusting any of them.

use std::{io::Cursor, time::Duration};

use image::{DynamicImage, GenericImageView as _, ImageFormat, Rgb, RgbImage, Rgba};
use nix::sys::signal::Signal;
use rehead::domain::role::Role;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    data,
    postgres::invariants,
    process::resident_memory,
    service::{Answer, Service},
};

/// Colors that JPEG changes little.
const RED: [u8; 3] = [220, 30, 30];
const BLUE: [u8; 3] = [30, 30, 220];

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An image whose left half is red, and its right half blue.
fn halves(width: u32, height: u32) -> RgbImage {
    let color = |x| if x < width / 2 { RED } else { BLUE };
    RgbImage::from_fn(width, height, |x, _| Rgb(color(x)))
}

/// The JPEG with an orientation of EXIF, and a comment.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let segment = |marker: u8, data: &[u8]| {
        let length = (data.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker][..], &length, data].concat()
    };
    let comment = segment(0xfe, b"where the user lives");
    [&jpeg[..2], &segment(0xe1, &exif), &comment, &jpeg[2..]].concat()
}

/// A GIF whose first frame is red, and its second one blue.
fn two_frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for [r, g, b] in [RED, BLUE] {
        let frame = image::RgbaImage::from_pixel(40, 30, Rgba([r, g, b, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    bytes
}

/// Path, content, size of the thumbnail, and two of its colors.
type Case = (&'static str, Vec<u8>, (u32, u32), [[u8; 3]; 2]);

/// Images of all kinds, by path, with the size of their thumbnail, and the colors at its left and
/// at its right end.
fn images() -> Vec<Case> {
    let wide = encoded(halves(400, 200), ImageFormat::Jpeg);
    let clear = image::RgbaImage::from_fn(60, 60, |x, _| {
        Rgba([RED[0], RED[1], RED[2], if x < 30 { 0 } else { 255 }])
    });
    let deep =
        image::ImageBuffer::<Rgb<u16>, _>::from_pixel(10, 300, Rgb([220 << 8, 30 << 8, 30 << 8]));
    let gray = image::GrayImage::from_pixel(128, 128, image::Luma([128]));
    let white = [255; 3];
    vec![
        (
            "a/alpha.png",
            encoded(clear, ImageFormat::Png),
            (60, 60),
            [white, RED],
        ),
        (
            "a/deep.png",
            encoded(DynamicImage::from(deep), ImageFormat::Png),
            (4, 128),
            [RED, RED],
        ),
        (
            "a/gray.png",
            encoded(gray, ImageFormat::Png),
            (128, 128),
            [[128; 3]; 2],
        ),
        ("a/two frames.gif", two_frames(), (40, 30), [RED, RED]),
        // Turned by a half: what was left is right.
        (
            "b/turned.jpg",
            with_orientation(&wide, 3),
            (128, 64),
            [BLUE, RED],
        ),
        (
            "b/wide.bmp",
            encoded(halves(400, 200), ImageFormat::Bmp),
            (128, 64),
            [RED, BLUE],
        ),
        ("b/wide.jpg", wide, (128, 64), [RED, BLUE]),
        (
            "b/wide.webp",
            encoded(halves(200, 400), ImageFormat::WebP),
            (64, 128),
            [RED, BLUE],
        ),
    ]
}

async fn get(service: &Service, file: &Value, sample: usize, what: &str) -> Answer {
    let id = file["id"].as_str().unwrap();
    let path = format!("/v1/files/{id}/samples/{sample}/{what}");
    service.get(&path).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

#[track_caller]
fn assert_near(found: Rgb<u8>, expected: [u8; 3], place: &str) {
    let far = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 40;
    let is_near = !found.0.iter().zip(&expected).any(far);
    assert!(is_near, "{place}: {found:?} instead of {expected:?}");
}

/// D15: first frame, upright, on white, at most 128 pixels, no metadata; immutable; of the owner
/// only; made later for data sets that have none.
#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_show_first_frame_upright_on_white() {
    let mut service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let images = images();
    let entries: Vec<(&str, &Vec<u8>)> = images.iter().map(|one| (one.0, &one.1)).collect();
    let file = service.dataset(data::zip(&entries)).await;
    assert_eq!(file["status"], "processed", "{file}");
    assert_eq!(file["thumbnails"], "ready");
    let mut thumbnails = Vec::new();
    for (sample, (path, bytes, size, ends)) in images.iter().enumerate() {
        let answer = get(&service, &file, sample, "thumbnail").await;
        assert_eq!(header(&answer, "content-type"), "image/jpeg", "{path}");
        let small = image::load_from_memory_with_format(&answer.body, ImageFormat::Jpeg).unwrap();
        assert_eq!((small.width(), small.height()), *size, "{path}");
        let (small, y) = (small.to_rgb8(), size.1 / 2);
        assert_near(*small.get_pixel(size.0 / 8, y), ends[0], path);
        assert_near(*small.get_pixel(size.0 - 1 - size.0 / 8, y), ends[1], path);
        for secret in ["Exif", "where the user lives"] {
            let text = secret.as_bytes();
            assert!(
                !answer.body.windows(text.len()).any(|some| some == text),
                "{path}"
            );
        }
        thumbnails.push(answer.body);

        let answer = get(&service, &file, sample, "content").await;
        assert_eq!(answer.body, *bytes, "{path}");
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(
            header(&answer, "content-disposition"),
            format!("inline; filename=\"{name}\"")
        );
        let media_type = match name.rsplit('.').next().unwrap() {
            "jpg" => "image/jpeg".to_owned(),
            other => format!("image/{other}"),
        };
        assert_eq!(header(&answer, "content-type"), media_type);
    }

    // For ever, and not sent twice.
    for what in ["thumbnail", "content"] {
        let answer = get(&service, &file, 0, what).await;
        let expected = [
            ("cache-control", "private, max-age=31536000, immutable"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ];
        for (name, value) in expected {
            assert_eq!(header(&answer, name), value);
        }
        let tag = header(&answer, "etag").to_owned();
        let path = format!(
            "/v1/files/{}/samples/0/{what}",
            file["id"].as_str().unwrap()
        );
        let again = |request: RequestBuilder| request.header("if-none-match", &tag);
        let again = service.send(Method::GET, &path, again).await;
        assert_eq!(
            (again.status, again.body.len()),
            (StatusCode::NOT_MODIFIED, 0)
        );
        let other = get(&service, &file, 1, what).await;
        assert_ne!(header(&other, "etag"), tag);
        let missing = get(&service, &file, images.len(), what).await;
        missing.error(404, "not_found");
    }

    // A data set of an earlier version has none, until a worker makes them.
    let pool = service.pool().await;
    let id = file["id"].as_str().unwrap();
    let object = service
        .objects()
        .join(format!("files/{}/thumbnails", &id[5..]));
    std::fs::remove_file(&object).unwrap();
    let forget = "update files set thumbnails_bytes = null";
    sqlx::query(forget).execute(&pool).await.unwrap();
    let file = service.get(&format!("/v1/files/{id}")).await.ok();
    assert_eq!(file["thumbnails"], "none");
    for what in ["thumbnail", "content"] {
        let message = get(&service, &file, 0, what)
            .await
            .error(404, "no_thumbnails");
        assert!(
            message.contains(&format!("POST /v1/files/{id}/thumbnails")),
            "{message}"
        );
    }
    let path = format!("/v1/files/{id}/thumbnails");
    for _ in 0..2 {
        let asked = service.post(&path, &json!({})).await.ok();
        assert_ne!(asked["thumbnails"], "none");
    }
    let path = format!("/v1/files/{id}");
    service
        .until(&path, "thumbnails", |file| file["thumbnails"] == "ready")
        .await;
    for (sample, before) in thumbnails.iter().enumerate() {
        let answer = get(&service, &file, sample, "thumbnail").await;
        assert_eq!(answer.body, *before, "sample {sample}");
    }
    let again = service
        .post(&format!("{path}/thumbnails"), &json!({}))
        .await;
    assert_eq!(again.ok()["thumbnails"], "ready");

    // Weights have none, and what is not validated has none yet.
    let weights = service.upload("w", "weights", vec![1]).await.ok();
    let path = format!("/v1/files/{}/thumbnails", weights["id"].as_str().unwrap());
    let answer = service.post(&path, &json!({})).await;
    answer.error(404, "no_thumbnails");
    let answer = get(&service, &weights, 0, "thumbnail").await;
    answer.error(404, "no_thumbnails");

    // A disk that alters them is found out.
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    let mut damaged = 0;
    for sample in 0..images.len() {
        let answer = get(&service, &file, sample, "thumbnail").await;
        if answer.status == 500 {
            answer.error(500, "object_damaged");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);

    // Another tenant's file does not exist.
    service.key = Some(service.new_key("stranger", Role::User).await);
    for what in ["thumbnail", "content"] {
        let answer = get(&service, &file, 0, what).await;
        answer.error(404, "not_found");
    }
    service.key = Some(service.new_key("default", Role::User).await);
    get(&service, &file, 1, "content").await;
}

/// D14: whatever is uploaded is sent as an image or as bytes, and is decoded by nobody here.
#[tokio::test(flavor = "multi_thread")]
async fn a11_hostile_samples_are_sent_as_images_or_bytes() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let script = b"<html><script>alert(document.domain)</script>";
    let png = encoded(halves(300, 100), ImageFormat::Png);
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>";
    let entries: Vec<(&str, Vec<u8>)> = vec![
        ("a/x.png", png.clone()),
        ("a/script.svg", svg.to_vec()),
        (
            "a/page.html.png",
            [&b"\x89PNG\r\n\x1a\n"[..], script].concat(),
        ),
        ("b/polyglot.html", [&png[..], script].concat()),
        (
            "b/\"><script>alert(1)</script>.png",
            encoded(halves(20, 20), ImageFormat::Png),
        ),
    ];
    let file = service.dataset(data::zip(&entries)).await;
    assert_eq!(file["dataset"]["samples"], 3, "{file}");
    let memory = resident_memory(service.server.pid());
    for _ in 0..20 {
        for sample in 0..3 {
            for what in ["thumbnail", "content"] {
                let answer = get(&service, &file, sample, what).await;
                let media_type = match what {
                    "thumbnail" => "image/jpeg",
                    _ => "image/png",
                };
                assert_eq!(header(&answer, "content-type"), media_type);
                assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
                assert_eq!(
                    header(&answer, "content-security-policy"),
                    "default-src 'none'; sandbox"
                );
                if let Some(name) = answer.headers.get("content-disposition") {
                    let name = name.to_str().unwrap();
                    assert!(name.starts_with("inline; filename=\"") && !name.contains('<'));
                    assert_eq!(name.matches('"').count(), 2, "{name}");
                }
                if what == "thumbnail" {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    assert!(!text.contains("script"), "{text}");
                    let image = image::load_from_memory(&answer.body).unwrap();
                    assert!(image.dimensions() <= (128, 128));
                }
            }
        }
    }
    let grown = resident_memory(service.server.pid()).saturating_sub(memory);
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");
}

/// Problems name samples, so that a page can show them; `--max-thumbnails` limits thumbnails, not
/// contents.
#[tokio::test(flavor = "multi_thread")]
async fn problems_name_their_samples() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &["--max-thumbnails", "3"]);
    let image = |n: u32| encoded(halves(40 + n, 40), ImageFormat::Png);
    let entries: Vec<(&str, Vec<u8>)> = vec![
        ("a/0.png", image(0)),
        ("a/1.png", b"no image".to_vec()),
        ("a/2.png", image(2)),
        ("a/3.png", image(0)),
        ("b/0.png", image(4)),
        ("b/1.png", image(2)),
    ];
    let file = service.dataset(data::zip(&entries)).await;
    let id = file["id"].as_str().unwrap();
    let report = service.get(&format!("/v1/files/{id}/report")).await.ok();
    let samples_of = |code: &str| {
        let mut warnings = report["warnings"].as_array().unwrap().iter();
        let found = warnings.find(|one| one["code"] == code);
        found.unwrap_or_else(|| panic!("{code}: {report}"))["samples"].clone()
    };
    assert_eq!(samples_of("duplicate_image"), json!([0, 2]));
    assert_eq!(samples_of("conflicting_duplicates"), json!([1, 4]));
    assert_eq!(samples_of("not_an_image"), Value::Null);
    for sample in 0..5 {
        let answer = get(&service, &file, sample, "thumbnail").await;
        if sample < 2 {
            assert_eq!(answer.status, 200);
        } else {
            let message = answer.error(404, "no_thumbnails");
            assert!(message.contains("--max-thumbnails"), "{message}");
        }
        let answer = get(&service, &file, sample, "content").await;
        assert_eq!(answer.status, 200);
    }
}

/// Two workers die while they make thumbnails, at different moments; a third one makes all of them.
#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_survive_the_death_of_workers() {
    let timing = [
        "--lease-ms",
        "1500",
        "--reap-ms",
        "200",
        "--heartbeat-ms",
        "300",
    ];
    let service = Service::start_with(&["--reap-ms", "200"]).await;
    let mut worker = service.worker("validates", &timing);
    let file = service
        .dataset(data::clipart_subset(&["animals", "food"], 40))
        .await;
    let id = file["id"].as_str().unwrap();
    let thumbnail = async |sample| {
        let answer = get(&service, &file, sample, "thumbnail").await;
        assert_eq!(answer.status, 200, "sample {sample}");
        answer.body
    };
    let mut before = Vec::new();
    for sample in 0..file["dataset"]["samples"].as_u64().unwrap() as usize {
        before.push(thumbnail(sample).await);
    }
    worker.signal(Signal::SIGKILL);
    worker.wait(Duration::from_secs(10));

    let pool = service.pool().await;
    let object = service
        .objects()
        .join(format!("files/{}/thumbnails", &id[5..]));
    std::fs::remove_file(&object).unwrap();
    let forget = "update files set thumbnails_bytes = null";
    sqlx::query(forget).execute(&pool).await.unwrap();
    let path = format!("/v1/files/{id}/thumbnails");
    assert_eq!(
        service.post(&path, &json!({})).await.ok()["thumbnails"],
        "queued"
    );
    let leased = async || -> bool {
        let leased =
            "select exists (select from work where kind = 'thumbnails' and worker_id is not null)";
        sqlx::query_scalar(leased).fetch_one(&pool).await.unwrap()
    };
    for pause in [0, 60] {
        let mut worker = service.worker("dies", &timing);
        while !leased().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        worker.signal(Signal::SIGKILL);
        worker.wait(Duration::from_secs(10));
        let now = service.get(&format!("/v1/files/{id}")).await.ok();
        assert_eq!(now["thumbnails"], "queued");
        while leased().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let _worker = service.worker("lives", &timing);
    let ready = |file: &Value| file["thumbnails"] == "ready";
    service
        .until(&format!("/v1/files/{id}"), "thumbnails", ready)
        .await;
    for (sample, before) in before.iter().enumerate() {
        assert_eq!(thumbnail(sample).await, *before, "sample {sample}");
    }
    invariants(&pool).await;
}
