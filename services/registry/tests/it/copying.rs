//! What a copy puts where, in which order, and what it leaves alone.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use colophon_domain::{Access, Algorithm, Digest, Reason};
use colophon_registry::{BlobOutcome, CopyOptions, Progress, Session};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::{Fake, error, with},
    support::{Keys, LAYER, Told, copy, copy_with, descriptor, entry, image, index, registries},
};

/// Two registries and sessions from `a/src` at one to `a/dst` at the other.
pub async fn pair() -> (Fake, Fake, Session, Session) {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let registries = registries([source.config(), target.config()], Keys::none());
    let from = registries.session(&source.repository("a/src"), Access::Pull).unwrap();
    let to = registries.session(&target.repository("a/dst"), Access::Push).unwrap();
    (source, target, from, to)
}

fn blob(fake: &Fake, text: &str) -> serde_json::Value {
    descriptor(LAYER, &fake.add_blob("a/src", text.as_bytes()), text.len())
}

#[tokio::test]
async fn children_come_before_what_refers_to_them_and_blobs_once() {
    let (source, target, from, to) = pair().await;
    let shared = blob(&source, "shared");
    let first = image(&[blob(&source, "c1"), shared.clone(), shared.clone()]);
    let second = image(&[blob(&source, "c2"), shared]);
    let nested = index(&[entry(&second)]);
    // The same child twice, a nested index, and a blob as a build cache lists it.
    let root = index(&[entry(&first), entry(&nested), entry(&second), blob(&source, "cache")]);
    for manifest in [&first, &second, &nested, &root] {
        source.add_manifest("a/src", "v1", manifest);
    }
    let told = Arc::new(Told::default());
    let totals = colophon_registry::copy(
        &from,
        &to,
        &root.digest,
        CopyOptions::default(),
        Arc::clone(&told) as _,
        CancellationToken::new(),
    )
    .await
    .unwrap()
    .totals;
    let bytes = i64::try_from("shared".len() + 4 + "cache".len()).unwrap();
    assert_eq!((totals.blobs_copied, totals.bytes_copied, totals.bytes_total), (4, bytes, bytes));
    assert_eq!(*told.planned.lock().unwrap(), [(bytes, 4)]);
    assert_eq!(told.sent.load(std::sync::atomic::Ordering::Relaxed), bytes);
    let puts: Vec<String> = target
        .seen()
        .iter()
        .filter(|seen| seen.is("PUT", "/v2/"))
        .map(|seen| seen.path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let at = |digest: &Digest| puts.iter().position(|put| put == digest.as_str()).unwrap();
    let manifests = [&first, &second, &nested, &root].map(|manifest| at(&manifest.digest));
    assert!(manifests[0] < manifests[2] && manifests[1] < manifests[2]);
    assert_eq!((manifests[2], manifests[3], puts.len()), (6, 7, 8), "blobs first: {puts:?}");
    assert_eq!(target.manifest("a/dst", root.digest.as_str()).unwrap().1, root.bytes);
    assert_eq!(target.manifest("a/dst", "v1"), None, "tags are not touched");
    // Nothing is left to do the second time, and the source is only asked whether it is there.
    let reads = source.seen().len();
    assert_eq!(copy(&from, &to, &root.digest).await.unwrap().blobs_copied, 0);
    assert_eq!((source.seen().len(), source.seen()[reads].method.as_str()), (reads + 1, "HEAD"));
}

#[tokio::test]
async fn what_is_present_is_skipped_and_looked_at_again_on_request() {
    let (source, target, from, to) = pair().await;
    let (there, missing) = (blob(&source, "there"), blob(&source, "missing"));
    target.add_blob("a/dst", b"there");
    let child = image(&[there, missing]);
    let root = index(&[entry(&child)]);
    source.add_manifest("a/src", "v1", &child);
    source.add_manifest("a/src", "v1", &root);
    // The target has the child and has lost one of its blobs.
    target.add_manifest("a/dst", "old", &child);
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.blobs_present), (0, 0));
    let recheck = CopyOptions { recheck: true, ..CopyOptions::default() };
    let totals = copy_with(&from, &to, &root.digest, recheck).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.blobs_present), (1, 1));
    assert_eq!(target.count("PUT", "/manifests/"), 1 + 2);
}

#[tokio::test]
async fn foreign_layers_are_left_out_and_said_so() {
    let (source, target, from, to) = pair().await;
    let elsewhere = serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": Digest::sha256(b"windows"), "size": 7, "urls": ["https://example.com/base"],
    });
    let image = image(&[blob(&source, "config"), elsewhere]);
    source.add_manifest("a/src", "v1", &image);
    let totals = copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.notes.len()), (1, 1));
    assert!(totals.notes[0].contains(Digest::sha256(b"windows").as_str()));
    assert!(target.manifest("a/dst", image.digest.as_str()).is_some());
}

