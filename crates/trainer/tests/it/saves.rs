//! A process that is killed while it saves leaves the checkpoints before it, and never half a one
//! under a checkpoint's name.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};
use rehead_domain::id::JobId;
use rehead_test_support::process::eventually;
use rehead_trainer::{
    models::registry,
    train::{
        counters::Counters,
        output::checkpoint::{self, FOLDER, Identity, State},
    },
};
use tch::{Device, Kind, Tensor};

use crate::support::training::recipe;

const KILLS: usize = 200;
/// About as long as two saves take here.
const LONGEST: Duration = Duration::from_millis(12);

fn identity() -> Identity {
    Identity {
        job: JobId::new(),
        architecture: "resnet18".to_owned(),
        base_weights_sha256: "0".repeat(64),
        parents_sha256: Vec::new(),
        pack_sha256: "1".repeat(64),
        validation_pack_sha256: None,
        labels: vec!["animals".to_owned(), "food".to_owned()],
        input: registry::find("resnet18").unwrap().input.clone(),
        recipe: recipe(),
    }
}

/// Saves the steps behind `step`, one after the other, until it is killed.
fn save_for_ever(folder: &Path, identity: &Identity, tensors: &[(String, Tensor)], step: u64) -> ! {
    for step in step + 1.. {
        let counters = Counters {
            step,
            ..Counters::default()
        };
        let state = State {
            identity: identity.clone(),
            counters,
        };
        let saved = checkpoint::save(folder, &state, tensors, &BTreeMap::new(), tensors);
        if saved.is_err() {
            // Seen by the parent as another end than the one it made.
            std::process::exit(3);
        }
    }
    unreachable!("there are enough numbers: this is a bug")
}

#[expect(
    unsafe_code,
    reason = "two hundred processes that need not load libtorch again"
)]
fn start(folder: &Path, identity: &Identity, tensors: &[(String, Tensor)], step: u64) -> Pid {
    // SAFETY: the child computes nothing on other threads, touches only what this thread owns, and
    // never returns.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => save_for_ever(folder, identity, tensors, step),
    }
}

/// Every checkpoint that a resume would find: the last one, after each was checked byte for byte.
fn newest(folder: &Path, identity: &Identity) -> Option<u64> {
    let entries = fs::read_dir(folder.join(FOLDER)).ok()?;
    let mut newest = None;
    for entry in entries {
        let path = entry.unwrap().path();
        // An interrupted save leaves a folder with another name.
        let Ok(step) = path.file_name().unwrap().to_str().unwrap().parse::<u64>() else {
            continue;
        };
        let loaded = checkpoint::load(&path, identity).unwrap();
        assert_eq!(loaded.state.counters.step, step);
        newest = newest.max(Some(step));
    }
    newest
}

#[test]
fn f21_kills_while_saving_leave_only_complete_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let identity = identity();
    let tensors: Vec<(String, Tensor)> = (0..4)
        .map(|index| {
            let tensor = Tensor::ones([64, 512], (Kind::Float, Device::Cpu)) * f64::from(index);
            (format!("layer.{index}.weight"), tensor)
        })
        .collect();
    let (mut last, mut interrupted) = (0, 0);
    for _ in 0..KILLS {
        let saver = start(dir.path(), &identity, &tensors, last);
        // Not before it has begun.
        eventually(Duration::from_secs(10), "save", || {
            let parent = fs::read_dir(dir.path().join(FOLDER)).ok()?;
            (parent.count() > 0).then_some(())
        });
        std::thread::sleep(LONGEST.mul_f64(rand::random()));
        kill(saver, Signal::SIGKILL).unwrap();
        let end = waitpid(saver, None).unwrap();
        assert!(format!("{end:?}").contains("SIGKILL"), "{end:?}");
        let found = newest(dir.path(), &identity).unwrap_or(0);
        assert!(found >= last, "step {last} was lost, {found} is left");
        last = found;
        // The next attempt's folder has the newest alone.
        for entry in fs::read_dir(dir.path().join(FOLDER)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                interrupted += 1;
                fs::remove_dir_all(&path).unwrap();
            } else if !path.ends_with(last.to_string()) {
                fs::remove_dir_all(&path).unwrap();
            }
        }
    }
    println!(
        "{interrupted} of {KILLS} kills came in the middle of a save; {last} saves were whole"
    );
    assert!(interrupted > KILLS / 10, "only {interrupted}");
    assert!(last > 0);
}
