//! A model as TorchScript. A child makes it when it is first asked for and, as a process that did not make it, checks it
//! against the bundle's golden logits; it is then kept beside the bundle that predictions use, and goes with it.

use std::{ffi::OsStr, path::Path, time::Duration};

use anyhow::Context as _;
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::{
    child::{self, Unanswered},
    domain::progress::{Failure, Verified},
    http::api::{download::attachment, error::ApiError, state::AppState},
};

/// In a fetched bundle's folder.
const FILE: &str = "model.pt";
/// Bytes of one piece of the answer.
const PIECE: usize = 256 << 10;
/// For both processes together: to trace and write, then to load and run.
const PATIENCE: Duration = Duration::from_secs(300);

/// Answers with the TorchScript of the model whose bundle lies at `prefix` in the store.
///
/// # Errors
/// It cannot be made, or is not the model; too many wait.
pub(crate) async fn send(
    state: &AppState,
    prefix: String,
    model: &str,
) -> Result<Response, ApiError> {
    let place = state.inference().place()?;
    let making = state.clone();
    // In a task of its own: who gives up waiting leaves the file to the next one.
    let file = tokio::spawn(async move {
        let _place = place;
        find_or_make(&making, &prefix).await
    });
    let file = file.await.map_err(anyhow::Error::from)??;
    let size = file.metadata().await.context("cannot read a TorchScript")?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size.len()));
    headers.insert(
        header::CONTENT_DISPOSITION,
        attachment(&format!("{model}.pt")),
    );
    Ok(response)
}

async fn find_or_make(state: &AppState, prefix: &str) -> Result<File, ApiError> {
    let inference = state.inference();
    let bundle = inference.bundle(prefix).await?;
    let path = bundle.join(FILE);
    let _one_at_a_time = inference.scripting.lock().await;
    if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
        make(inference.trainer(), &bundle, &path).await?;
    }
    // Opened here: a file that is open stays readable when its folder makes room for another.
    let file = File::open(&path).await;
    Ok(file.context("cannot read a TorchScript")?)
}

/// Makes the file, whole and checked, or not at all.
async fn make(trainer: &Path, bundle: &Path, path: &Path) -> Result<(), ApiError> {
    let staged = tempfile::Builder::new()
        .prefix(".script-")
        .tempdir_in(bundle)
        .context("cannot make a folder")?;
    let target = staged.path().join(FILE);
    let arguments = [OsStr::new("script"), bundle.as_os_str(), target.as_os_str()];
    match child::answer_of(trainer, &arguments, PATIENCE).await {
        Ok(Verified::Same { .. }) => {}
        Ok(Verified::Failed(Failure { code, message, .. })) => {
            return Err(anyhow::anyhow!("no TorchScript, `{code}`: {message}").into());
        }
        Err(unanswered) => {
            tracing::warn!("the process that makes a TorchScript gave no answer: {unanswered}");
            return Err(ApiError::Unavailable {
                code: "export_unfinished",
                message: match unanswered {
                    Unanswered::Late(_) => format!(
                        "the TorchScript was not made within {} seconds; try again",
                        PATIENCE.as_secs()
                    ),
                    _ => "the process that makes the TorchScript ended; try again".to_owned(),
                },
                retry_after_seconds: 5,
            });
        }
    }
    let moved = tokio::fs::rename(&target, path).await;
    Ok(moved.context("cannot keep a TorchScript")?)
}
