//! Which image of several, and which platform.

use colophon_local::{LocalErrorKind, Options};
use serde_json::{Value, json};

use crate::{
    fixture::{Files, digest, named},
    support::{choice, opened, whole},
};

/// Three images, two of which have several names.
fn several() -> (Vec<u8>, Vec<Value>) {
    let mut files = Files::default();
    let images: Vec<Value> =
        [&b"one"[..], b"two", b"three"].map(|layer| files.image("linux/amd64", &[layer])).into();
    let mut engines = images[2].clone();
    engines["annotations"] = json!({
        "io.containerd.image.name": "docker.io/library/tool:9",
        "org.opencontainers.image.ref.name": "9",
    });
    let roots =
        [named(&images[0], "app:1"), named(&images[0], "app:2"), named(&images[1], "v7"), engines];
    (files.layout(&roots).tar().end(), images)
}

#[tokio::test]
async fn one_of_several_is_chosen_by_name_tag_or_digest() {
    let (tar, images) = several();
    let config = opened(&tar, &choice(Some("v7"), None)).await.unwrap().image_id.unwrap();
    let root = digest(&images[0]);
    for (name, which) in [
        ("app:1", 0),
        ("docker.io/library/app:2", 0),
        ("v7", 1),
        ("tool:9", 2),
        ("9", 2),
        ("docker.io/library/tool:9", 2),
        (config.as_str(), 1),
        (root.as_str(), 0),
    ] {
        let image = opened(&tar, &choice(Some(name), None)).await.unwrap();
        assert_eq!(image.root, digest(&images[which]), "{name}");
    }
    let image = opened(&tar, &choice(Some("1"), None)).await.unwrap();
    assert_eq!(image.names, ["app:1", "app:2"]);
    for (name, kind) in [
        (None, LocalErrorKind::Ambiguous),
        (Some("app"), LocalErrorKind::NotFound),
        (Some("sha256:1"), LocalErrorKind::NotFound),
    ] {
        let error = opened(&tar, &choice(name, None)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        for there in ["app:1", "app:2", "v7", "tool:9"] {
            assert!(error.what().contains(there), "{error}");
        }
    }
}

/// An index over platforms and an attestation of the first.
fn platforms(platforms: &[&str]) -> (Files, Vec<Value>, Value) {
    let mut files = Files::default();
    let mut children: Vec<Value> = platforms
        .iter()
        .zip(0u8..)
        .map(|(platform, number)| files.image(platform, &[&[number], b"shared"]))
        .collect();
    let mut attestation = files.image("unknown/unknown", &[b"in-toto"]);
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": children[0]["digest"],
    });
    children.push(attestation);
    let root = files.index(&children);
    (files, children, root)
}

#[tokio::test]
async fn an_index_is_whole_unless_a_platform_is_wanted() {
    let (files, children, root) =
        platforms(&["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7"]);
    let tar = files.layout(&[named(&root, "it")]).tar().end();
    let image = opened(&tar, &Options::default()).await.unwrap();
    assert_eq!((&image.root, image.manifests.len()), (&digest(&root), 6));
    assert_eq!(image.image_id, Some(digest(&root)));
    for (wanted, which) in [("linux/amd64", 0), ("linux/arm64", 1), ("linux/arm/v7", 3)] {
        let (image, _file) =
            crate::support::opened_from(&tar, &choice(None, Some(wanted))).await.unwrap();
        assert_eq!(image.root, digest(&children[which]), "{wanted}");
        assert_eq!(whole(&image).await.blobs.len(), 3);
        assert_ne!(image.image_id, Some(image.root.clone()), "the configuration's");
    }
    for (wanted, kind) in [
        ("linux/arm", LocalErrorKind::Ambiguous),
        ("linux/s390x", LocalErrorKind::NotFound),
        ("windows/amd64", LocalErrorKind::NotFound),
    ] {
        let error = opened(&tar, &choice(None, Some(wanted))).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.what().contains("linux/arm/v6") && !error.what().contains("unknown"));
        assert!(error.remedy_text().unwrap().contains("--platform"));
    }
}

