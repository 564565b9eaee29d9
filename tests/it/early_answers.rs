//! Answers that are there before the request's body: the client sees them, and is told that the
//! connection ends.

use crate::support::service::Service;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Sends the head of a request to `/v1/files` whose type is refused at once.
async fn begin(service: &Service, length: usize, header: &str) -> TcpStream {
    let address = service.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\n{header}content-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Reads an answer with its body.
async fn answer(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut piece = [0; 4_096];
        let read = socket.read(&mut piece).await.unwrap();
        assert!(read > 0, "the connection ended after: {text}");
        text += &String::from_utf8_lossy(&piece[..read]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse::<usize>().unwrap() {
            return text;
        }
    }
}

#[tokio::test]
async fn a_client_that_still_sends_sees_the_early_answer() {
    let service = Service::start().await;
    let length = 4 << 20;
    let mut socket = begin(&service, length, "").await;
    let early = answer(&mut socket).await;
    assert!(early.starts_with("HTTP/1.1 415 "), "{early}");
    assert!(early.contains("connection: close\r\n"), "{early}");
    for _ in 0..length / 65_536 {
        // A closed socket would break the pipe.
        socket.write_all(&[1; 65_536]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_client_that_does_not_end_is_cut_off() {
    let service = Service::start().await;
    let length: usize = 1 << 30;
    let mut socket = begin(&service, length, "").await;
    answer(&mut socket).await;
    for _ in 0..length / 65_536 {
        if socket.write_all(&[1; 65_536]).await.is_err() {
            return;
        }
    }
    panic!("a gibibyte was taken after the answer");
}

#[tokio::test]
async fn a_body_that_waits_for_continue_is_not_asked_for() {
    let service = Service::start().await;
    let mut socket = begin(&service, 4 << 20, "expect: 100-continue\r\n").await;
    let early = answer(&mut socket).await;
    assert!(early.starts_with("HTTP/1.1 415 "), "{early}");
    assert!(early.contains("connection: close\r\n"), "{early}");
}

#[tokio::test]
async fn a_small_refused_body_keeps_the_connection() {
    let service = Service::start().await;
    let mut socket = begin(&service, 10, "").await;
    socket.write_all(&[1; 10]).await.unwrap();
    let refused = answer(&mut socket).await;
    assert!(refused.starts_with("HTTP/1.1 415 "), "{refused}");
    assert!(!refused.contains("connection: close"), "{refused}");
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let second = answer(&mut socket).await;
    assert!(second.starts_with("HTTP/1.1 200 "), "{second}");
}
