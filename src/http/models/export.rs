//! A folder of objects as one zip, made while it is sent: nothing is held in memory or on disk.

use std::io::{self, BufWriter, Write};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::TryStreamExt as _;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    http::api::{download::attachment, error::ApiError},
    objects::Objects,
};

/// Bytes of one piece; a few are under way at once.
const PIECE: usize = 256 << 10;
/// From this size on an entry needs zip's 64-bit form.
const LARGE: u64 = 0xffff_0000;

/// Answers with every object under `prefix`.
///
/// # Errors
/// There is none.
pub(crate) async fn zip(
    objects: &Objects,
    prefix: &str,
    model: &str,
) -> Result<Response, ApiError> {
    let mut keys = objects.list_prefix(prefix).await?;
    if keys.is_empty() {
        return Err(anyhow::anyhow!("the model's objects at `{prefix}` are gone").into());
    }
    keys.sort();
    let (sender, receiver) = mpsc::channel(4);
    let objects = objects.clone();
    let runtime = Handle::current();
    let prefix = format!("{prefix}/");
    tokio::task::spawn_blocking(move || {
        let writer = BufWriter::with_capacity(
            PIECE,
            Pieces {
                sender: sender.clone(),
            },
        );
        if let Err(error) = write_zip(&runtime, &objects, &prefix, &keys, writer) {
            // The status is sent already; a broken body is all that can still be said.
            tracing::warn!("an export broke off: {error:#}");
            let _ = sender.blocking_send(Err(io::Error::other("the export broke off")));
        }
    });
    let mut response = Body::from_stream(ReceiverStream::new(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/zip"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        attachment(&format!("{model}.zip")),
    );
    Ok(response)
}

fn write_zip(
    runtime: &Handle,
    objects: &Objects,
    prefix: &str,
    keys: &[String],
    writer: impl Write,
) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new_stream(writer);
    for key in keys {
        let size = runtime.block_on(objects.size(key))?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(size >= LARGE)
            .unix_permissions(0o644);
        zip.start_file(key.strip_prefix(prefix).unwrap_or(key), options)?;
        let mut stream = runtime.block_on(objects.read(key, None))?;
        while let Some(chunk) = runtime.block_on(stream.try_next())? {
            zip.write_all(&chunk)?;
        }
    }
    zip.finish()?.into_inner().flush()?;
    Ok(())
}

/// Passes what is written on to the answer's body; fails when nobody reads it any more.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
