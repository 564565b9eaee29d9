//! The sample report of samples: a wrong label and a copy across splits are found, and a page
//! follows the other.

use std::io::Cursor;

use rehead::{
    db::queue::{self, Trace},
    domain::{
        id::{FileId, WorkerId},
        job::Outcome,
    },
};
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::{
        data,
        postgres::invariants,
        queue::{HOUR, claim, new_model},
        service::Service,
    },
};

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

    // A cell of the confusion matrix is a list, and each sample can be shown.
    let cell = "label=food&prediction=animals&split=validation&sort=sample";
    let cell = page(&service, &job, cell).await;
    assert!(paths(&cell).contains(&"val/food/wrong.png"), "{cell}");
    assert_eq!(cell["count"], paths(&cell).len());
    for sample in cell["data"].as_array().unwrap() {
        assert_eq!(
            (&sample["label"], &sample["prediction"]),
            (&json!("food"), &json!("animals"))
        );
        assert_eq!(
            (&sample["file"], &sample["file_sample"]),
            (&file["id"], &sample["sample"])
        );
        let (file, n) = (sample["file"].as_str().unwrap(), &sample["file_sample"]);
        let path = format!("/v1/files/{file}/samples/{n}");
        let content = service.get(&format!("{path}/content")).await;
        let name = sample["path"].as_str().unwrap().rsplit('/').next().unwrap();
        let disposition = content.headers["content-disposition"].to_str().unwrap();
        assert_eq!(disposition, format!("inline; filename=\"{name}\""));
        let small = service.get(&format!("{path}/thumbnail")).await;
        assert_eq!(small.status, 200);
    }

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
    assert_eq!(page(&service, &job, "").await["count"], all.len());
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

/// A23: labels, predictions and paths are found literally, among several labels too, and a sample
/// knows which of the job's files it is in.
#[tokio::test]
async fn samples_are_found_literally_in_either_file() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let validation = service.upload("v.zip", "weights", vec![1]).await.ok();
    let validation: FileId = validation["id"].as_str().unwrap().parse().unwrap();
    let pool = service.pool().await;
    let claimed = claim(&pool, WorkerId::new(), HOUR).await.unwrap();
    let update = "update jobs set validation_file = $1";
    let update = sqlx::query(update).bind(validation.0);
    update.execute(&pool).await.unwrap();
    let model = new_model(&claimed);
    let folder = service.objects().join(&model.objects);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), "{}").unwrap();
    let (id, token) = (claimed.job, claimed.token);
    queue::finish(
        &pool,
        id,
        token,
        &Outcome::Succeeded,
        Some(&model),
        &Trace::default(),
    )
    .await
    .unwrap();
    for (sample, split, path, label, prediction) in [
        (0, "train", "a/x_1.png", json!("cat"), json!("dog")),
        (1, "train", "a/xy1.png", json!("cat"), json!("cat")),
        (99, "train", "b/100%.png", json!("dog"), json!("cat")),
        (
            100,
            "validation",
            "b/Größe.png",
            json!("<b>%</b>"),
            json!("dog"),
        ),
        (105, "validation", "c", json!(["cat", "dog"]), json!([])),
    ] {
        let insert = "insert into job_samples (job_id, sample, split, path, label, prediction, loss, likely_wrong_label)
            values ($1, $2, $3, $4, $5, $6, 1, false)";
        let insert = sqlx::query(insert).bind(id.0).bind(sample).bind(split);
        let insert = insert.bind(path).bind(label).bind(prediction);
        insert.execute(&pool).await.unwrap();
    }
    for (query, expected) in [
        ("", vec![0, 1, 99, 100, 105]),
        ("label=cat", vec![0, 1, 105]),
        ("label=dog", vec![99, 105]),
        ("label=cat&prediction=dog", vec![0]),
        ("label=cat&prediction=dog&split=validation", vec![]),
        ("label=Cat", vec![]),
        ("label=c%25", vec![]),
        ("label=%3Cb%3E%25%3C%2Fb%3E", vec![100]),
        ("label=%5B%5D", vec![]),
        ("q=x_1", vec![0]),
        ("q=%25", vec![99]),
        ("q=.PNG", vec![0, 1, 99, 100]),
        ("q=GR%C3%96", vec![100]),
        ("q=%27%20or%201%3D1", vec![]),
    ] {
        let page = page(&service, &job, &format!("sort=sample&limit=2&{query}")).await;
        let found = page["data"].as_array().unwrap().iter();
        let found: Vec<i64> = found.map(|one| one["sample"].as_i64().unwrap()).collect();
        assert_eq!(found, expected[..expected.len().min(2)], "{query}");
        assert_eq!(page["count"], expected.len(), "{query}");
        assert_eq!(page["has_more"], expected.len() > 2, "{query}");
    }
    let places = async || -> Vec<(Value, Value)> {
        let all = page(&service, &job, "sort=sample").await;
        let all = all["data"].as_array().unwrap().iter();
        all.map(|one| (one["file"].clone(), one["file_sample"].clone()))
            .collect()
    };
    let (training, validation) = (job["training_file"].clone(), json!(validation));
    let expected = [
        (training.clone(), json!(0)),
        (training.clone(), json!(1)),
        (training.clone(), json!(99)),
        (validation.clone(), json!(0)),
        (validation.clone(), json!(5)),
    ];
    assert_eq!(places().await, expected);
    // Without the training file, nobody knows where the other one begins.
    let path = format!("/v1/files/{}", training.as_str().unwrap());
    service.delete(&path).await.ok();
    let found = places().await;
    assert_eq!(found[..3], expected[..3]);
    assert_eq!(found[4], (validation, Value::Null));
    let long = format!("{}/samples?q={}", service.path(&job), "x".repeat(256));
    service.get(&long).await.error(422, "out_of_range");
}
