//! Callers that ask for much and read nothing.

use std::time::Duration;

use colophon_domain::ReleaseView;
use colophon_server::{ConnectionLimits, ServerSettings};
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    fake::{CI, DEV, Fake, Server, release, uuid},
    http::{answer, client, get, problem},
};

const LONG: Duration = Duration::from_secs(30);

/// A service whose releases say so much, in bytes; each caller has so many calls.
async fn talkative(bytes: usize, calls: usize, write_timeout: Duration) -> Server {
    let fake = Fake::default()
        .get(move |(_, id)| Ok(Some(ReleaseView { id, message: "x".repeat(bytes), ..release(1) })));
    let settings = ServerSettings { max_calls_per_caller: calls, ..Default::default() };
    let limits = ConnectionLimits { write_timeout, ..Default::default() };
    Server::with(fake, settings, limits).await
}

fn path() -> String {
    format!("/v1/releases/{}", uuid(1))
}

/// Asks until there is a place.
async fn place_again(server: &Server) {
    let asking = async {
        while get(server, CI, &path()).await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, asking).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_read_holds_its_callers_place() {
    let server = talkative(200_000, 2, LONG).await;
    let slow = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(1_000)
        .build()
        .unwrap();
    let call = || slow.get(server.url(&path())).bearer_auth(CI).send();
    let unread = (call().await.unwrap(), call().await.unwrap());
    assert_eq!((unread.0.status(), unread.1.status()), (StatusCode::OK, StatusCode::OK));

    let refused = get(&server, CI, &path()).await;
    problem(refused, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_CALLS").await;
    answer(get(&server, DEV, &path()).await).await;
    let read = answer(unread.0).await;
    assert_eq!(read["message"].as_str().map(str::len), Some(200_000));
    place_again(&server).await;
    drop(unread.1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped() {
    // More than the buffers of both ends of a connection hold.
    const BYTES: usize = 32 << 20;
    let server = talkative(BYTES, 1, Duration::from_millis(100)).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    let request =
        format!("GET {} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {CI}\r\n\r\n", path());
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stalled.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    place_again(&server).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LONG, stalled.read_to_end(&mut rest)).await;
    let _ended_or_reset = read.unwrap();
    assert!(rest.len() < BYTES, "all of the answer was sent");
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_not() {
    let server = talkative(32 << 20, 1, Duration::from_secs(2)).await;
    let mut response = client().get(server.url(&path())).bearer_auth(CI).send().await.unwrap();
    let mut bytes = 0;
    let begun = std::time::Instant::now();
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes += chunk.len();
        // In all longer than the limit, at no time for so long.
        if bytes < 8 << 20 && begun.elapsed() < Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(bytes > 32 << 20);
}
