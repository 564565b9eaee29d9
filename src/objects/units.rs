//! Units of objects: folders of keys that are written and deleted together, such as a checkpoint.
//! Unlike a list of keys, a unit includes what interrupted uploads left, which no reader ever sees.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::store::{At, ObjectError, Objects, parse_key};

/// A folder of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// With its last `/`.
    pub prefix: String,
    /// Size of its content in bytes, including incomplete objects.
    pub bytes: u64,
    /// Time of the last change to its content.
    pub changed: SystemTime,
}

impl Unit {
    /// Time since the last change; 0 if that is in the future.
    pub fn age(&self) -> Duration {
        SystemTime::now()
            .duration_since(self.changed)
            .unwrap_or_default()
    }
}

impl Objects {
    /// Lists the units that are `depth` names below `root`, in no order.
    ///
    /// # Errors
    /// `File`.
    pub async fn units(&self, root: &str, depth: usize) -> Result<Vec<Unit>, ObjectError> {
        parse_key(root)?;
        let (base, root) = (self.root.clone(), root.to_owned());
        let walk = move || {
            let mut units = Vec::new();
            let folder = base.join(&root);
            collect(&folder, &format!("{root}/"), depth, &mut units).at(&folder)?;
            Ok(units)
        };
        tokio::task::spawn_blocking(walk)
            .await
            .expect("walking folders does not panic: this is a bug")
    }

    /// Measures one unit; `None` if it does not exist.
    ///
    /// # Errors
    /// `File`.
    pub async fn unit(&self, prefix: &str) -> Result<Option<Unit>, ObjectError> {
        let path = parse_key(prefix.trim_end_matches('/'))?;
        let (folder, prefix) = (self.root.join(path.as_ref()), prefix.to_owned());
        tokio::task::spawn_blocking(move || unit(&folder, prefix).at(&folder))
            .await
            .expect("measuring a folder does not panic: this is a bug")
    }
}

/// Collects units. Folders that are deleted meanwhile are skipped.
fn collect(folder: &Path, prefix: &str, depth: usize, units: &mut Vec<Unit>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is not a valid key was not written by this module.
        let Some(name) = name
            .to_str()
            .filter(|name| parse_key(name).is_ok() && entry.path().is_dir())
        else {
            continue;
        };
        let prefix = format!("{prefix}{name}/");
        if depth > 1 {
            collect(&entry.path(), &prefix, depth - 1, units)?;
            continue;
        }
        units.extend(unit(&entry.path(), prefix)?);
    }
    Ok(())
}

/// Measures the unit in a folder; `None` if it does not exist.
fn unit(folder: &Path, prefix: String) -> io::Result<Option<Unit>> {
    match measure(folder) {
        Ok((bytes, changed)) => Ok(Some(Unit {
            prefix,
            bytes,
            changed,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The size of a folder's content in bytes, and the time of its last change.
fn measure(folder: &Path) -> io::Result<(u64, SystemTime)> {
    let mut changed = fs::symlink_metadata(folder)?.modified()?;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let (size, modified) = if metadata.is_dir() {
            measure(&entry.path())?
        } else {
            (metadata.len(), metadata.modified()?)
        };
        bytes += size;
        changed = changed.max(modified);
    }
    Ok((bytes, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn units_include_incomplete_objects() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().to_str().unwrap()).unwrap();
        for (path, text) in [
            ("checkpoints/a/1-1/model", "1234"),
            ("checkpoints/a/1-1/half#1", "56"),
            ("checkpoints/a/not a key/x", "x"),
            ("checkpoints/stray", "x"),
            ("files/b/content", "789"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let units = objects.units("checkpoints", 2).await.unwrap();
        let [unit] = units.as_slice() else {
            panic!("{units:?}");
        };
        assert_eq!(
            (unit.prefix.as_str(), unit.bytes),
            ("checkpoints/a/1-1/", 6)
        );
        assert!(unit.age() < Duration::from_secs(60));
        assert_eq!(
            objects.unit("checkpoints/a/1-1/").await.unwrap().as_ref(),
            Some(unit)
        );
        assert_eq!(objects.unit("checkpoints/a/2-1/").await.unwrap(), None);
        assert_eq!(objects.units("bundles", 2).await.unwrap(), []);
    }
}
