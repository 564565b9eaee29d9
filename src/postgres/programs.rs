//! Finds the programs of Postgres: in the given folder, in Debian's, in that of `make setup`, or in
//! `PATH`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::unistd::User;

use super::home::{REACHABLE, can_enter, short_hash};
use crate::config;

/// Finds a folder with `postgres` and `initdb`: the given one, or else the first whose major
/// version is that of the data, or any if there is no data yet.
///
/// # Errors
/// No folder fits; the message lists those that were found.
pub(super) fn find(
    given: Option<&Path>,
    data: &Path,
    user: Option<&User>,
) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(data.join("PG_VERSION")).ok();
    let wanted = wanted.as_deref().map(str::trim);
    let candidates = match given {
        Some(folder) => vec![folder.to_owned()],
        None => usual(),
    };
    let mut found = Vec::new();
    for folder in candidates {
        let Some(major) = major(&folder) else {
            continue;
        };
        if wanted.is_none_or(|wanted| wanted == major) {
            return for_user(&folder, user);
        }
        found.push(format!("{major} in {}", folder.display()));
    }
    match (wanted, given, found.is_empty()) {
        (Some(wanted), _, false) => bail!(
            "the data in `{}` needs postgres {wanted}, but this machine has only {}; install postgres {wanted}, \
             or choose another data folder",
            data.display(),
            found.join(", ")
        ),
        (_, Some(given), _) => bail!(
            "`{}` has no `postgres` and `initdb` that run; give the `bin` folder of an installation",
            given.display()
        ),
        _ => bail!(
            "cannot find postgres: run `make setup` or `apt-get install postgresql`, or give its folder with \
             --pg-bin, or an existing server with --database-url"
        ),
    }
}

/// Debian's folders, newest first; `.deps` beside or above this executable; the folders of `PATH`.
fn usual() -> Vec<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    debian.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut folders: Vec<PathBuf> = debian.into_iter().map(|(_, folder)| folder).collect();
    if let Ok(executable) = std::env::current_exe() {
        folders.extend(
            executable
                .ancestors()
                .skip(1)
                .take(5)
                .map(|folder| folder.join(".deps/postgres/bin")),
        );
    }
    folders.extend(config::search_path());
    folders
}

/// The major version of the programs in a folder; `None` when they are missing or do not run.
fn major(folder: &Path) -> Option<String> {
    if !folder.join("initdb").exists() {
        return None;
    }
    let output = Command::new(folder.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}

/// Returns the folder, or a copy of the whole installation that the server's user can reach.
fn for_user(folder: &Path, user: Option<&User>) -> anyhow::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    let Some(user) = user else { return Ok(folder) };
    if can_enter(&folder, user) {
        return Ok(folder);
    }
    let (Some(installation), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Ok(folder);
    };
    let copy = Path::new(REACHABLE).join(format!("postgres-{}", short_hash(installation)));
    if !copy.exists() {
        let unfinished = copy.with_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        copy_folder(installation, &unfinished).with_context(|| {
            format!(
                "cannot copy `{}` to `{}`",
                installation.display(),
                unfinished.display()
            )
        })?;
        fs::rename(&unfinished, &copy)?;
        tracing::info!(
            "copied the postgres programs to `{}`: user `{}` cannot reach `{}`",
            copy.display(),
            user.name,
            installation.display()
        );
    }
    Ok(copy.join(name))
}

/// Copies files with their modes, and links as links.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
