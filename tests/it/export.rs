//! An exported model is the trained one: a new process checks that before there is a model, and
//! TorchScript and ONNX compute the same logits.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use rehead::domain::{export::NetworkFormat, progress::Verified};
use serde_json::{Value, json};

use crate::support::{
    attempts::{QUICK, material, outcomes},
    data::unzip,
    process::trainer,
    service::Service,
};

/// Arguments of a worker whose trainer is a shell script, which no sandbox lets run: `QUICK`
/// without one.
pub(crate) const UNCONFINED: [&str; 8] = {
    let [a, b, c, d, e, f] = QUICK;
    [a, b, c, d, e, f, "--sandbox", "off"]
};

/// A copy of the service's executable whose trainer does `prank` before each check of a bundle and
/// each export.
pub(crate) fn pranked(dir: &Path, prank: &str) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_rehead"), dir.join("rehead")).unwrap();
    let (pranked, real) = (dir.join("rehead-trainer"), trainer());
    let real = real.display();
    let text =
        format!("#!/bin/sh\ncase \"$1\" in verify|export)\n{prank}\nesac\nexec {real} \"$@\"\n");
    fs::write(&pranked, text).unwrap();
    fs::set_permissions(&pranked, fs::Permissions::from_mode(0o755)).unwrap();
    dir.join("rehead")
}

/// Zeros over the last weights of a finished bundle, in files that nothing else touched.
const DAMAGE: &str = "blocks=$(($(stat -c %s \"$2/model.safetensors\") / 4096))
dd if=/dev/zero of=\"$2/model.safetensors\" bs=4096 count=1 seek=$((blocks - 1)) conv=notrunc 2>/dev/null";

#[tokio::test(flavor = "multi_thread")]
async fn no_model_comes_of_a_bundle_that_is_not_what_was_trained() {
    let service = Service::start().await;
    let dir = service.dir.path().join("pranked");
    let damaging = service.worker_of(&pranked(&dir, DAMAGE), "damaging", &UNCONFINED);
    let file = material(&service).await;
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 2}});
    let job = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(job["error"]["code"], "export_mismatch", "{job}");
    assert_eq!(outcomes(&job), ["failed"], "it is not tried again");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("other logits"), "{message}");
    damaging.signal(Signal::SIGTERM);

    // A check that dies is no verdict: the next attempt goes on from the finished checkpoint. An
    // export that dies is repeated while its request waits.
    let marker = dir.join("died");
    let dies_once = format!(
        "[ -e {0}-$1 ] || {{ : >{0}-$1; kill -9 $$; }}",
        marker.display()
    );
    let _dying = service.worker_of(
        &pranked(&dir.join("dying"), &dies_once),
        "dying",
        &UNCONFINED,
    );
    let job = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(outcomes(&job), ["crashed", "succeeded"]);
    exports(&service, &job).await;
    assert!(dir.join("died-export").exists());
}

/// The clip art begins with one image under two names; the third golden image is another.
fn tells_images_apart(golden: &[u8]) {
    let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
    let logits = golden.tensor("logits").unwrap();
    let row = logits.data().len() / logits.shape()[0];
    assert_ne!(logits.data()[..row], logits.data()[2 * row..3 * row]);
}

/// A fresh process gets the bundle's golden logits from the file alone.
pub(crate) fn is_of_the_bundle(
    folder: &Path,
    files: &BTreeMap<String, Vec<u8>>,
    (format, file): (NetworkFormat, &[u8]),
) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let path = folder.join(format.file_name());
    fs::write(&path, file).unwrap();
    let checked = Command::new(trainer())
        .arg("verify")
        .arg(folder)
        .arg("--file")
        .arg(&path)
        .args(["--format", format.as_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    // Around it come reports of work where the machine is slow.
    let verified = said
        .lines()
        .find_map(|line| serde_json::from_str(line).ok());
    assert!(
        matches!(verified, Some(Verified::Same { .. })),
        "{verified:?}: {said}"
    );
}

async fn exports(service: &Service, job: &Value) {
    let model = job["fine_tuned_model"].as_str().unwrap();
    let path = format!("/v1/models/{model}/export");
    let bundle = service.get(&path).await;
    let files = unzip(&bundle.body);
    tells_images_apart(&files["golden.safetensors"]);
    for format in NetworkFormat::ALL {
        is_exported(service, model, &files, format).await;
        let base = format!("/v1/models/efficientnet_lite0/export?format={format}");
        service.get(&base).await.error(422, "not_fine_tuned");
        let unknown = format!("/v1/models/ft:none/export?format={format}");
        service.get(&unknown).await.error(404, "not_found");
    }
    let unknown = service.get(&format!("{path}?format=tflite")).await;
    let message = unknown.error(422, "invalid_value");
    assert!(
        message.contains("`zip`, `torchscript` or `onnx`, not `tflite`"),
        "{message}"
    );
}

async fn is_exported(
    service: &Service,
    model: &str,
    files: &BTreeMap<String, Vec<u8>>,
    format: NetworkFormat,
) {
    let path = format!("/v1/models/{model}/export?format={format}");
    let file = service.get(&path).await;
    assert_eq!(file.status, 200, "{}", file.text());
    let header = |name: &str| file.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("content-length"), file.body.len().to_string());
    let name = format!("{}.{}", model.replace(':', "_"), format.extension());
    let attached = format!("attachment; filename=\"{name}\"");
    assert_eq!(header("content-disposition"), attached);
    let folder = service.dir.path().join("unpacked");
    is_of_the_bundle(&folder, files, (format, &file.body));

    // What was made once is kept, also for the command line.
    let again = service.dir.path().join(format.file_name());
    let said = Command::new(env!("CARGO_BIN_EXE_rehead"))
        .args(["export", "--url", &service.url, model])
        .args(["--format", format.as_str(), "-o"])
        .arg(&again)
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert_eq!(fs::read(&again).unwrap(), file.body);
}
