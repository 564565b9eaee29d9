//! Packs a folder as a tar while it is sent: nothing is written to this machine's disk. The same
//! files make the same bytes, whenever and by whomever they are packed.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes that are sent at once.
const CHUNK: usize = 256 << 10;
/// Chunks that wait to be sent.
const CHUNKS: usize = 4;
/// The deepest folder in a folder.
const DEPTH: usize = 64;

/// The files of a folder, in order of their names. Hidden ones are left out.
#[derive(Debug)]
pub(super) struct Folder {
    files: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    /// The path below the folder.
    name: String,
    bytes: u64,
}

/// A tar that is being made: its bytes, and how making it ended.
pub(super) struct Packing {
    pub(super) bytes: ReceiverStream<io::Result<Bytes>>,
    pub(super) end: JoinHandle<anyhow::Result<()>>,
}

impl Folder {
    /// Lists the files below `root`. Links are followed.
    ///
    /// # Errors
    /// It cannot be read; a name is not UTF-8; there is something else than files and folders, or
    /// no file at all.
    pub(super) fn list(root: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        collect(root, "", &mut Vec::new(), &mut files)?;
        if files.is_empty() {
            bail!(
                "`{}` has no files; give a folder with a folder of images per class",
                root.display()
            );
        }
        Ok(Self { files })
    }

    /// These files of `root`.
    ///
    /// # Errors
    /// One cannot be read.
    pub(super) fn of(root: &Path, names: &[String]) -> anyhow::Result<Self> {
        let entry = |name: &String| {
            let path = root.join(name);
            let metadata = fs::metadata(&path);
            let metadata = metadata.with_context(|| format!("cannot read `{}`", path.display()))?;
            let (name, bytes) = (name.clone(), metadata.len());
            Ok(Entry { path, name, bytes })
        };
        let files = names.iter().map(entry).collect::<anyhow::Result<_>>()?;
        Ok(Self { files })
    }

    /// Number of files and their bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        let bytes = self.files.iter().map(|entry| entry.bytes).sum();
        (self.files.len(), bytes)
    }

    /// Starts to pack. Waits whenever the bytes are not taken.
    pub(super) fn pack(self) -> Packing {
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let end = tokio::task::spawn_blocking(move || {
            let packed = write(&self.files, Chunks::new(chunks.clone()));
            if let Err(error) = &packed {
                // The request must fail, or half a data set would be uploaded.
                let error = io::Error::other(format!("{error:#}"));
                let _ = chunks.blocking_send(Err(error));
            }
            packed
        });
        let bytes = ReceiverStream::new(receiver);
        Packing { bytes, end }
    }
}

/// Adds the files of `folder`. `above` has the folders around it, by device and inode.
fn collect(
    folder: &Path,
    prefix: &str,
    above: &mut Vec<(u64, u64)>,
    files: &mut Vec<Entry>,
) -> anyhow::Result<()> {
    let failed = || format!("cannot read `{}`", folder.display());
    let id = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let this = id(&fs::metadata(folder).with_context(failed)?);
    if above.contains(&this) || above.len() >= DEPTH {
        bail!(
            "`{}` leads back to a folder around it, or is more than {DEPTH} folders deep; remove the link",
            folder.display()
        );
    }
    above.push(this);
    let entries = fs::read_dir(folder).with_context(failed)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(failed)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name
            .with_context(|| format!("the name of `{}` is not UTF-8; rename it", path.display()))?;
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        let metadata =
            fs::metadata(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        if metadata.is_dir() {
            collect(&path, &format!("{name}/"), above, files)?;
        } else if metadata.is_file() {
            let bytes = metadata.len();
            files.push(Entry { path, name, bytes });
        } else {
            bail!(
                "`{}` is neither a file nor a folder; remove it",
                path.display()
            );
        }
    }
    above.pop();
    Ok(())
}

fn write(files: &[Entry], chunks: Chunks) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(chunks);
    for Entry { path, name, bytes } in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(*bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        let packed = File::open(path).and_then(|file| {
            let content = Exactly { file, left: *bytes };
            archive.append_data(&mut header, name, content)
        });
        packed.with_context(|| format!("cannot pack `{}`", path.display()))?;
    }
    archive
        .into_inner()?
        .flush()
        .context("cannot send the archive")
}

/// A file of the length that was announced.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(most);
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::other("it became shorter in the meantime"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Sends what is written, in chunks.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl Chunks {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            sender,
            chunk: Vec::with_capacity(CHUNK),
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let sent = self.sender.blocking_send(Ok(chunk.into()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    async fn packed(root: &Path) -> Vec<u8> {
        let packing = Folder::list(root).unwrap().pack();
        let chunks: Vec<Bytes> = packing.bytes.try_collect().await.unwrap();
        packing.end.await.unwrap().unwrap();
        chunks.concat()
    }

    fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[tokio::test]
    async fn a_folder_is_packed_in_order_without_hidden_files() {
        let long = format!("cats/{}.png", "é".repeat(120));
        // One byte more than a chunk, and an empty file.
        let large = vec![7; CHUNK + 1];
        let root = folder(&[
            ("dogs/b.png", &large),
            ("cats/a.png", b""),
            (&long, b"x"),
            (".git/config", b"secret"),
            ("cats/.DS_Store", b"x"),
        ]);
        let link = root.path().join("birds");
        std::os::unix::fs::symlink(root.path().join("cats"), &link).unwrap();
        let tar = packed(root.path()).await;
        let birds = long.replace("cats", "birds");
        let expected = [
            ("birds/a.png", &b""[..]),
            (&birds, b"x"),
            ("cats/a.png", b""),
            (&long, b"x"),
            ("dogs/b.png", &large),
        ];
        let expected = expected.map(|(name, content)| (name.to_owned(), content.to_vec()));
        assert_eq!(entries(&tar), expected);
        assert_eq!(packed(root.path()).await, tar);
    }

    #[test]
    fn what_cannot_be_packed_is_named() {
        let message = |root: &Path| format!("{:#}", Folder::list(root).unwrap_err());
        let empty = folder(&[]);
        assert!(message(empty.path()).contains("has no files"));
        let circle = folder(&[("a/b.png", b"x")]);
        std::os::unix::fs::symlink(circle.path(), circle.path().join("a/c")).unwrap();
        assert!(message(circle.path()).contains("leads back"));
        let special = folder(&[("a/b.png", b"x")]);
        let path = special.path().join("a/pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(message(special.path()).contains("a/pipe` is neither"));
        let dangling = folder(&[]);
        std::os::unix::fs::symlink("/nowhere", dangling.path().join("x")).unwrap();
        assert!(message(dangling.path()).contains("x`: No such file"));
        assert!(message(Path::new("/nowhere")).contains("/nowhere"));
    }

    #[tokio::test]
    async fn a_file_that_shrinks_fails_the_upload() {
        let root = folder(&[("a/b.png", b"12345")]);
        let listed = Folder::list(root.path()).unwrap();
        fs::write(root.path().join("a/b.png"), b"123").unwrap();
        let packing = listed.pack();
        let sent: io::Result<Vec<Bytes>> = packing.bytes.try_collect().await;
        let message = sent.unwrap_err().to_string();
        assert!(message.contains("a/b.png`: it became shorter"), "{message}");
        assert!(packing.end.await.unwrap().is_err());
    }
}
