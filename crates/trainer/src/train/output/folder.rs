//! Folders that others read: each appears under its name only when every byte of it is on disk.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::process::error::TrainError;

/// Writes the folder `place`, whole or not at all; one that is already there is replaced. `fill`
/// writes the files, into a folder of another name. `failed` begins the messages of errors.
///
/// # Errors
/// `Io`, those of `fill`. Nothing is left under the folder's name then but, perhaps, the whole of
/// it.
pub(super) fn write_folder<T>(
    place: &Path,
    failed: &str,
    fill: impl FnOnce(&Path) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let failed = || TrainError::io(failed);
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).map_err(failed())?;
    let mut temporary = tempfile::Builder::new();
    let temporary = temporary.prefix(".saving-").tempdir_in(parent);
    let temporary = temporary.map_err(failed())?;
    let filled = fill(temporary.path())?;
    let name = || -> io::Result<()> {
        for entry in fs::read_dir(&temporary)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&temporary)?.sync_all()?;
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::rename(temporary.keep(), place)?;
        File::open(parent)?.sync_all()
    };
    name().map_err(failed())?;
    Ok(filled)
}
