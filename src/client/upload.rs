//! `rehead upload`: uploads a folder or an archive, or has the service download a data set of the
//! hub, and prints the id of the file.

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
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::{
    api::{self, Api, given},
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
    /// files; an archive, a table, a Parquet file, a file of weights; or a data set of the hub,
    /// which the service downloads: `hf://datasets/ORG/NAME`, with `@REVISION` behind it or not
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Configuration of a data set of the hub, where it has several
    #[arg(long)]
    pub config: Option<String>,
    /// The only split of a data set of the hub to download; by default those for training,
    /// validation and test
    #[arg(long)]
    pub split: Option<String>,
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
    let part = HubPart {
        config: args.config.as_deref(),
        split: args.split.as_deref(),
    };
    let mut file = upload(&api, &args.path, args.purpose, part).await?;
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

/// The part of a hub's data set to download.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HubPart<'a> {
    config: Option<&'a str>,
    split: Option<&'a str>,
}

/// Sends a file, or a folder as a tar, and shows progress on a terminal; or has the service
/// download a data set of the hub.
pub(super) async fn upload(
    api: &Api,
    path: &Path,
    purpose: UploadPurpose,
    HubPart { config, split }: HubPart<'_>,
) -> anyhow::Result<Value> {
    if let Some((hub, revision)) = path.to_str().and_then(of_hub) {
        let purpose = purpose.as_str();
        let body = given(json!({
            "hub": hub, "revision": revision, "config": config, "split": split, "purpose": purpose,
        }));
        return api.post("/v1/files", &body).await;
    }
    if config.is_some() || split.is_some() {
        anyhow::bail!(
            "--config and --split are for data sets of the hub, such as `hf://datasets/org/pets`; `{}` is none",
            path.display()
        );
    }
    let metadata = std::fs::metadata(path);
    let metadata = metadata.with_context(|| format!("cannot read `{}`", path.display()))?;
    if !metadata.is_dir() {
        let part = file_part(path, metadata.len()).await?;
        return api.post_form("/v1/files", form(part, purpose)).await;
    }
    send_folder(api, Folder::list(path)?, archive_name(path), purpose).await
}

/// The name of a data set of the hub, and its revision, in a URL of Hugging Face's.
fn of_hub(path: &str) -> Option<(&str, Option<&str>)> {
    let name = path.strip_prefix("hf://datasets/")?;
    match name.split_once('@') {
        Some((name, revision)) => Some((name, Some(revision))),
        None => Some((name, None)),
    }
}

/// Sends files as a tar of this name.
pub(super) async fn send_folder(
    api: &Api,
    listed: Folder,
    name: String,
    purpose: UploadPurpose,
) -> anyhow::Result<Value> {
    let (files, bytes) = listed.size();
    let bar = bar(bytes);
    bar.set_message(format!("{files} files"));
    let packing = listed.pack();
    let body = Body::wrap_stream(
        packing
            .bytes
            .inspect_ok(move |chunk| bar.inc(chunk.len() as u64)),
    );
    let part = Part::stream(body).file_name(name);
    let sent = api.post_form("/v1/files", form(part, purpose)).await;
    match (sent, packing.end.await) {
        (Ok(file), _) => Ok(file),
        // A request that failed because its body did is no fault of the service.
        (Err(_), Ok(Err(error))) if !is_broken_pipe(&error) => Err(error),
        (Err(error), _) => Err(error),
    }
}

fn form(part: Part, purpose: UploadPurpose) -> Form {
    Form::new()
        .text("purpose", purpose.as_str())
        .part("file", part)
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
pub(super) async fn validated(api: &Api, id: &str) -> anyhow::Result<Value> {
    loop {
        let path = format!("/v1/files/{id}?wait=30&until=processed");
        let file = api.get(&path).await?;
        if !matches!(file["status"].as_str(), Some("downloading" | "uploaded")) {
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

    #[test]
    fn data_sets_of_the_hub_are_told_from_paths() {
        assert_eq!(of_hub("hf://datasets/org/pets"), Some(("org/pets", None)));
        let tagged = Some(("org/pets", Some("v1")));
        assert_eq!(of_hub("hf://datasets/org/pets@v1"), tagged);
        assert_eq!(of_hub("datasets/org/pets"), None);
    }
}
