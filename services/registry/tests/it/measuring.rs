//! What a copy would have to move: the same as it then moves, found out without moving it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use colophon_domain::{Access, Digest, Reason, Repository};
use colophon_registry::{Need, RegistryConfig};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    copying::pair,
    fake::{Fake, status},
    support::{Keys, LAYER, copy, descriptor, entry, image, index, measure, registries},
};

fn blob(fake: &Fake, text: &str) -> serde_json::Value {
    descriptor(LAYER, &fake.add_blob("a/src", text.as_bytes()), text.len())
}

/// Nothing was written, and no blob was read.
fn only_looked(fakes: [&Fake; 2]) {
    for seen in fakes.iter().flat_map(|fake| fake.seen()) {
        let blob = seen.path.contains("/blobs/");
        let expected: &[&str] = if blob { &["HEAD"] } else { &["HEAD", "GET"] };
        assert!(expected.contains(&seen.method.as_str()), "{} {}", seen.method, seen.path);
        assert!(!seen.path.contains("/uploads/"), "{}", seen.path);
    }
}

#[tokio::test]
async fn what_is_measured_is_what_is_copied() {
    let (source, target, from, to) = pair().await;
    let shared = blob(&source, "shared");
    let first = image(&[blob(&source, "c1"), shared.clone(), shared.clone()]);
    let second = image(&[blob(&source, "c2"), shared]);
    let nested = index(&[entry(&second)]);
    let root = index(&[entry(&first), entry(&nested), entry(&second), blob(&source, "cache")]);
    for manifest in [&first, &second, &nested, &root] {
        source.add_manifest("a/src", "v1", manifest);
    }
    target.add_blob("a/dst", b"shared");
    let need = measure(&from, &to, &root.digest).await.unwrap();
    let expected = Need {
        manifests: 4,
        blobs: 3,
        bytes: 9,
        blobs_total: 4,
        bytes_total: 15,
        ..Need::default()
    };
    assert_eq!(need, expected);
    only_looked([&source, &target]);
    assert_eq!(source.count("HEAD", "/blobs/") + source.count("GET", "/blobs/"), 0);
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.bytes_copied), (need.blobs, need.bytes));
    assert_eq!(totals.bytes_total, need.bytes_total);
    let puts = i64::try_from(target.count("PUT", "/manifests/")).unwrap();
    assert_eq!(puts, need.manifests);
    assert_eq!(measure(&from, &to, &root.digest).await.unwrap(), Need::default());
}

#[tokio::test]
async fn what_is_below_a_manifest_at_the_target_does_not_count() {
    let (source, target, from, to) = pair().await;
    let there = image(&[blob(&source, "there")]);
    let missing = image(&[blob(&source, "missing")]);
    let root = index(&[entry(&there), entry(&missing)]);
    for manifest in [&there, &missing, &root] {
        source.add_manifest("a/src", "v1", manifest);
    }
    target.add_manifest("a/dst", "old", &there);
    let need = measure(&from, &to, &root.digest).await.unwrap();
    assert_eq!((need.manifests, need.blobs_total, need.bytes_total), (2, 1, 7));
    // An index that lost a child is put again after it.
    target.add_manifest("a/dst", "v1", &root);
    let need = measure(&from, &to, &root.digest).await.unwrap();
    assert_eq!((need.manifests, need.blobs, need.bytes), (2, 1, 7));
    only_looked([&source, &target]);
}

#[tokio::test]
async fn what_would_be_left_out_is_said() {
    let (source, target, from, to) = pair().await;
    let elsewhere = serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": Digest::sha256(b"windows"), "size": 7, "urls": ["https://example.com/base"],
    });
    let image = image(&[blob(&source, "config"), elsewhere]);
    source.add_manifest("a/src", "v1", &image);
    let need = measure(&from, &to, &image.digest).await.unwrap();
    assert_eq!((need.manifests, need.blobs, need.notes.len()), (1, 1, 1));
    assert!(need.notes[0].contains(Digest::sha256(b"windows").as_str()));
    only_looked([&source, &target]);
}

#[tokio::test]
async fn within_one_repository_there_is_nothing_to_do_but_to_look() {
    let fake = Fake::start().await;
    let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
    let registries = registries([fake.config()], Keys::none());
    let session = registries.session(&fake.repository("a/b"), Access::Push).unwrap();
    let failure = measure(&session, &session, &image.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceGone);
    fake.add_manifest("a/b", "v1", &image);
    assert_eq!(measure(&session, &session, &image.digest).await.unwrap(), Need::default());
    assert_eq!(fake.count("GET", "/blobs/") + fake.count("HEAD", "/blobs/"), 0);
}

#[tokio::test]
async fn within_one_registry_nothing_is_mounted() {
    let fake = Fake::start().await;
    let registries = registries([fake.config()], Keys::none());
    let from = registries.session(&fake.repository("a/src"), Access::Pull).unwrap();
    let to = registries.session(&fake.repository("a/dst"), Access::Pull).unwrap();
    let image = image(&[blob(&fake, "config")]);
    fake.add_manifest("a/src", "v1", &image);
    let need = measure(&from, &to, &image.digest).await.unwrap();
    assert_eq!((need.manifests, need.blobs, need.bytes), (1, 1, 6));
    only_looked([&fake, &fake]);
}

#[tokio::test]
async fn a_source_that_is_gone_is_said_to_be() {
    let (source, target, from, to) = pair().await;
    let child = image(&[blob(&source, "config")]);
    let root = index(&[entry(&child)]);
    let gone = async || measure(&from, &to, &root.digest).await.unwrap_err().reason();
    assert_eq!(gone().await, Reason::SourceGone);
    source.add_manifest("a/src", "v1", &root);
    assert_eq!(gone().await, Reason::SourceGone, "a child is");
    source.forget();
    for manifest in [&child, &root] {
        target.add_manifest("a/dst", "v1", manifest);
    }
    assert_eq!(gone().await, Reason::SourceGone, "even if the target has everything");
    target.hook(|_| Some(status(503)));
    assert_eq!(gone().await, Reason::RegistryUnavailable);
}

/// A registry without content that takes its time; the most requests that it had at once.
async fn slow() -> (SocketAddr, Arc<AtomicUsize>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let told = Arc::clone(&most);
    let answer = move || {
        let (open, most) = (Arc::clone(&open), Arc::clone(&told));
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            open.fetch_sub(1, Ordering::SeqCst);
            status(404)
        }
    };
    let router = Router::new().fallback(answer);
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, most, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn a_few_blobs_are_looked_for_at_a_time() {
    let source = Fake::start().await;
    let (address, most, _task) = slow().await;
    let target = RegistryConfig {
        plain_http: true,
        ..RegistryConfig::new(address.to_string().parse().unwrap())
    };
    let registries = registries([source.config(), target], Keys::none());
    let from = registries.session(&source.repository("a/src"), Access::Pull).unwrap();
    let repository = Repository::parse(&format!("{address}/a/dst")).unwrap();
    let to = registries.session(&repository, Access::Push).unwrap();
    let blobs: Vec<_> = (0..60).map(|number| blob(&source, &format!("blob {number:04}"))).collect();
    let image = image(&blobs);
    source.add_manifest("a/src", "v1", &image);
    // In a task, as callers do it.
    let task = tokio::spawn(async move { measure(&from, &to, &image.digest).await });
    let need = task.await.unwrap().unwrap();
    assert_eq!((need.blobs, need.blobs_total, need.bytes_total), (60, 60, 540));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=6).contains(&most), "{most} at once");
}
