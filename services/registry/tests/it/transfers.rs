//! Blobs on their way: broken off and resumed, garbled, too long, too short, refused.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use colophon_domain::{Access, Digest, Reason, Repository, Result};
use colophon_registry::{CopyOptions, Manifest, RegistryConfig, Session};
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    copying::pair,
    fake::{Fake, Seen, status, with},
    support::{Keys, copy, copy_with, descriptor, image, registries},
};

const SIZE: usize = 3_000_000;

static CONTENT: LazyLock<Bytes> =
    LazyLock::new(|| (0..=250).cycle().take(SIZE).collect::<Vec<u8>>().into());

fn content() -> Bytes {
    CONTENT.clone()
}

/// An image of one large blob.
fn large(source: &Fake) -> (Digest, Manifest) {
    let digest = source.add_blob("a/src", &content());
    let image = image(&[descriptor("c", &digest, SIZE)]);
    source.add_manifest("a/src", "v1", &image);
    (digest, image)
}

/// An answer that announces all of `bytes` from `start` and breaks off after `length`.
fn broken(bytes: &Bytes, start: usize, length: usize, range: bool) -> Response {
    let piece = bytes.slice(start..(start + length).min(bytes.len()));
    let pieces = vec![Ok(piece), Err(std::io::Error::other("the cable was pulled"))];
    let body = Body::from_stream(stream::iter(pieces));
    let length = (bytes.len() - start).to_string();
    let place = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    if range {
        with(206, &[("content-length", &length), ("content-range", &place)], body)
    } else {
        with(200, &[("content-length", &length)], body)
    }
}

fn start_of(seen: &Seen) -> Option<usize> {
    seen.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (source, target, from, to) = pair().await;
    let (digest, image) = large(&source);
    source.hook(|seen| {
        if !seen.is("GET", "/blobs/") {
            return None;
        }
        match start_of(seen) {
            None => Some(broken(&content(), 0, 1_000_000, false)),
            Some(start) if start < 1_500_000 => Some(broken(&content(), start, 900_000, true)),
            Some(_) => None,
        }
    });
    let totals = copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.bytes_copied), (1, i64::try_from(SIZE).unwrap()));
    assert_eq!(target.blob("a/dst", &digest).unwrap(), content());
    let starts: Vec<_> =
        source.seen().iter().filter(|seen| seen.is("GET", "/blobs/")).map(start_of).collect();
    assert!(starts.len() >= 3 && starts[1..].is_sorted() && starts[1] > Some(0), "{starts:?}");
    assert_eq!(target.count("PUT", "/uploads/"), 1, "the upload never noticed");
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_again_from_the_start() {
    let (source, target, from, to) = pair().await;
    let (digest, image) = large(&source);
    source.hook(|seen| {
        seen.is("GET", "/blobs/").then(|| match start_of(seen) {
            None => broken(&content(), 0, 1_000_000, false),
            Some(_) => with(200, &[], content()),
        })
    });
    copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(target.blob("a/dst", &digest).unwrap(), content());
}

#[tokio::test]
async fn a_range_beyond_what_was_asked_is_refused() {
    let (source, _target, from, to) = pair().await;
    let (_, image) = large(&source);
    source.hook(|seen| {
        seen.is("GET", "/blobs/").then(|| match start_of(seen) {
            None => broken(&content(), 0, 1_000_000, false),
            Some(start) => broken(&content(), start + 1, SIZE, true),
        })
    });
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryProtocol);
}

