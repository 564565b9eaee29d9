//! Jobs on gray images and on images with alpha, from the upload to the export.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, RgbaImage};
use rehead_test_support::weights;
use serde_json::{Value, json};

use crate::support::{
    data::{unzip, zip},
    service::{Service, job_body},
};

const SIDE: u32 = 48;

/// The same for the same number, from 0 to 255.
fn noise(number: u32) -> u32 {
    let mut x = number.wrapping_mul(0x9E37_79B9) ^ 0x5bd1_e995;
    x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
    (x ^ (x >> 13)) & 0xff
}

fn png(image: DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Gray stripes of 12 or of 3 pixels, each image of a brightness and place of its own.
fn stripes(coarse: bool, number: u32) -> Vec<u8> {
    let width = if coarse { 12 } else { 3 };
    let (shift, bright) = (noise(number) % 24, 120 + noise(number + 7) / 2);
    let pixel = |x: u32, _| {
        let light = ((x + shift) / width).is_multiple_of(2);
        image::Luma([if light { bright as u8 } else { 20 }])
    };
    png(DynamicImage::ImageLuma8(GrayImage::from_fn(
        SIDE, SIDE, pixel,
    )))
}

/// Colors with a white square, which is a hole or is not: on white the two kinds cannot be told
/// apart.
fn square(hole: bool, number: u32) -> Vec<u8> {
    let (left, top) = (noise(number) % 20, noise(number + 3) % 20);
    let pixel = |x: u32, y: u32| {
        let inside = (left..left + 26).contains(&x) && (top..top + 26).contains(&y);
        let of = |channel: u32| (noise(number + channel * 101 + x / 8 * 17 + y / 8) / 2) as u8;
        match (inside, hole) {
            (true, true) => image::Rgba([255, 255, 255, 0]),
            (true, false) => image::Rgba([255; 4]),
            (false, _) => image::Rgba([of(1), of(2), of(3), 255]),
        }
    };
    png(DynamicImage::ImageRgba8(RgbaImage::from_fn(
        SIDE, SIDE, pixel,
    )))
}

/// 60 images of either kind.
fn archive(kinds: [&str; 2], image: impl Fn(bool, u32) -> Vec<u8>) -> Vec<u8> {
    let of = |first: bool| {
        let image = &image;
        let kind = kinds[usize::from(!first)];
        (0..60).map(move |n| (format!("{kind}/{n}.png"), image(first, 100 * n)))
    };
    zip(&of(true).chain(of(false)).collect::<Vec<_>>())
}

async fn register(service: &Service, id: &str, input: Value) -> Value {
    let file = service
        .upload(
            "weights",
            "weights",
            weights::safetensors(&weights::resnet18(), weights::by_rules),
        )
        .await
        .ok();
    let body = json!({
        "id": id, "architecture": "resnet18", "weights": {"file": file["id"]}, "preprocessing": input,
    });
    service.post("/v1/base_models", &body).await.ok()
}

/// A job on this file that must succeed; first its plan.
async fn trained(service: &Service, model: &Value, file: &Value, transfer: Value) -> Value {
    let body = job_body(model["id"].as_str().unwrap(), file, &transfer);
    let plan = service.post("/v1/fine_tuning/jobs/plan", &body).await.ok();
    assert!(plan["memory"]["peak_bytes"].as_u64().unwrap() > 0, "{plan}");
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    json!({"id": job["fine_tuned_model"]})
}

/// How many images that it never saw a model names rightly, of 20.
async fn right(
    service: &Service,
    model: &Value,
    kinds: [&str; 2],
    image: impl Fn(bool, u32) -> Vec<u8>,
) -> usize {
    let mut right = 0;
    for number in 0..20 {
        let first = number % 2 == 0;
        let bytes = image(first, 50_000 + 31 * number);
        let model = model["id"].as_str().unwrap();
        let answer = service.predict(model, bytes).await;
        right += usize::from(answer["label"] == kinds[usize::from(!first)]);
    }
    right
}

/// Input settings of the exported bundle; its TorchScript computes the same, or there would be
/// none.
async fn exported(service: &Service, model: &Value) -> (Value, Value, Vec<usize>) {
    let path = format!("/v1/models/{}/export", model["id"].as_str().unwrap());
    let script = service.get(&format!("{path}?format=torchscript")).await;
    assert_eq!(script.status, 200, "{}", script.text());
    let bundle = service.get(&path).await;
    let files = unzip(&bundle.body);
    let config = serde_json::from_slice(&files["config.json"]).unwrap();
    let preprocess = serde_json::from_slice(&files["preprocess.json"]).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&files["golden.safetensors"]).unwrap();
    let shape = golden.tensor("inputs").unwrap().shape().to_vec();
    (config, preprocess, shape)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_learn_from_gray_images() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let base = register(&service, "gray", json!({"channels": 1, "input_size": 64})).await;
    assert_eq!(
        (&base["input"]["channels"], &base["input"]["input_size"]),
        (&json!(1), &json!(64))
    );
    assert_eq!(base["input"]["mean"].as_array().unwrap().len(), 1);
    let layers = service.get("/v1/models/gray/layers").await.ok();
    assert_eq!(layers["tensors"][0]["shape"], json!([64, 1, 7, 7]));

    let kinds = ["coarse", "fine"];
    let file = service.dataset(archive(kinds, stripes)).await;
    let frozen = json!({"freeze": "all", "hyperparameters": {"n_epochs": 20}});
    let model = trained(&service, &base, &file, frozen).await;
    assert!(right(&service, &model, kinds, stripes).await >= 19);
    let (config, preprocess, golden) = exported(&service, &model).await;
    assert_eq!(config["model_args"], json!({"in_chans": 1}));
    assert_eq!(config["pretrained_cfg"]["input_size"], json!([1, 64, 64]));
    assert_eq!(preprocess["channels"], 1);
    assert_eq!(golden[1..], [1, 64, 64]);

    // There is no color to move.
    let colored = json!({
        "model": model["id"], "training_file": file["id"],
        "method": {"type": "transfer", "transfer": {"augmentation": {"color_jitter": {"saturation": 0.2}}}},
    });
    let path = "/v1/fine_tuning/jobs/plan";
    let refused = service.post(path, &colored).await;
    refused.error(422, "contradiction");

    // Its weights and its input go on together.
    let deeper = json!({
        "freeze": {"all_but_last_stages": 1}, "hyperparameters": {"n_epochs": 1},
        "augmentation": {"color_jitter": {"brightness": 0.2, "contrast": 0.2}, "rand_augment": {}, "random_erasing": 0.25},
    });
    let next = trained(&service, &model, &file, deeper).await;
    assert!(right(&service, &next, kinds, stripes).await >= 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_learn_what_only_alpha_tells() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let kinds = ["hole", "white"];
    let file = service.dataset(archive(kinds, square)).await;
    let base = register(&service, "alpha", json!({"channels": 4, "input_size": 64})).await;
    let transfer = json!({
        "freeze": {"all_but_last_stages": 1}, "hyperparameters": {"n_epochs": 4},
        "augmentation": {"random_resized_crop": {"scale": [0.6, 1.0]}, "horizontal_flip": 0.5, "color_jitter": {"brightness": 0.2, "saturation": 0.2}, "rand_augment": {}},
    });
    let model = trained(&service, &base, &file, transfer.clone()).await;
    let found = right(&service, &model, kinds, square).await;
    let (config, preprocess, golden) = exported(&service, &model).await;
    assert_eq!(config["model_args"], json!({"in_chans": 4}));
    assert_eq!(preprocess["mean"][3], 1.0);
    assert_eq!(golden[1..], [4, 64, 64]);

    // The same images on white, as networks for colors see them, cannot be told apart.
    let base = register(&service, "colors", json!({"input_size": 64})).await;
    let model = trained(&service, &base, &file, transfer).await;
    let guessed = right(&service, &model, kinds, square).await;
    println!("{found} of 20 right with alpha, {guessed} without");
    assert!(found >= 18 && guessed <= 15, "{found} {guessed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_no_network_takes_are_refused_at_once() {
    let service = Service::start().await;
    let file = service
        .upload(
            "weights",
            "weights",
            weights::safetensors(&weights::resnet18(), weights::by_rules),
        )
        .await
        .ok();
    for (input, code, said) in [
        (json!({"channels": 0}), "out_of_range", "1 (gray)"),
        (json!({"channels": 2}), "out_of_range", "1 (gray)"),
        (json!({"channels": 5}), "out_of_range", "1 (gray)"),
        (
            json!({"channels": 1, "mean": [0.5, 0.5, 0.5]}),
            "invalid_value",
            "1 channels",
        ),
        (json!({"input_size": 31}), "out_of_range", "from 32"),
    ] {
        let body = json!({
            "id": "x", "architecture": "resnet18", "weights": {"file": file["id"]}, "preprocessing": input,
        });
        let message = service
            .post("/v1/base_models", &body)
            .await
            .error(422, code);
        assert!(message.contains(said), "{message}");
    }
}
