//! The trainer's executable: the loader and the library folders that it needs, and how a child
//! reaches them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use goblin::elf::Elf;

/// The part of libtorch that is loaded at run time, where it is installed.
const CUDA: &str = "libtorch_cuda.so";

#[derive(Debug)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    /// The dynamic loader; `None` for a static executable.
    pub(super) loader: Option<PathBuf>,
    /// Folders of libraries.
    pub(super) libraries: BTreeSet<PathBuf>,
    /// A path of the executable that every user can take, if the plain one is closed to others.
    pub(super) reached: Option<PathBuf>,
    /// `LD_LIBRARY_PATH` of library folders that are closed to others.
    pub(super) library_path: Option<OsString>,
    /// The handles that `reached` and `library_path` lead through.
    handles: Vec<OwnedFd>,
}

impl Program {
    /// Reads an executable. For children with users of their own, what is in folders that are
    /// closed to others is opened here, to be reached through handles.
    pub(super) fn read(executable: &Path, for_other_users: bool) -> anyhow::Result<Self> {
        let at = || format!("cannot read `{}`", executable.display());
        let executable = executable.canonicalize().with_context(at)?;
        let bytes = fs::read(&executable).with_context(at)?;
        let mut program = Self {
            loader: None,
            libraries: BTreeSet::new(),
            reached: None,
            library_path: None,
            handles: Vec::new(),
            executable,
        };
        // Another kind of file, such as a script, finds nothing that it could execute.
        if let Ok(elf) = Elf::parse(&bytes)
            && let Some(loader) = elf.interpreter
        {
            program.find_libraries(loader, &elf.runpaths)?;
        }
        if for_other_users {
            program.open_closed()?;
        }
        Ok(program)
    }

    /// The handles that a child inherits.
    pub(super) fn inherited(&self) -> Vec<RawFd> {
        self.handles.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Asks the loader for the libraries, which it does not run.
    fn find_libraries(&mut self, loader: &str, runpaths: &[&str]) -> anyhow::Result<()> {
        let loader_path = Path::new(loader).canonicalize()?;
        let list = |file: &Path| {
            let listed = Command::new(&loader_path)
                .arg("--list")
                .arg(file)
                .env_clear()
                .output();
            listed.with_context(|| format!("cannot run `{loader} --list`"))
        };
        let listed = list(&self.executable)?;
        self.libraries
            .extend(folders(&String::from_utf8_lossy(&listed.stdout)));
        let origin = self.executable.parent().unwrap_or(Path::new("/"));
        let runpaths = runpaths.iter().flat_map(|paths| paths.split(':'));
        let runpaths = runpaths
            .map(|path| PathBuf::from(path.replace("$ORIGIN", &origin.display().to_string())));
        let places: Vec<PathBuf> = self.libraries.iter().cloned().chain(runpaths).collect();
        for cuda in places.iter().map(|folder| folder.join(CUDA)) {
            if let Ok(cuda) = cuda.canonicalize() {
                self.libraries.extend(cuda.parent().map(Path::to_owned));
                let listed = list(&cuda)?;
                self.libraries
                    .extend(folders(&String::from_utf8_lossy(&listed.stdout)));
            }
        }
        self.loader = Some(loader_path);
        Ok(())
    }

    fn open_closed(&mut self) -> io::Result<()> {
        if !is_open_to_all(&self.executable)? {
            self.reached = Some(self.open(&self.executable.clone())?);
        }
        let mut paths = Vec::new();
        for folder in self.libraries.clone() {
            if !is_open_to_all(&folder)? {
                paths.push(self.open(&folder)?.into_os_string());
            }
        }
        if !paths.is_empty() {
            self.library_path = Some(paths.join(":".as_ref()));
        }
        Ok(())
    }

    /// Opens a file or a folder, and gives a path through the handle, which works in a child that
    /// inherits it.
    fn open(&mut self, path: &Path) -> io::Result<PathBuf> {
        let handle = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)?;
        let reached = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        self.handles.push(handle.into());
        Ok(reached)
    }
}

/// The folders in the loader's list of libraries.
fn folders(listed: &str) -> Vec<PathBuf> {
    let words = listed.lines().flat_map(str::split_whitespace);
    let paths = words.filter(|word| word.starts_with('/')).map(Path::new);
    let real = paths.filter_map(|path| path.canonicalize().ok());
    real.filter_map(|path| path.parent().map(Path::to_owned))
        .collect()
}

/// True when every user may pass through all folders above a path.
fn is_open_to_all(path: &Path) -> io::Result<bool> {
    for folder in path.ancestors().skip(1) {
        if fs::metadata(folder)?.mode() & 1 == 0 {
            return Ok(false);
        }
    }
    Ok(fs::metadata(path)?.mode() & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_an_executable_are_found() {
        let program = Program::read(Path::new("/proc/self/exe"), true).unwrap();
        assert!(program.loader.unwrap().exists());
        let has_libc = |folder: &PathBuf| folder.join("libc.so.6").exists();
        assert!(program.libraries.iter().any(has_libc));
    }

    #[test]
    fn folders_are_those_of_existing_files() {
        let listed =
            "\tlinux-vdso.so.1 (0x0)\n\tlibx.so => not found\n\tlibsh.so => /bin/sh (0x7f)\n";
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(folders(listed), [shell.parent().unwrap()]);
    }
}
