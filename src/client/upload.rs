//! `rehead upload`: uploads a folder or an archive, and prints the id of the file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{
    Body,
    multipart::{Form, Part},
};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::{
    api::{self, Api},
    pack::Folder,
};
use crate::{
    config::ClientArgs,
    domain::{file::UploadPurpose, words::Words as _},
    exit::Exit,
};

/// `rehead upload`
#[derive(Debug, Args)]
pub struct UploadArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Folder with a folder of images per class, which is packed while it is sent, without hidden
    /// files; or an archive, a table, a file of weights
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Use of the file: a data set, or weights of a base model, which are checked when it is
    /// registered
    #[arg(long, default_value_t = UploadPurpose::FineTune, value_parser = purpose())]
    pub purpose: UploadPurpose,
    /// Wait until the data set is validated; fails if it is refused
    #[arg(long)]
    pub wait: bool,
}

fn purpose() -> impl TypedValueParser<Value = UploadPurpose> {
    PossibleValuesParser::new(UploadPurpose::WORDS).try_map(|word| word.parse::<UploadPurpose>())
}

/// Prints the id of the file, or the file as JSON.
///
/// # Errors
/// The path cannot be read, the service refuses it, or, with `--wait`, its content.
pub async fn run(args: &UploadArgs) -> anyhow::Result<()> {
    let waits = args.wait && args.purpose == UploadPurpose::FineTune;
    let api = Api::new(&args.client);
    let mut file = upload(&api, &args.path, args.purpose).await?;
    if waits {
        file = validated(&api, &api::id_of(&file)?).await?;
    }
    if args.client.json {
        api::print_json(&file)?;
    } else {
        api::print(&api::id_of(&file)?)?;
    }
    match file["status"].as_str() {
        Some("error") => Err(Exit::Refused.error(format!(
            "{} is refused: {}",
            args.path.display(),
            file["status_details"].as_str().unwrap_or("see its report")
        ))),
        _ => Ok(()),
    }
}

/// Sends a file, or a folder as a tar. Shows progress on a terminal.
pub(super) async fn upload(
    api: &Api,
    path: &Path,
    purpose: UploadPurpose,
) -> anyhow::Result<Value> {
    let form = |part| {
        Form::new()
            .text("purpose", purpose.as_str())
            .part("file", part)
    };
    let metadata = std::fs::metadata(path);
    let metadata = metadata.with_context(|| format!("cannot read `{}`", path.display()))?;
    if !metadata.is_dir() {
        let part = file_part(path, metadata.len()).await?;
        return api.post_form("/v1/files", form(part)).await;
    }
    let listed = Folder::list(path)?;
    let (files, bytes) = listed.size();
    let bar = bar(bytes);
    bar.set_message(format!("{files} files"));
    let packing = listed.pack();
    let body = Body::wrap_stream(
        packing
            .bytes
            .inspect_ok(move |chunk| bar.inc(chunk.len() as u64)),
    );
    let part = Part::stream(body).file_name(archive_name(path));
    let sent = api.post_form("/v1/files", form(part)).await;
    match (sent, packing.end.await) {
        (Ok(file), _) => Ok(file),
        // A request that failed because its body did is no fault of the service.
        (Err(_), Ok(Err(error))) if !is_broken_pipe(&error) => Err(error),
        (Err(error), _) => Err(error),
    }
}

async fn file_part(path: &Path, bytes: u64) -> anyhow::Result<Part> {
    let failed = || format!("cannot read `{}`", path.display());
    let file = tokio::fs::File::open(path).await.with_context(failed)?;
    let bar = bar(bytes);
    let stream = ReaderStream::with_capacity(file, 256 << 10);
    let stream = stream.inspect_ok(move |chunk| bar.inc(chunk.len() as u64));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = Part::stream_with_length(Body::wrap_stream(stream), bytes);
    Ok(part.file_name(name.into_owned()))
}

/// The service closed the connection, so its answer says more.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = std::io::ErrorKind::BrokenPipe;
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == broken)
    };
    error.chain().any(is_broken)
}

/// The name of the folder with `.tar` behind it.
fn archive_name(folder: &Path) -> String {
    let absolute = folder.canonicalize().unwrap_or_default();
    let name = absolute.file_name().and_then(|name| name.to_str());
    format!("{}.tar", name.unwrap_or("data"))
}

/// The bar; hidden where standard error is no terminal.
fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = "uploading [{bar:40.cyan/blue}] {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(style);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Waits until the validation of a data set has ended.
async fn validated(api: &Api, id: &str) -> anyhow::Result<Value> {
    loop {
        let path = format!("/v1/files/{id}?wait=30&until=processed");
        let file = api.get(&path).await?;
        if file["status"] != "uploaded" {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_name_of_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("flowers");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(archive_name(&folder), "flowers.tar");
        assert_eq!(archive_name(&folder.join(".")), "flowers.tar");
        assert_eq!(archive_name(Path::new("/")), "data.tar");
    }
}
