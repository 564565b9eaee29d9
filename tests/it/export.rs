//! An exported model is the trained one: a new process checks that before there is a model, and
//! TorchScript computes the same logits.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use rehead::domain::progress::Verified;
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
        format!("#!/bin/sh\ncase \"$1\" in verify|script)\n{prank}\nesac\nexec {real} \"$@\"\n");
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
    assert!(dir.join("died-script").exists());
}

/// The clip art begins with one image under two names; the third golden image is another.
fn tells_images_apart(golden: &[u8]) {
    let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
    let logits = golden.tensor("logits").unwrap();
    let row = logits.data().len() / logits.shape()[0];
    assert_ne!(logits.data()[..row], logits.data()[2 * row..3 * row]);
}

/// A fresh process gets the bundle's golden logits from the script alone.
pub(crate) fn is_of_the_bundle(folder: &Path, files: &BTreeMap<String, Vec<u8>>, script: &[u8]) {
    fs::create_dir(folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let path = folder.join("model.pt");
    fs::write(&path, script).unwrap();
    let checked = Command::new(trainer())
        .arg("verify")
        .arg(folder)
        .arg("--script")
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    // Before it come reports of work where the machine is slow.
    let last = said.lines().last().unwrap_or_default();
    let verified: Verified =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(matches!(verified, Verified::Same { .. }), "{verified:?}");
}

async fn exports(service: &Service, job: &Value) {
    let model = job["fine_tuned_model"].as_str().unwrap();
    let path = format!("/v1/models/{model}/export");
    let bundle = service.get(&path).await;
    let files = unzip(&bundle.body);

    let script = service.get(&format!("{path}?format=torchscript")).await;
    assert_eq!(script.status, 200, "{}", script.text());
    tells_images_apart(&files["golden.safetensors"]);
    is_of_the_bundle(&service.dir.path().join("unpacked"), &files, &script.body);

    // What was made once is kept, also for the command line.
    let again = service.dir.path().join("again.pt");
    let said = Command::new(env!("CARGO_BIN_EXE_rehead"))
        .args([
            "export",
            "--url",
            &service.url,
            model,
            "--format",
            "torchscript",
            "-o",
        ])
        .arg(&again)
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert_eq!(fs::read(&again).unwrap(), script.body);

    let base = "/v1/models/efficientnet_lite0/export?format=torchscript";
    service.get(base).await.error(422, "not_fine_tuned");
    let unknown = format!("{path}?format=onnx");
    assert!(service.get(&unknown).await.status.is_client_error());
}
