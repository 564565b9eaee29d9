//! A model as one file: its bundle's objects as a zip, written while it is sent, so that nothing is
//! held in memory or on disk; or a file of another format. All objects are compared with their row
//! before the first byte is sent.

use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
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
    db::{
        exports::{self, Export},
        models::Model,
    },
    domain::{
        export::NetworkFormat,
        id::JobId,
        object::{Bundle, Descriptor},
        problem::without_paths,
        progress::Failure,
    },
    http::api::{
        download::{attachment, whole},
        error::{ApiError, OBJECT_DAMAGED},
        state::AppState,
    },
    objects::{ObjectError, Objects},
};

/// Bytes of one piece of an answer; a few are in memory at once.
const PIECE: usize = 256 << 10;
/// Code of a model that is larger than files of the format can be.
const TOO_LARGE: &str = "export_too_large";
/// Size from which an entry needs zip's 64-bit form.
const LARGE: u64 = 0xffff_0000;

/// Responds with the file of a fine-tuned model in another format, which a worker writes on the
/// first request, and again where its object is damaged.
///
/// # Errors
/// It cannot be written, or differs from the model; too many requests wait.
pub(crate) async fn network(
    state: &AppState,
    model: &Model,
    format: NetworkFormat,
) -> Result<Response, ApiError> {
    let _permit = state.predictor.admit()?;
    let job = model.job.context("a fine-tuned model names no job")?;
    let stored = match exports::state(&state.pool, job, format).await? {
        Export::Stored(file) => match state.objects.verify(&file).await {
            Err(ObjectError::Damaged { .. }) => None,
            size => Some((file, size?)),
        },
        _ => None,
    };
    let (file, size) = match stored {
        Some(stored) => stored,
        None => {
            let file = write(state, job, &model.id, format).await?;
            let size = state.objects.verify(&file).await?;
            (file, size)
        }
    };
    let bytes = state.objects.read(&file.key, None).await?;
    let filename = format!("{}.{}", model.id, format.extension());
    Ok(whole(bytes, size, &filename))
}

/// Queues an export and waits until it ends. A client that gives up leaves it to the next one.
async fn write(
    state: &AppState,
    job: JobId,
    model: &str,
    format: NetworkFormat,
) -> Result<Descriptor, ApiError> {
    let pool = &state.pool;
    let mut changes = state.changes.subscribe();
    exports::request(pool, job, format).await?;
    let look = || exports::state(pool, job, format);
    let ended = |export: &Export| *export != Export::Pending;
    let export = changes
        .until(model, exports::TIMEOUT, &state.shutdown, look, ended)
        .await?;
    match export {
        Export::Stored(file) => Ok(file),
        Export::Failed(Failure { code, message, .. }) => Err(match code.as_str() {
            exports::UNFINISHED => unfinished(without_paths(&message)),
            "storage_full" => ApiError::storage_full(),
            OBJECT_DAMAGED => ApiError::damaged(message),
            TOO_LARGE => ApiError::invalid("format", TOO_LARGE, message),
            _ => {
                let format = format.title();
                anyhow::anyhow!("{format} export failed with `{code}`: {message}").into()
            }
        }),
        Export::NoModel | Export::None => Err(ApiError::not_found("model", model)),
        Export::Pending => Err(unfinished(format!(
            "the {} export did not end within {} seconds",
            format.title(),
            exports::TIMEOUT.as_secs()
        ))),
    }
}

fn unfinished(message: String) -> ApiError {
    ApiError::unavailable(exports::UNFINISHED, message + "; try again", 5)
}

/// Responds with every file of the bundle.
///
/// # Errors
/// An object is damaged.
pub(crate) async fn zip(
    objects: &Objects,
    bundle: &Bundle,
    model: &str,
) -> Result<Response, ApiError> {
    let mut files = Vec::new();
    for object in objects.bundle(bundle).await? {
        let size = objects.verify(&object).await?;
        files.push((object, size));
    }
    let (sender, receiver) = mpsc::channel(4);
    let objects = objects.clone();
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let writer = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = write_zip(&runtime, &objects, &files, writer) {
            // The status is sent already; only the body can still fail.
            tracing::warn!("an export ended early: {error:#}");
            let _ = sender.blocking_send(Err(io::Error::other("the export ended early")));
        }
    });
    let content_type = HeaderValue::from_static("application/zip");
    let filename = attachment(&format!("{model}.zip"));
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_DISPOSITION, filename),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

fn write_zip(
    runtime: &Handle,
    objects: &Objects,
    files: &[(Descriptor, u64)],
    writer: impl Write,
) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new_stream(writer);
    for (object, size) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(*size >= LARGE)
            .unix_permissions(0o644);
        zip.start_file(object.name(), options)?;
        let mut stream = runtime.block_on(objects.read(&object.key, None))?;
        while let Some(chunk) = runtime.block_on(stream.try_next())? {
            zip.write_all(&chunk)?;
        }
    }
    zip.finish()?.into_inner().flush()?;
    Ok(())
}

/// Writes into the answer's body; fails once the client has gone.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
