//! Forms, read part by part as the service's handlers do: parts whose bytes are those of the body,
//! or an error.

#![no_main]

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest as _, Multipart, Request},
};
use futures_util::stream;
use libfuzzer_sys::fuzz_target;
use rehead_fuzz::within;
use tokio::runtime::{Builder, Runtime};

/// Bytes of a piece in which a body arrives: boundaries are to be cut, too.
const PIECES: [usize; 3] = [1, 7, 4_096];

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

fuzz_target!(|bytes: &[u8]| {
    let memory = (1 << 20) + 200 * bytes.len();
    let read = |piece| {
        within(memory, || {
            RUNTIME.with(|runtime| runtime.block_on(parts(bytes, piece)))
        })
    };
    let found = PIECES.map(read);
    assert!(found.iter().all(|parts| *parts == found[0]), "{found:?}");
    let total: usize = found[0].iter().map(|(_, content)| content.len()).sum();
    assert!(total <= bytes.len());
});

/// Names and bytes of the parts, up to the first that is broken.
async fn parts(bytes: &[u8], piece: usize) -> Vec<(Option<String>, Vec<u8>)> {
    let pieces = bytes
        .chunks(piece)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let body = Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()));
    let request = Request::post("/")
        .header("content-type", "multipart/form-data; boundary=XX")
        .body(body);
    let request = request.expect("a request");
    let Ok(mut form) = Multipart::from_request(request, &()).await else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    while let Ok(Some(mut field)) = form.next_field().await {
        let name = field.name().map(str::to_owned);
        let _file_name = field.file_name().map(str::to_owned);
        let mut content = Vec::new();
        loop {
            match field.chunk().await {
                Ok(Some(chunk)) => content.extend_from_slice(&chunk),
                Ok(None) => break,
                // How much of a broken part arrives depends on the pieces.
                Err(_) => return parts,
            }
        }
        parts.push((name, content));
    }
    parts
}