#[tokio::test]
async fn sha512_empty_blobs_and_the_empty_descriptor_are_copied() {
    let (source, target, from, to) = pair().await;
    let long = Digest::of(Algorithm::Sha512, b"long");
    source.add_blob_as("a/src", &long, b"long");
    let empty = source.add_blob("a/src", b"");
    let image = image(&[
        descriptor("application/vnd.oci.empty.v1+json", &source.add_blob("a/src", b"{}"), 2),
        descriptor(LAYER, &long, 4),
        descriptor(LAYER, &empty, 0),
    ]);
    source.add_manifest("a/src", "v1", &image);
    assert_eq!(copy(&from, &to, &image.digest).await.unwrap().blobs_copied, 3);
    assert_eq!(target.blob("a/dst", &long).unwrap(), "long");
    assert_eq!(target.blob("a/dst", &empty).unwrap(), "");
}

#[tokio::test]
async fn a_source_that_lost_something_is_said_to() {
    let (source, _target, from, to) = pair().await;
    let gone = descriptor(LAYER, &Digest::sha256(b"gone"), 4);
    let image = image(&[blob(&source, "config"), gone]);
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceGone);
    source.add_manifest("a/src", "v1", &image);
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceGone);
    assert!(failure.message().contains(Digest::sha256(b"gone").as_str()));
}

#[tokio::test]
async fn schema_1_below_an_index_is_refused_by_its_type() {
    let (source, _target, from, to) = pair().await;
    let body = br#"{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[]}"#;
    let old = Digest::sha256(body);
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    source.hook(move |seen| {
        let headers = [("content-type", kind)];
        seen.is("GET", old_path(body).as_str()).then(|| with(200, &headers, body.as_slice()))
    });
    let root = index(&[descriptor(kind, &old, body.len())]);
    source.add_manifest("a/src", "v1", &root);
    let failure = copy(&from, &to, &root.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::UnsupportedManifest);
    assert!(failure.message().contains("schema 1"));
}

fn old_path(body: &[u8]) -> String {
    format!("/manifests/{}", Digest::sha256(body))
}

#[tokio::test]
async fn missing_content_at_the_target_is_typed() {
    let (source, target, from, to) = pair().await;
    let image = image(&[blob(&source, "config")]);
    source.add_manifest("a/src", "v1", &image);
    target.hook(|seen| {
        let missing = || error(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
        seen.is("PUT", "/manifests/").then(missing)
    });
    let failure = copy(&from, &to, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::ContentMissing);
}

#[tokio::test]
async fn within_one_repository_nothing_is_done() {
    let fake = Fake::start().await;
    let registries = registries([fake.config()], Keys::none());
    let session = registries.session(&fake.repository("a/b"), Access::Push).unwrap();
    let totals = copy(&session, &session, &Digest::sha256(b"x")).await.unwrap();
    assert_eq!(totals.blobs_copied, 0);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn two_copies_of_one_blob_send_it_once() {
    let (source, target, from, to) = pair().await;
    let shared = blob(&source, "shared");
    let images: Vec<_> =
        (0..4).map(|number| image(&[blob(&source, &number.to_string()), shared.clone()])).collect();
    for image in &images {
        source.add_manifest("a/src", "v1", image);
    }
    let copies = images.iter().map(|image| copy(&from, &to, &image.digest));
    let totals = futures_util::future::join_all(copies).await;
    let blobs: i64 = totals.iter().map(|totals| totals.as_ref().unwrap().blobs_copied).sum();
    assert_eq!(blobs, 5);
    let uploads = target.seen().iter().filter(|seen| seen.is("PUT", "/uploads/")).count();
    assert_eq!(uploads, 5);
}

/// Asks for the cancel as soon as bytes are sent.
struct CancelOnBytes(CancellationToken);

impl Progress for CancelOnBytes {
    fn planned(&self, _: i64, _: i64) {}

    fn begun(&self, _: &Digest, _: i64) {}

    fn blob(&self, _: &Digest, outcome: BlobOutcome, _: i64) {
        panic!("{outcome:?}");
    }

    fn sent(&self, _: &Digest, _: i64) {
        self.0.cancel();
    }
}

#[tokio::test]
async fn a_cancelled_copy_stops_and_cancels_its_upload() {
    let (source, target, from, to) = pair().await;
    let image = image(&[blob(&source, &"x".repeat(3_000_000))]);
    source.add_manifest("a/src", "v1", &image);
    // Two thirds of it, and then never an end.
    source.hook(|seen| {
        let bytes = [Ok::<_, std::io::Error>(Bytes::from("x".repeat(2_000_000)))];
        let endless = stream::iter(bytes).chain(stream::pending());
        let answer = || with(200, &[("content-length", "3000000")], Body::from_stream(endless));
        seen.is("GET", "/blobs/").then(answer)
    });
    let cancel = CancellationToken::new();
    let progress = Arc::new(CancelOnBytes(cancel.clone()));
    let options = CopyOptions::default();
    let failure = colophon_registry::copy(&from, &to, &image.digest, options, progress, cancel)
        .await
        .unwrap_err();
    assert_eq!(failure.reason(), Reason::Cancelled);
    // By a task of its own, because nobody waits for it.
    while target.count("DELETE", "/uploads/") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(target.manifest("a/dst", image.digest.as_str()), None);
}
