//! A part of an index: which entries stay, which bytes it has, and how it is copied.

use colophon_domain::{Digest, Platform, Reason, Selection};
use colophon_registry::{CopyOptions, Manifest, Session, part};
use serde_json::{Value, json};

use crate::{
    copying::pair,
    fake::Fake,
    support::{IMAGE, LAYER, copied, descriptor, entry, image, index, manifest},
};

fn blob(fake: &Fake, text: &str) -> Value {
    descriptor(LAYER, &fake.add_blob("a/src", text.as_bytes()), text.len())
}

/// An image for a platform, as its configuration says.
fn built(fake: &Fake, os: &str, architecture: &str, more: &str) -> Manifest {
    let config = json!({"os": os, "architecture": architecture, "more": more}).to_string();
    let image = image(&[blob(fake, &config), blob(fake, more)]);
    fake.add_manifest("a/src", "v1", &image);
    image
}

fn on(manifest: &Manifest, os: &str, architecture: &str, variant: Option<&str>) -> Value {
    let mut entry = entry(manifest);
    entry["platform"] = json!({"os": os, "architecture": architecture});
    if let Some(variant) = variant {
        entry["platform"]["variant"] = variant.into();
    }
    entry
}

/// What buildkit puts beside an image.
fn attestation(fake: &Fake, about: &Manifest) -> Value {
    let made = built(fake, "unknown", "unknown", &format!("about {}", about.digest));
    let mut entry = on(&made, "unknown", "unknown", None);
    entry["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": about.digest,
    });
    entry
}

fn asked(texts: &[&str]) -> Vec<Platform> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Platform::parse_all(&texts).unwrap()
}

/// An index as buildkit makes it.
struct Built {
    images: [Manifest; 3],
    entries: Vec<Value>,
    root: Manifest,
}

fn published(fake: &Fake) -> Built {
    let images = [("amd64", "1"), ("arm64", "2"), ("arm", "3")]
        .map(|(architecture, more)| built(fake, "linux", architecture, more));
    let mut entries = vec![
        on(&images[0], "linux", "amd64", None),
        on(&images[1], "linux", "arm64", Some("v8")),
        on(&images[2], "linux", "arm", Some("v7")),
    ];
    entries.extend(images.iter().map(|image| attestation(fake, image)));
    let root = manifest(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries, "annotations": {"made": "by buildkit"},
    }));
    fake.add_manifest("a/src", "v1", &root);
    Built { images, entries, root }
}

async fn of(from: &Session, root: &Manifest, platforms: &[&str]) -> Option<Manifest> {
    part(from, &root.digest, &asked(platforms)).await.unwrap()
}

#[tokio::test]
async fn what_is_kept_is_as_it_was_and_attestations_go_with_their_platform() {
    let (source, _target, from, _) = pair().await;
    let Built { entries, root, .. } = published(&source);
    let made = of(&from, &root, &["linux/arm64", "linux/arm/v7"]).await.unwrap();
    let body: Value = serde_json::from_slice(&made.bytes).unwrap();
    let kept = [1, 2, 4, 5].map(|at: usize| entries[at].clone());
    assert_eq!(body["manifests"].as_array().unwrap(), &kept);
    assert_eq!(body["annotations"]["made"], "by buildkit");
    assert_eq!(made.media_type, root.media_type);
    assert_ne!(made.digest, root.digest);
    let again = of(&from, &root, &["linux/arm/v7", "linux/arm64/v8"]).await.unwrap();
    assert_eq!(again, made, "the same wish gives the same digest");
    // One that keeps everything changes nothing.
    let all = ["linux/amd64", "linux/arm64", "linux/arm"];
    assert_eq!(of(&from, &root, &all).await, None);
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_refused_with_those_that_are() {
    let (source, _target, from, _) = pair().await;
    let Built { images, root, .. } = published(&source);
    let refused = async |root: &Manifest, platforms: &[&str]| {
        let failure = part(&from, &root.digest, &asked(platforms)).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::InvalidArgument, "{failure}");
        assert_eq!(failure.field_name(), Some("platforms"));
        failure.message().to_owned()
    };
    let said = refused(&root, &["linux/amd64", "linux/s390x"]).await;
    assert!(said.contains("linux/s390x is not in"), "{said}");
    assert!(said.ends_with("linux/amd64, linux/arm/v7, linux/arm64"), "{said}");
    assert!(refused(&root, &["linux/arm/v6"]).await.contains("linux/arm/v6"));
    // A plain manifest is for one platform, as its configuration says.
    assert_eq!(of(&from, &images[0], &["linux/amd64"]).await, None);
    assert!(refused(&images[0], &["linux/arm64"]).await.ends_with("it has linux/amd64"));
    assert!(refused(&images[0], &["linux/amd64", "linux/arm64"]).await.contains("linux/arm64"));
    let other = image(&[blob(&source, "no json")]);
    source.add_manifest("a/src", "v2", &other);
    assert!(refused(&other, &["linux/amd64"]).await.ends_with("it has no platform"));
    let gone = part(&from, &Digest::sha256(b"gone"), &asked(&["linux/amd64"])).await;
    assert_eq!(gone.unwrap_err().reason(), Reason::SourceNotFound);
}

