//! Files and folders of the service are closed to other users of the machine.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use crate::support::{attempts::material, process::Process, service::Service};

/// Asserts that what is in a folder has none of these permissions.
fn has_none_of(folder: &Path, permissions: u32) {
    let metadata = fs::symlink_metadata(folder).unwrap();
    let mode = metadata.mode() & 0o777;
    assert_eq!(
        mode & permissions,
        0,
        "{} has mode {mode:o}",
        folder.display()
    );
    if metadata.is_dir() {
        for entry in fs::read_dir(folder).unwrap() {
            has_none_of(&entry.unwrap().path(), permissions);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_folders_are_closed_to_other_users() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    material(&service).await;
    has_none_of(&service.objects(), 0o077);
    // Children, which are users of their own, share some files in closed folders.
    for folder in ["scratch", "worker"] {
        let folder = service.dir.path().join(folder);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o077, 0);
        has_none_of(&folder, 0o007);
    }
}

/// An existing folder is closed too: the files in it may be of an earlier version.
#[tokio::test(flavor = "multi_thread")]
async fn open_object_folder_is_closed_at_start() {
    let service = Service::start().await;
    let objects = service.objects();
    fs::set_permissions(&objects, Permissions::from_mode(0o755)).unwrap();
    let mut worker = service.worker("worker", &[]);
    worker.wait_for("worker started");
    assert_eq!(fs::metadata(objects).unwrap().mode() & 0o777, 0o700);
}

/// Runs `rehead` with these folders, which it must refuse; returns its log.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let mut all = arguments.to_vec();
    all.extend(["--database-url", "postgres://127.0.0.1:1/none"]);
    all.extend(["--database-wait-ms", "0", "--objects", "objects"]);
    let mut process = Process::rehead(arguments[0], dir, &all);
    assert!(!process.wait(Duration::from_secs(60)).success());
    process.log()
}

#[test]
fn linked_folders_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    symlink("folder", dir.path().join("link")).unwrap();
    for arguments in [
        ["work", "--work-dir", "link"],
        ["serve", "--scratch", "link"],
        ["serve", "--scratch", "link/"],
    ] {
        let log = refused(dir.path(), &arguments);
        assert!(
            log.contains("`link") && log.contains("is a symbolic link; give"),
            "{log}"
        );
    }
    let mut up = Process::rehead("up", dir.path(), &["up", "--data-dir", "link"]);
    assert!(!up.wait(Duration::from_secs(60)).success());
    assert!(
        up.log().contains("is a symbolic link; give"),
        "{}",
        up.log()
    );
}

#[test]
fn foreign_folders_are_refused_by_owner() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(4_321), None).unwrap();
    let log = refused(dir.path(), &["work", "--work-dir", "folder"]);
    assert!(
        log.contains("`folder`") && log.contains("belongs to user 4321"),
        "{log}"
    );
}

/// The default is below the user's own folder, not in one that all users share.
#[test]
fn default_work_folder_is_in_the_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    let state = format!("XDG_STATE_HOME={}", dir.path().join("state").display());
    let mut work = Process::start(
        "work",
        dir.path(),
        Path::new("/usr/bin/env"),
        &[
            &state,
            env!("CARGO_BIN_EXE_rehead"),
            "work",
            "--database-url",
            "postgres://127.0.0.1:1/none",
            "--database-wait-ms",
            "0",
            "--objects",
            "objects",
        ],
    );
    work.wait(Duration::from_secs(60));
    let made = dir.path().join("state/rehead/work");
    assert_eq!(
        fs::metadata(made).unwrap().mode() & 0o777,
        0o700,
        "{}",
        work.log()
    );
}