/// Copies from a source that serves `served` in the blob's place; says whether any upload was
/// ever completed with all of its announced bytes.
async fn garbled(
    serve: impl Fn(usize) -> Response + Send + Sync + 'static,
) -> (Result<()>, bool, usize) {
    let (source, target, from, to) = pair().await;
    let (_, image) = large(&source);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    source.hook(move |seen| {
        seen.is("GET", "/blobs/").then(|| serve(count.fetch_add(1, Ordering::SeqCst)))
    });
    let outcome = copy(&from, &to, &image.digest).await.map(drop);
    let complete = target.seen().iter().any(|seen| {
        seen.is("PUT", "/uploads/") && seen.body.as_ref().is_some_and(|body| body.len() == SIZE)
    });
    (outcome, complete, asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_wrong_blob_is_read_twice_and_never_completed() {
    let (outcome, complete, asked) = garbled(|_| {
        let mut bytes = content().to_vec();
        bytes[SIZE / 2] ^= 1;
        with(200, &[], bytes)
    })
    .await;
    assert_eq!(outcome.unwrap_err().reason(), Reason::DigestMismatch);
    assert!(!complete, "the last bytes were held back");
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn a_blob_garbled_once_is_copied_in_the_end() {
    let (outcome, complete, asked) = garbled(|number| {
        let mut bytes = content().to_vec();
        if number == 0 {
            bytes[0] ^= 1;
        }
        with(200, &[], bytes)
    })
    .await;
    outcome.unwrap();
    assert!(complete);
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn too_long_or_too_short_is_a_mismatch() {
    for announced in [true, false] {
        for size in [SIZE + 1, SIZE - 1] {
            let (outcome, complete, _) = garbled(move |_| {
                let bytes = Bytes::from(content().repeat(2)).slice(..size);
                if announced {
                    with(200, &[], bytes)
                } else {
                    let once = stream::iter([Ok::<_, std::io::Error>(bytes)]);
                    with(200, &[], Body::from_stream(once))
                }
            })
            .await;
            let reason = outcome.unwrap_err().reason();
            // Without a length a short answer looks like one that broke off.
            let broke_off = !announced && size < SIZE && reason == Reason::RegistryUnavailable;
            assert!(reason == Reason::DigestMismatch || broke_off, "{announced} {size} {reason}");
            assert!(!complete);
        }
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_cancelled_and_tried_again() {
    let (source, target, from, to) = pair().await;
    let (digest, image) = large(&source);
    let asked = AtomicUsize::new(0);
    target.hook(move |seen| {
        (seen.is("PUT", "/uploads/") && asked.fetch_add(1, Ordering::SeqCst) == 0)
            .then(|| status(500))
    });
    copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(target.blob("a/dst", &digest).unwrap(), content());
    assert_eq!(target.count("POST", "/uploads/"), 2);
    // The DELETE is sent beside the second attempt, by a task of its own.
    while target.count("DELETE", "/uploads/") == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn another_digest_after_the_upload_is_a_mismatch() {
    let (source, target, from, to) = pair().await;
    let (_, image) = large(&source);
    target.hook(|seen| {
        let other = Digest::sha256(b"other").to_string();
        seen.is("PUT", "/uploads/").then(|| with(201, &[("docker-content-digest", &other)], ""))
    });
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::DigestMismatch);
}

/// Sessions from `a/src` to `a/dst`.
fn between(source: RegistryConfig, target: RegistryConfig) -> (Session, Session) {
    let at = |config: &RegistryConfig, name: &str| {
        Repository::parse(&format!("{}/{name}", config.host)).unwrap()
    };
    let (src, dst) = (at(&source, "a/src"), at(&target, "a/dst"));
    let registries = registries([source, target], Keys::none());
    let session = |repository, access| registries.session(&repository, access).unwrap();
    (session(src, Access::Pull), session(dst, Access::Push))
}

#[tokio::test]
async fn a_download_that_stands_still_is_resumed() {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let quick = RegistryConfig { idle_timeout: Duration::from_millis(200), ..source.config() };
    let (from, to) = between(quick, target.config());
    let (digest, image) = large(&source);
    source.hook(|seen| {
        let stalls = seen.is("GET", "/blobs/") && start_of(seen).is_none();
        stalls.then(|| {
            let some = stream::iter([Ok::<_, std::io::Error>(content().slice(..1_000_000))]);
            let body = Body::from_stream(some.chain(stream::pending()));
            with(200, &[("content-length", &SIZE.to_string())], body)
        })
    });
    copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(target.blob("a/dst", &digest).unwrap(), content());
    assert_eq!(target.count("PUT", "/uploads/"), 1, "the slow source is not the target's fault");
}

/// A registry that begins uploads and then either reads nothing more or never answers.
async fn stuck(reads: bool) -> RegistryConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_stuck(stream, reads));
        }
    });
    let host = address.to_string().parse().unwrap();
    RegistryConfig { plain_http: true, ..RegistryConfig::new(host) }
}

async fn serve_stuck(mut stream: TcpStream, reads: bool) {
    let mut buffer = vec![0; 16384];
    while let Ok(length) = stream.read(&mut buffer).await {
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let answer = match request.split(' ').next() {
            Some("HEAD") => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            Some("POST") => "HTTP/1.1 202 Accepted\r\nlocation: /u\r\ncontent-length: 0\r\n\r\n",
            Some("PUT") if !reads => std::future::pending().await,
            _ if length == 0 => return,
            _ => continue,
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    for reads in [true, false] {
        let source = Fake::start().await;
        // More than the sockets on the way can hold.
        let bytes = vec![7; 32 << 20];
        let digest = source.add_blob("a/src", &bytes);
        let image = image(&[descriptor("c", &digest, bytes.len())]);
        source.add_manifest("a/src", "v1", &image);
        let mut target = stuck(reads).await;
        let patience = if reads { &mut target.commit_timeout } else { &mut target.idle_timeout };
        *patience = Duration::from_millis(200);
        let (from, to) = between(source.config(), target);
        let failure = copy(&from, &to, &image.digest).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryUnavailable);
        let expected = if reads { "after the last byte" } else { "takes no more bytes" };
        assert!(failure.message().contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn a_source_that_drips_is_given_up() {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let quick = RegistryConfig { idle_timeout: Duration::from_millis(200), ..source.config() };
    let (from, to) = between(quick, target.config());
    let (_, image) = large(&source);
    source.hook(|seen| {
        seen.is("GET", "/blobs/").then(|| {
            let start = start_of(seen).unwrap_or_default();
            let drops = stream::unfold(start, |at| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let end = (at + 100).min(SIZE);
                Some((Ok::<_, std::io::Error>(content().slice(at..end)), end))
            });
            let place = format!("bytes {start}-{}/{SIZE}", SIZE - 1);
            with(206, &[("content-range", &place)], Body::from_stream(drops))
        })
    });
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.retry_class(), colophon_domain::Retry::Backoff);
    assert!(failure.message().contains("too few bytes"), "{failure}");
}

#[tokio::test]
async fn a_registry_that_stands_still_leaves_the_others_their_places() {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let narrow = RegistryConfig { max_connections: Some(3), ..stuck(false).await };
    let to = [narrow.host.clone(), target.host()];
    let registries = registries([source.config(), narrow, target.config()], Keys::none());
    let from = registries.session(&source.repository("a/src"), Access::Pull).unwrap();
    let [stuck, to] = to.map(|host| {
        let repository = Repository::parse(&format!("{host}/a/dst")).unwrap();
        registries.session(&repository, Access::Push).unwrap()
    });
    // More blobs than the process moves at a time.
    let blobs: Vec<_> =
        (0..24_u8).map(|number| descriptor("l", &source.add_blob("a/src", &[number]), 1)).collect();
    let image = image(&blobs);
    source.add_manifest("a/src", "v1", &image);
    let options = CopyOptions { parallel: 24, ..CopyOptions::default() };
    let waiting = copy_with(&from, &stuck, &image.digest, options);
    let goes_on = async {
        // One of them has its place and moves, the others wait for theirs.
        while source.count("GET", "/blobs/") == 0 {
            tokio::task::yield_now().await;
        }
        copy(&from, &to, &image.digest).await
    };
    let totals = tokio::select! {
        stuck = waiting => panic!("{stuck:?}"),
        totals = tokio::time::timeout(Duration::from_secs(30), goes_on) => totals,
    };
    assert_eq!(totals.unwrap().unwrap().blobs_copied, 24);
}