#[tokio::test]
async fn an_index_that_names_no_platforms_is_asked_through_its_images() {
    let (source, _target, from, _) = pair().await;
    let Built { images, .. } = published(&source);
    let root = index(&[entry(&images[0]), entry(&images[1])]);
    source.add_manifest("a/src", "v1", &root);
    let made = of(&from, &root, &["linux/arm64"]).await.unwrap();
    let body: Value = serde_json::from_slice(&made.bytes).unwrap();
    assert_eq!(body["manifests"], json!([entry(&images[1])]));
    // Whoever says nothing a hundred times is not asked a hundred times.
    let many: Vec<Value> =
        (0..65).map(|n: u8| descriptor(IMAGE, &Digest::sha256(&[n]), 9)).collect();
    let root = index(&many);
    source.add_manifest("a/src", "v1", &root);
    let failure = part(&from, &root.digest, &asked(&["linux/arm64"])).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::TooLarge);
}

#[tokio::test]
async fn a_part_is_copied_though_the_source_does_not_have_it() {
    let (source, target, from, to) = pair().await;
    let Built { images, root, .. } = published(&source);
    let sig = |manifest: &Manifest| format!("sha256-{}.sig", manifest.digest.hex());
    let signature = image(&[blob(&source, "{}"), blob(&source, "signature")]);
    for signed in [&root, &images[0]] {
        source.add_manifest("a/src", &sig(signed), &signature);
    }
    let made = of(&from, &root, &["linux/amd64"]).await.unwrap();
    let options = || CopyOptions {
        selection: Selection::default(),
        made: Some(made.clone()),
        ..CopyOptions::default()
    };
    let need = colophon_registry::measure(&from, &to, &made.digest, options()).await.unwrap();
    assert_eq!((need.manifests, need.companions.len()), (4, 1), "{need:?}");
    let done = copied(&from, &to, &made.digest, options()).await.unwrap();
    let at = |digest: &Digest| target.manifest("a/dst", digest.as_str());
    assert_eq!(at(&made.digest).unwrap().1, made.bytes);
    assert!(at(&images[0].digest).is_some() && at(&images[1].digest).is_none());
    assert_eq!(at(&root.digest), None);
    let tags: Vec<String> = done.companions.iter().map(|it| it.tag.to_string()).collect();
    assert_eq!(tags, [sig(&images[0])], "the whole index's says nothing about the part");
    assert_eq!(done.totals.notes.len(), 1, "{:?}", done.totals.notes);
    target.set_tag("a/dst", &tags[0], &signature.digest);
    let puts = target.count("PUT", "/");
    copied(&from, &to, &made.digest, options()).await.unwrap();
    assert_eq!(target.count("PUT", "/"), puts, "all of it is there");
}

#[tokio::test]
async fn a_part_of_what_is_in_the_repository_is_only_put() {
    let (source, _target, from, _) = pair().await;
    let Built { root, .. } = published(&source);
    let made = of(&from, &root, &["linux/amd64"]).await.unwrap();
    let options = CopyOptions { made: Some(made.clone()), ..CopyOptions::default() };
    copied(&from, &from, &made.digest, options).await.unwrap();
    assert_eq!(source.manifest("a/src", made.digest.as_str()).unwrap().1, made.bytes);
    assert_eq!(source.count("PUT", "/"), 1);
}
