//! The sample report of samples: a wrong label and a copy across splits are found, and a page
//! follows the other.

use std::io::Cursor;

use serde_json::{Value, json};

use crate::support::{data, postgres::invariants, service::Service};

/// Three kinds of clip art in folders for training and validation. Among those that validate:
/// `food/wrong.png`, which shows an animal, and `animals/copy.jpg`, a training image, smaller and
/// encoded again.
fn archive() -> Vec<u8> {
    let plain = data::clipart_subset(&["animals", "food", "transportation"], 18);
    let mut plain = zip::ZipArchive::new(Cursor::new(plain)).unwrap();
    let mut entries = Vec::new();
    for place in 0..plain.len() {
        let mut entry = plain.by_index(place).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        let number: u32 = name.split(['/', '.']).nth(1).unwrap().parse().unwrap();
        if name == "animals/17.png" {
            entries.push(("val/food/wrong.png".to_owned(), bytes));
            continue;
        }
        if name == "animals/0.png" {
            entries.push(("val/animals/copy.jpg".to_owned(), smaller(&bytes)));
        }
        let split = if number < 12 { "train" } else { "val" };
        entries.push((format!("{split}/{name}"), bytes));
    }
    data::zip(&entries)
}

/// The image on white at four fifths of its size, as JPEG.
fn smaller(png: &[u8]) -> Vec<u8> {
    let image = image::load_from_memory(png).unwrap().to_rgba8();
    let mut white =
        image::RgbaImage::from_pixel(image.width(), image.height(), image::Rgba([255; 4]));
    image::imageops::overlay(&mut white, &image, 0, 0);
    let (width, height) = (image.width() * 4 / 5, image.height() * 4 / 5);
    let image = image::DynamicImage::from(white).resize_exact(
        width,
        height,
        image::imageops::FilterType::Triangle,
    );
    let mut jpeg = Cursor::new(Vec::new());
    image
        .to_rgb8()
        .write_to(&mut jpeg, image::ImageFormat::Jpeg)
        .unwrap();
    jpeg.into_inner()
}

async fn page(service: &Service, job: &Value, query: &str) -> Value {
    let id = job["id"].as_str().unwrap();
    service
        .get(&format!("/v1/fine_tuning/jobs/{id}/samples?{query}"))
        .await
        .ok()
}

fn paths(page: &Value) -> Vec<&str> {
    let samples = page["data"].as_array().unwrap().iter();
    samples
        .map(|sample| sample["path"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_label_and_a_copy_across_splits_are_found() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service.dataset(archive()).await;
    let transfer =
        json!({"freeze": "all", "head": {"init": "probe"}, "hyperparameters": {"n_epochs": 5}});
    let job = service.job(&file, &transfer).await;
    let id = job["id"].as_str().unwrap();
    let early = service
        .get(&format!("/v1/fine_tuning/jobs/{id}/samples"))
        .await;
    early.error(409, "no_samples");
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");

    // What is wrong comes first.
    let worst = page(&service, &job, "split=validation&limit=5").await;
    assert!(paths(&worst).contains(&"val/food/wrong.png"), "{worst}");
    let suspects = page(&service, &job, "flag=likely_wrong_label&split=validation").await;
    assert!(
        paths(&suspects).contains(&"val/food/wrong.png"),
        "{suspects}"
    );
    let all_wrong = suspects["data"].as_array().unwrap().iter();
    assert!(
        all_wrong
            .clone()
            .all(|one| one["label"] != one["prediction"])
            && all_wrong.len() < 10,
        "more than half are suspects, or one that is right: {suspects}"
    );
    let copies = page(&service, &job, "flag=near_duplicate").await;
    assert!(paths(&copies).contains(&"val/animals/copy.jpg"), "{copies}");
    assert!(paths(&copies).len() <= 3, "{copies}");
    let copy = copies["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["path"] == "val/animals/copy.jpg");
    assert_eq!(copy.unwrap()["near_duplicate_of"], "train/animals/0.png");

    // A backbone that was trained finds all animals alike; likeness is that of the images as they
    // were.
    let transfer = json!({"freeze": "none", "hyperparameters": {"n_epochs": 4}});
    let trained = service.job(&file, &transfer).await;
    let trained = service.ended(&trained).await;
    let again = page(&service, &trained, "flag=near_duplicate").await;
    assert_eq!(paths(&again), paths(&copies));

    // Page by page: every sample once, in order.
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(&service, &job, &format!("sort=margin&limit=9{after}")).await;
        all.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
    assert_eq!(all.len(), 3 * 18 + 1);
    let margins: Vec<f64> = all
        .iter()
        .map(|one| one["margin"].as_f64().unwrap())
        .collect();
    assert!(
        margins.is_sorted() && margins.iter().all(|margin| (-1.0..=1.0).contains(margin)),
        "{margins:?}"
    );
    let mut samples: Vec<u64> = all
        .iter()
        .map(|one| one["sample"].as_u64().unwrap())
        .collect();
    samples.sort_unstable();
    assert!(samples.into_iter().eq(0..55));

    // The sample report and the report are of one mind.
    let report = service.part(&job, "/report").await;
    let validated: Vec<&Value> = all
        .iter()
        .filter(|one| one["split"] == "validation")
        .collect();
    let right = validated
        .iter()
        .filter(|one| one["label"] == one["prediction"])
        .count();
    let accuracy = right as f64 / validated.len() as f64;
    assert!(
        (report["accuracy"].as_f64().unwrap() - accuracy).abs() < 1e-9,
        "{report}"
    );

    let wrong = service
        .get(&format!("/v1/fine_tuning/jobs/{id}/samples?sort=los"))
        .await;
    assert!(wrong.status.is_client_error(), "{}", wrong.text());
    invariants(&service.pool().await).await;
}
