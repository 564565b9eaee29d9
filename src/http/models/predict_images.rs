//! The images of a prediction, received into files. The places of predictions are taken later: a
//! client that sends slowly holds nothing but its connection and the bytes it has sent.

use std::{
    borrow::Cow,
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use axum::extract::Request;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::{StreamExt as _, TryStreamExt as _, future::ready};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore};
use tokio_util::io::StreamReader;

use crate::{
    domain::{
        codes,
        problem::{Problem, quoted},
    },
    http::api::{
        error::{ApiError, refuse_any},
        extract::{is_json, pieces, read_json},
        identity::Identity,
        multipart,
        quotas::PredictBytes,
        state::AppState,
    },
};

/// The most images that a list keeps; `--max-predict-images` is below.
const KEPT: usize = 10_000;
/// Symbols of base64 that are decoded at once; a multiple of four.
const BLOCK: usize = 64 << 10;

/// JSON bodies that are decoded at the same time: each is in memory whole.
static DECODERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// The images of a request, as files that are deleted when this is dropped.
pub(super) struct Images {
    pub(super) paths: Vec<PathBuf>,
    _folder: TempDir,
    _bytes: PredictBytes,
}

impl Images {
    /// Receives a request's images, as a form or as JSON.
    ///
    /// # Errors
    /// The body is none of these, is too large, or arrives too slowly; there is no image.
    pub(super) async fn receive(
        state: &AppState,
        who: &Identity,
        request: Request,
    ) -> Result<Self, ApiError> {
        let folder = state.predictor.spool().await?;
        let bytes = state.quotas.predict_bytes(who);
        let paths = if is_json(request.headers()) {
            from_json(state, request, folder.path(), &bytes).await?
        } else {
            from_form(state, request, folder.path(), &bytes).await?
        };
        if paths.is_empty() {
            let message = "is required: send at least one image";
            return Err(ApiError::invalid("image", codes::MISSING_FIELD, message));
        }
        Ok(Self {
            paths,
            _folder: folder,
            _bytes: bytes,
        })
    }
}

/// Reads any number of parts named `image`, each a file.
async fn from_form(
    state: &AppState,
    request: Request,
    folder: &Path,
    bytes: &PredictBytes,
) -> Result<Vec<PathBuf>, ApiError> {
    let limits = &state.limits;
    let idle = Duration::from_secs(limits.body_seconds);
    let expected = "multipart/form-data` or `application/json";
    let mut parts = multipart::open(request, state, expected).await?;
    let mut images = Vec::new();
    while let Some(field) = multipart::next(&mut parts, idle).await? {
        let name = field.name().unwrap_or_default();
        if !matches!(name, "image" | "images" | "image[]" | "images[]" | "file") {
            let message = "unknown field; send images as `image`";
            return Err(ApiError::invalid(
                quoted(name),
                codes::UNKNOWN_FIELD,
                message,
            ));
        }
        check_count(images.len() + 1, limits.max_predict_images)?;
        let path = folder.join(images.len().to_string());
        let limit = limits.max_predict_image_bytes as u64;
        let counted = multipart::bytes(field, limit, idle).and_then(|piece| {
            let counted = bytes.count(piece.len()).map(|()| piece);
            ready(counted.map_err(multipart::refused))
        });
        let written = async {
            let mut file = tokio::fs::File::create(&path).await?;
            let counted = std::pin::pin!(counted);
            tokio::io::copy(&mut StreamReader::new(counted), &mut file).await
        };
        let written = written.await;
        written.map_err(|error| multipart::explain(error, "image"))?;
        images.push(path);
    }
    Ok(images)
}

/// Reads `{"images": ["…"]}`. The body is written to a file first, so that a slow one takes no
/// memory; few are decoded at the same time, beside the threads that serve requests.
async fn from_json(
    state: &AppState,
    request: Request,
    folder: &Path,
    bytes: &PredictBytes,
) -> Result<Vec<PathBuf>, ApiError> {
    let limits = &state.limits;
    // Enough for one image of the largest size in base64; more are sent as a form.
    let limit = limits.max_predict_image_bytes / 3 * 4 + (64 << 10);
    let body = folder.join("body");
    let failed = |error| multipart::explain(error, "body");
    let mut file = tokio::fs::File::create(&body).await.map_err(failed)?;
    let mut pieces = std::pin::pin!(pieces(request.into_body(), limit, limits.body_seconds));
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        bytes.count(piece.len())?;
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    drop(file);
    let _permit = DECODERS.acquire().await.map_err(anyhow::Error::from)?;
    let (folder, limit) = (folder.to_owned(), limits.max_predict_images);
    let decoded = tokio::task::spawn_blocking(move || decode_body(&body, &folder, limit)).await;
    decoded.map_err(anyhow::Error::from)?
}

