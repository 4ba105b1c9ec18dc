//! What a copy reads to find out what is missing: enough not to trust an index alone, and no
//! more than there is room for.

use bytes::Bytes;
use colophon_domain::{Digest, Reason};
use colophon_registry::{CopyOptions, Manifest};

use crate::{
    copying::pair,
    fake::{Fake, Seen, error, with},
    support::{IMAGE, LAYER, copy, copy_with, descriptor, entry, image, index},
};

const LARGEST: usize = 4 << 20;

fn blob(fake: &Fake, text: &str) -> serde_json::Value {
    descriptor(LAYER, &fake.add_blob("a/src", text.as_bytes()), text.len())
}

/// An image's manifest as large as one may be.
fn padded(number: usize) -> Manifest {
    let config = descriptor("c", &Digest::sha256(number.to_string().as_bytes()), 1);
    let mut bytes = image(&[config]).bytes.to_vec();
    bytes.resize(LARGEST, b' ');
    Manifest::new(Bytes::from(bytes), Some(IMAGE)).unwrap()
}

#[tokio::test]
async fn a_child_that_the_target_lost_is_copied_again() {
    let (source, target, from, to) = pair().await;
    let images = ["c1", "c2", "c3"].map(|text| image(&[blob(&source, text)]));
    let nested = index(&[entry(&images[0]), entry(&images[1])]);
    let root = index(&[entry(&nested), entry(&images[2])]);
    for manifest in images.iter().chain([&nested, &root]) {
        source.add_manifest("a/src", "v1", manifest);
    }
    // The indexes were kept, and one of the children was not.
    for manifest in [&root, &nested, &images[0], &images[2]] {
        target.add_manifest("a/dst", "v1", manifest);
    }
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!(totals.blobs_copied, 1);
    assert_eq!(target.manifest("a/dst", images[1].digest.as_str()).unwrap().1, images[1].bytes);
    let puts = |target: &Fake| target.count("PUT", "/manifests/");
    assert_eq!(puts(&target), 3, "the child and the indexes above it");
    assert_eq!(source.count("GET", "/manifests/"), 1, "only what was missing");
    assert_eq!(copy(&from, &to, &root.digest).await.unwrap().blobs_copied, 0);
    assert_eq!(puts(&target), 3, "all is there now");
}

#[tokio::test]
async fn a_source_is_asked_even_if_the_target_has_everything() {
    let (source, target, from, to) = pair().await;
    let image = image(&[blob(&source, "config")]);
    let root = index(&[entry(&image)]);
    for manifest in [&image, &root] {
        target.add_manifest("a/dst", "v1", manifest);
        let failure = copy(&from, &to, &manifest.digest).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::SourceGone);
        source.add_manifest("a/src", "v1", manifest);
        copy(&from, &to, &manifest.digest).await.unwrap();
    }
}

#[tokio::test]
async fn an_index_that_announces_too_much_is_refused_unread() {
    let (source, _target, from, to) = pair().await;
    let children: Vec<_> =
        (0..20).map(|number: u8| descriptor(IMAGE, &Digest::sha256(&[number]), LARGEST)).collect();
    let root = index(&children);
    source.add_manifest("a/src", "v1", &root);
    let failure = copy(&from, &to, &root.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::TooLarge);
    assert_eq!(source.count("GET", "/manifests/"), 1);
}

#[tokio::test]
async fn an_index_that_announces_too_little_is_given_up_when_it_is_too_much() {
    let (source, _target, from, to) = pair().await;
    let children: Vec<_> = (0..20).map(padded).collect();
    let lies: Vec<_> = children.iter().map(|child| descriptor(IMAGE, &child.digest, 1)).collect();
    let root = index(&lies);
    for manifest in children.iter().chain([&root]) {
        source.add_manifest("a/src", "v1", manifest);
    }
    let options = CopyOptions { parallel: 2, ..CopyOptions::default() };
    let failure = copy_with(&from, &to, &root.digest, options).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::TooLarge);
    assert!(source.count("GET", "/manifests/") <= 1 + 4 + 1);
}

#[tokio::test]
async fn room_for_manifests_is_given_back() {
    let (source, target, from, to) = pair().await;
    let children: Vec<_> = (0..3).map(padded).collect();
    let root = index(&children.iter().map(entry).collect::<Vec<_>>());
    for manifest in children.iter().chain([&root]) {
        source.add_manifest("a/src", "v1", manifest);
    }
    // More, one after the other, than the process has room for at once.
    for _ in 0..6 {
        let failure = copy(&from, &to, &root.digest).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::SourceGone, "the configurations do not exist");
    }
    assert_eq!(target.count("PUT", "/"), 0);
}

#[tokio::test]
async fn an_observed_tag_may_point_to_anything() {
    let (source, _target, from, _) = pair().await;
    let body = br#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#.as_slice();
    let digest = Digest::sha256(body);
    let head = |seen: &Seen| seen.method == http::Method::HEAD;
    let what = crate::support::tag("v1");
    let said = digest.to_string();
    source.hook(move |seen| head(seen).then(|| with(200, &[("docker-content-digest", &said)], "")));
    assert_eq!(from.observe(&what).await.unwrap(), Some(digest.clone()));
    assert_eq!(source.seen().len(), 1);
    let accepted = source.seen()[0].headers.get_all("accept").iter().any(|kind| kind == "*/*");
    assert!(accepted);
    // Without the digest, or without HEAD at all, the bytes say it.
    for code in [200, 404, 405] {
        source.hook(move |seen| {
            Some(if head(seen) { with(code, &[], "") } else { with(200, &[], body) })
        });
        assert_eq!(from.observe(&what).await.unwrap(), Some(digest.clone()), "{code}");
    }
    source.hook(|_| Some(with(200, &[], "no manifest at all")));
    let other = Digest::sha256(b"no manifest at all");
    assert_eq!(from.observe(&what).await.unwrap(), Some(other));
    source.hook(|_| Some(error(404, "MANIFEST_UNKNOWN", "no")));
    assert_eq!(from.observe(&what).await.unwrap(), None);
}
