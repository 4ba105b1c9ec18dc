//! The port itself: two protocols, limits, and a peaceful end.

use std::{sync::Arc, time::Duration};

use colophon_domain::Result;
use colophon_server::{ConnectionLimits, ServerSettings};
use reqwest::{Method, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, Semaphore},
};

use crate::{
    fake::{CI, Fake, Server, release},
    http::{answer, client, h2_client, send},
};

const LONG: Duration = Duration::from_secs(30);

async fn limited(fake: Fake, limits: ConnectionLimits) -> Server {
    Server::with(fake, ServerSettings::default(), limits).await
}

#[tokio::test]
async fn both_versions_of_http_are_served_on_one_port() {
    let server = Server::start(Fake::default()).await;
    for (client, version) in [(client(), Version::HTTP_11), (h2_client(), Version::HTTP_2)] {
        let call = client.get(server.url("/v1/releases")).bearer_auth(CI);
        let response = call.send().await.unwrap();
        assert_eq!(response.version(), version);
        answer(response).await;
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_dropped() {
    let limits =
        ConnectionLimits { header_timeout: Duration::from_millis(50), ..Default::default() };
    let server = limited(Fake::default(), limits).await;
    let partial = "GET /healthz HTTP/1.1\r\nhost: a\r\n";
    let whole = format!("{partial}\r\n");
    // The third and the fourth might become HTTP/2.
    for begin in ["", "G", "P", "PRI * HTTP/2.0\r\n", partial, &whole] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
        read.unwrap_or_else(|_| panic!("still open after {begin:?}")).unwrap();
    }
}

#[tokio::test]
async fn the_version_is_told_though_its_bytes_come_one_by_one() {
    let server = Server::start(Fake::default()).await;
    // An empty SETTINGS frame is what the server of HTTP/2 begins with too, after its length.
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice();
    let cases = [
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(), b"HTTP/1.1 200".as_slice()),
        (b"PROPFIND /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 405"),
        (http2, b"\0\0"),
    ];
    for (request, expected) in cases {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in request {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = vec![0; expected.len()];
        tokio::time::timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, expected, "{}", String::from_utf8_lossy(request));
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_clients_that_have_said_nothing() {
    let limits = ConnectionLimits { grace: Duration::from_mins(10), ..Default::default() };
    let mut server = limited(Fake::default(), limits).await;
    let mut streams = Vec::new();
    for begin in ["", "P"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    // Connections are accepted in their order, so that those are open by now.
    assert_eq!(send(&server, Method::GET, "/healthz").await.status(), StatusCode::OK);
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(LONG, server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn more_connections_than_places_wait_for_one() {
    let limits = ConnectionLimits { most: 1, ..Default::default() };
    let server = limited(Fake::default(), limits).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(request).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();

    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(request).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut byte));
    assert!(early.await.is_err(), "the second connection was served beside the first");
    drop(first);
    tokio::time::timeout(LONG, second.read_exact(&mut byte)).await.unwrap().unwrap();
}

/// An engine that says when a release was begun, and answers when it is told to.
fn gated() -> (Arc<Notify>, Arc<Semaphore>, Fake) {
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (say, wait) = (begun.clone(), gate.clone());
    let fake = Fake::default().create_later(move |_| {
        let (say, wait) = (say.clone(), wait.clone());
        Box::pin(async move {
            say.notify_one();
            let _ = wait.acquire().await;
            Result::Ok(release(1))
        })
    });
    (begun, gate, fake)
}

fn create(server: &Server) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
    let body = serde_json::json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app", "uniqueTags": ["v1"]}]
    });
    let call = client().post(server.url("/v1/releases")).bearer_auth(CI).json(&body);
    tokio::spawn(call.send())
}

#[tokio::test]
async fn a_call_that_was_begun_is_finished_before_the_end() {
    let (begun, gate, fake) = gated();
    let mut server = Server::start(fake).await;
    let call = create(&server);
    begun.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    // New connections are refused as soon as the listener is gone.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.ended.is_finished());
    gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let (begun, _gate, fake) = gated();
    let limits = ConnectionLimits { grace: Duration::from_millis(50), ..Default::default() };
    let mut server = limited(fake, limits).await;
    let call = create(&server);
    begun.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(LONG, server.ended).await.unwrap().unwrap().unwrap();
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn a_request_id_is_made_or_taken_over() {
    let server = Server::start(Fake::default()).await;
    let made = send(&server, Method::GET, "/healthz").await;
    assert_eq!(made.headers()["x-request-id"].len(), 36);
    for (given, kept) in [("run-17", true), ("a b", false), ("\"", false)] {
        let call = client().get(server.url("/healthz")).header("x-request-id", given);
        let response = call.send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"] == given, kept, "{given}");
    }
}
