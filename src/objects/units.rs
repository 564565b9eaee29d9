//! Objects by the unit in which they are made and deleted: a folder of keys, such as one checkpoint's. Unlike a listing of
//! keys, this also sees what interrupted uploads left, which no reader ever meets.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{ObjectError, Objects, parse_key};

/// A folder of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// With its last `/`.
    pub prefix: String,
    /// Of all that is in it, half-written objects included.
    pub bytes: u64,
    /// The last change of anything in it.
    pub changed: SystemTime,
}

impl Unit {
    /// How long nothing in it has changed; nothing for a change in the future.
    pub fn age(&self) -> Duration {
        SystemTime::now()
            .duration_since(self.changed)
            .unwrap_or_default()
    }
}

impl Objects {
    /// The units `depth` names below `root`, in no order.
    ///
    /// # Errors
    /// `File`.
    pub async fn units(&self, root: &str, depth: usize) -> Result<Vec<Unit>, ObjectError> {
        parse_key(root)?;
        let (base, root) = (self.root.clone(), root.to_owned());
        let walk = move || {
            let mut units = Vec::new();
            let folder = base.join(&root);
            collect(&folder, &format!("{root}/"), depth, &mut units)
                .map_err(|source| ObjectError::of_file(&folder, source))?;
            Ok(units)
        };
        tokio::task::spawn_blocking(walk)
            .await
            .expect("walking folders does not panic: this is a bug")
    }

    /// One unit as it is now; `None` when it is gone.
    ///
    /// # Errors
    /// `File`.
    pub async fn unit(&self, prefix: &str) -> Result<Option<Unit>, ObjectError> {
        let path = parse_key(prefix.trim_end_matches('/'))?;
        let (folder, prefix) = (self.root.join(path.as_ref()), prefix.to_owned());
        let measure = move || match measure(&folder) {
            Ok((bytes, changed)) => Ok(Some(Unit {
                prefix,
                bytes,
                changed,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ObjectError::of_file(&folder, source)),
        };
        tokio::task::spawn_blocking(measure)
            .await
            .expect("measuring a folder does not panic: this is a bug")
    }
}

/// Folders that vanish meanwhile are passed over.
fn collect(folder: &Path, prefix: &str, depth: usize, units: &mut Vec<Unit>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // Names that are no keys are not ours.
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
        match measure(&entry.path()) {
            Ok((bytes, changed)) => units.push(Unit {
                prefix,
                bytes,
                changed,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes in a folder, and the last change in it.
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
    async fn units_hold_what_listings_do_not_show() {
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