#[tokio::test]
async fn one_without_a_variant_is_meant_before_those_with_one() {
    let (files, children, root) = platforms(&["linux/arm/v7", "linux/arm"]);
    let tar = files.layout(&[root]).tar().end();
    let image = opened(&tar, &choice(None, Some("linux/arm"))).await.unwrap();
    assert_eq!(image.root, digest(&children[1]));
}

#[tokio::test]
async fn an_image_alone_must_be_for_the_platform_that_is_wanted() {
    let mut files = Files::default();
    let amd = files.image("linux/amd64", &[b"amd"]);
    let arm = files.image("linux/arm64", &[b"arm"]);
    let tar = files.clone().layout(std::slice::from_ref(&amd)).tar().end();
    assert!(opened(&tar, &choice(None, Some("linux/amd64"))).await.is_ok());
    let error = opened(&tar, &choice(None, Some("linux/arm64"))).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::NotFound);
    assert!(error.what().contains("is for linux/amd64, not for linux/arm64"), "{error}");
    // Where the layout lists them side by side, the platform tells them apart.
    let tar = files.layout(&[amd, arm.clone()]).tar().end();
    let image = opened(&tar, &choice(None, Some("linux/arm64"))).await.unwrap();
    assert_eq!(image.root, digest(&arm));
    assert!(opened(&tar, &Options::default()).await.is_err());
}

#[tokio::test]
async fn of_an_index_that_is_not_all_there_the_only_platform_is_taken() {
    let (files, children, root) = platforms(&["linux/amd64", "linux/arm64", "linux/s390x"]);
    let layout = files.layout(&[named(&root, "it")]);
    // An engine that pulled one platform has neither the others nor the attestation.
    let one = layout.clone().without(&children[1]).without(&children[2]).without(&children[3]);
    let image = opened(&one.tar().end(), &Options::default()).await.unwrap();
    assert_eq!((&image.root, image.digest_is_new), (&digest(&children[0]), false));
    assert!(image.notes[0].contains("only linux/amd64 of the index"), "{:?}", image.notes);
    assert!(image.notes[0].contains(root["digest"].as_str().unwrap()));
    // A manifest without its layers is not there, either.
    let two = layout.clone().without(&children[2]);
    let error = opened(&two.tar().end(), &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Ambiguous);
    assert!(error.what().contains("has linux/amd64, linux/arm64 of the index"), "{error}");
    assert!(error.remedy_text().unwrap().contains("--platform"));
    let image = opened(&two.tar().end(), &choice(None, Some("linux/arm64"))).await.unwrap();
    assert_eq!(image.root, digest(&children[1]));
    let error = opened(&two.tar().end(), &choice(None, Some("linux/s390x"))).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Damaged, "{error}");
    let none = one.without(&children[0]);
    let error = opened(&none.tar().end(), &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Damaged);
    assert!(error.what().contains("is missing"), "{error}");
}

#[tokio::test]
async fn foreign_layers_are_not_sent_and_build_caches_are() {
    let mut files = Files::default();
    let image = files.image("windows/amd64", &[b"own"]);
    let text = files.0[&crate::fixture::path(&digest(&image))].clone();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    let foreign = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": colophon_domain::Digest::sha256(b"not here"), "size": 8,
        "urls": ["https://mcr.example/layer"],
    });
    manifest["layers"].as_array_mut().unwrap().insert(0, foreign);
    let manifest = files.document(crate::fixture::MANIFEST, &manifest);
    let cache = files.blob("application/vnd.buildkit.cacheconfig.v0", b"{}");
    let root = files.index(&[manifest, cache.clone()]);
    let image = opened(&files.layout(&[root]).tar().end(), &Options::default()).await.unwrap();
    assert!(image.notes[0].contains("may not be distributed"), "{:?}", image.notes);
    let sent: Vec<_> = image.blobs.iter().map(|blob| blob.digest.clone()).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.contains(&digest(&cache)));
}