/// Writes each image of a JSON body to a file of its own. Blocks.
fn decode_body(body: &Path, folder: &Path, limit: usize) -> Result<Vec<PathBuf>, ApiError> {
    let failed = |error| multipart::explain(error, "images");
    let text = fs::read(body).map_err(failed)?;
    fs::remove_file(body).map_err(failed)?;
    let Body { images } = read_json(&text)?;
    check_count(images.count, limit)?;
    let mut problems = Vec::new();
    let mut paths = Vec::new();
    for (index, Text(text)) in images.kept.iter().enumerate() {
        let encoded = match text.split_once(";base64,") {
            Some((mark, rest)) if mark.starts_with("data:") => rest,
            _ => text,
        };
        let path = folder.join(index.to_string());
        let file = fs::File::create(&path).map_err(failed)?;
        match decode_base64(encoded, file) {
            Ok(()) => paths.push(path),
            Err(DecodeError::Write(error)) => return Err(failed(error)),
            Err(DecodeError::NotBase64) => {
                let path = format!("images[{index}]");
                let message = "must be the base64 of an image file";
                problems.push(Problem::new(path, "invalid_base64", message));
            }
        }
    }
    refuse_any(problems)?;
    Ok(paths)
}

/// `PredictRequest`, with texts that stay where they are in the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `images`")]
struct Body<'a> {
    #[serde(borrow)]
    images: Texts<'a>,
}

/// A list of texts, of which at most `KEPT` are kept.
struct Texts<'a> {
    kept: Vec<Text<'a>>,
    count: usize,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Texts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of images in base64")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts<'de>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < KEPT {
                    match list.next_element()? {
                        Some(text) => kept.push(text),
                        None => break,
                    }
                }
                let mut count = kept.len();
                while count >= KEPT && list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Texts { kept, count })
            }
        }

        deserializer.deserialize_seq(List)
    }
}

#[derive(Debug)]
enum DecodeError {
    NotBase64,
    Write(io::Error),
}

/// Decodes base64 in lines, with or without padding, in the usual or the URL-safe alphabet: GNU's
/// `base64` breaks lines after 76 characters, and browsers' encoders leave out the padding.
fn decode_base64(text: &str, mut out: impl Write) -> Result<(), DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    let usual = |byte: u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let symbols = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let mut symbols = symbols.map(usual).peekable();
    let (mut block, mut decoded) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    loop {
        block.clear();
        block.extend(symbols.by_ref().take(BLOCK));
        let is_last = symbols.peek().is_none();
        if !is_last && block.contains(&b'=') {
            return Err(DecodeError::NotBase64);
        }
        decoded.clear();
        ENGINE
            .decode_vec(&block, &mut decoded)
            .map_err(|_| DecodeError::NotBase64)?;
        out.write_all(&decoded).map_err(DecodeError::Write)?;
        if is_last {
            return Ok(());
        }
    }
}

fn check_count(count: usize, limit: usize) -> Result<(), ApiError> {
    if count <= limit {
        return Ok(());
    }
    let message =
        format!("a request takes at most {limit} images; send the others in further requests");
    Err(ApiError::too_large("image", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode_base64(text, &mut out).ok().map(|()| out)
    }

    #[test]
    fn base64_is_read_as_programs_write_it() {
        let image = b"\xfb\xff\xfe image";
        for text in [
            "+//+IGltYWdl",
            "-__-IGltYWdl",
            "+//+\r\nIGlt\nYWdl\n",
            " +//+ IGltYWdl ",
        ] {
            assert_eq!(decoded(text).as_deref(), Some(&image[..]), "{text}");
        }
        for text in ["QQ==", "QQ", "QQ="] {
            assert_eq!(decoded(text).as_deref(), Some(&b"A"[..]), "{text}");
        }
        for text in ["Q", "Q=Q=", "a*b", "é"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn base64_of_several_blocks_is_whole() {
        for length in [BLOCK - 4, BLOCK, BLOCK + 4] {
            let text = "QUJD".repeat(length / 4);
            assert_eq!(decoded(&text), Some(b"ABC".repeat(length / 4)), "{length}");
        }
        let padded_inside = format!("{}QQ==QUJD", "QUJD".repeat(BLOCK / 4 - 1));
        assert_eq!(decoded(&padded_inside), None);
    }

    #[test]
    fn long_lists_are_counted_but_not_kept() {
        let body = |count: usize| format!(r#"{{"images":[{}"QQ"]}}"#, "\"QQ\",".repeat(count - 1));
        for count in [1, KEPT, KEPT + 1, 3 * KEPT] {
            let text = body(count);
            let read: Body<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.images.count, count);
            assert_eq!(read.images.kept.len(), count.min(KEPT));
        }
    }
}
