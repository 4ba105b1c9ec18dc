//! What must work at every registry that people use: looking up a tag, listing tags, copying
//! from and to it, moving a tag.

use std::time::Duration;

use axum::body::Body;
use colophon_domain::{Access, Digest, Repository};
use colophon_registry::RegistryConfig;
use colophon_testkit::{
    pki::Authority,
    scripted::{ALWAYS, Answer, Personality, Place, Response, When},
};
use futures_util::{StreamExt as _, future::join_all, stream};
use tempfile::TempDir;

use crate::{
    stage::{
        ALL, ARTIFACTORY, CORP_LAN, ECR, GHCR, HARBOR, HUB, READER, Stage, WRITER, between, publish,
    },
    support::{Keys, by, copy, descriptor, entry, image, index, registries, tag},
};

#[tokio::test]
async fn a_tag_is_looked_up_by_head_at_each() {
    for kind in ALL {
        // Not a single manifest could be read by GET.
        let personality = Personality { pulls: (kind.0 == "docker.io").then_some(0), ..kind.1() };
        let stage = Stage::with(kind.0, personality).await;
        let root = stage.publish("src");
        let session = stage.reads();
        let found = session.head(&tag("v1")).await.unwrap().unwrap();
        assert_eq!(found, root.descriptor(), "{}", kind.0);
        assert_eq!(session.observe(&tag("v1")).await.unwrap(), Some(root.digest), "{}", kind.0);
        assert_eq!(stage.fake.count("GET", "/manifests/"), 0, "{}", kind.0);
        stage.was_shown_only(&[READER]);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_there_at_each() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        let session = stage.reads();
        assert_eq!(session.head(&tag("v1")).await.unwrap(), None, "{}", kind.0);
        assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None, "{}", kind.0);
        assert_eq!(session.observe(&tag("v1")).await.unwrap(), None, "{}", kind.0);
    }
}

#[tokio::test]
async fn public_images_are_read_without_a_credential() {
    for kind in [HUB, GHCR] {
        let stage = Stage::of(kind).await;
        let root = stage.publish("src");
        let registries = registries([stage.config()], Keys::none());
        let session = registries.session(&stage.repository("src"), Access::Pull).unwrap();
        assert_eq!(session.manifest(&tag("v1")).await.unwrap().unwrap().digest, root.digest);
        assert_eq!(stage.fake.token_requests()[0].username, None);
        stage.was_shown_only(&[]);
    }
}

#[tokio::test]
async fn an_official_image_of_docker_hub_is_in_library() {
    let stage = Stage::of(HUB).await;
    let root = publish(&stage.fake, "library/nginx");
    let registries = registries([stage.config()], Keys::none());
    let nginx = Repository::parse("docker.io/nginx").unwrap();
    let session = registries.session(&nginx, Access::Pull).unwrap();
    assert_eq!(session.head(&tag("v1")).await.unwrap().unwrap().digest, root.digest);
    assert_eq!(stage.fake.token_requests()[0].scopes, ["repository:library/nginx:pull"]);
}

#[tokio::test]
async fn all_tags_are_listed_in_pages_that_each_gives() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        let root = stage.publish("src");
        for number in 0..1200 {
            let (name, tag) = (stage.name("src"), format!("v2.{number:04}"));
            stage.fake.add_manifest(&name, &tag, &root.media_type, root.bytes.clone());
        }
        let mut tags = Vec::new();
        let known = stage.reads().tags(&mut |tag| tags.push(tag.to_owned())).await.unwrap();
        assert!(known, "{}", kind.0);
        assert_eq!((tags.len(), tags[1200].as_str()), (1201, "v2.1199"), "{}", kind.0);
        let pages = stage.fake.seen().into_iter().filter(|seen| seen.path.ends_with("/tags/list"));
        assert!(pages.clone().all(|seen| seen.query("n") == ["1000"]), "{}", kind.0);
        let more = usize::from(kind.1().pages);
        let asked = pages.filter(|seen| !seen.query("last").is_empty()).count();
        assert_eq!(asked, more, "{}", kind.0);
        stage.was_shown_only(&[READER]);
    }
}

#[tokio::test]
async fn an_index_of_two_platforms_is_copied_from_each_and_to_each() {
    for kind in ALL {
        let (source, target) = (Stage::of(kind).await, Stage::of(kind).await);
        let plain = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        let (_all, from, to) = between(&source, &plain);
        let totals = copy(&from, &to, &root.digest).await.unwrap();
        assert_eq!((totals.blobs_copied, totals.bytes_copied), (5, 300_010), "{}", kind.0);
        plain.holds("dst", &root, (&source.fake, &source.name("src")));
        source.was_shown_only(&[READER]);
        plain.was_shown_only(&[]);

        let original = plain.publish("src");
        let (_all, from, to) = between(&plain, &target);
        let totals = copy(&from, &to, &original.digest).await.unwrap();
        assert_eq!((totals.blobs_copied, totals.blobs_mounted), (5, 0), "{}", kind.0);
        target.holds("dst", &original, (&plain.fake, &plain.name("src")));
        target.was_shown_only(&[WRITER]);
        assert_eq!(target.fake.open_uploads(), 0, "{}", kind.0);
        assert_eq!(target.fake.bytes_received_in_all(), 300_010, "each blob once: {}", kind.0);
        // Once more: all that is there is left alone.
        let (reads, puts) = (plain.fake.count("GET", "/"), target.fake.count("PUT", "/"));
        copy(&from, &to, &original.digest).await.unwrap();
        assert_eq!(plain.fake.count("GET", "/blobs/"), 5, "{}", kind.0);
        assert_eq!((plain.fake.count("GET", "/"), target.fake.count("PUT", "/")), (reads, puts));
    }
}

#[tokio::test]
async fn blobs_come_from_the_storage_and_the_registry_is_asked_again_when_a_url_has_expired() {
    // Side by side, because each waits a moment before it asks again.
    join_all([HUB, GHCR, ECR].map(async |kind| {
        let source = Stage::of(kind).await;
        let target = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        let storage = When::of("GET", "/sha256:").and(|seen| seen.place == Place::Storage);
        let expired = Answer::status(403).body("<Code>AccessDenied</Code>");
        source.fake.script([(storage, expired, 1)]);
        let (_all, from, to) = between(&source, &target);
        copy(&from, &to, &root.digest).await.unwrap();
        target.holds("dst", &root, (&source.fake, &source.name("src")));
        let at_storage =
            source.fake.seen().iter().filter(|seen| seen.place == Place::Storage).count();
        assert_eq!(at_storage, 5 + 1, "{}", kind.0);
        source.was_shown_only(&[READER]);
    }))
    .await;
}

/// The first two pieces of an answer's body, then the end of the connection. A body that is not
/// ready at once lets the server send what it has.
fn cut(answer: Response) -> Response {
    answer.map(|body| {
        let broken = async {
            tokio::task::yield_now().await;
            Err(axum::Error::new(std::io::Error::other("cut")))
        };
        Body::from_stream(body.into_data_stream().take(2).chain(stream::once(broken)))
    })
}

#[tokio::test]
async fn a_download_that_broke_off_goes_on_where_it_was_through_a_fresh_url() {
    // Side by side, because each waits a moment before it asks again.
    join_all([HUB, GHCR, ECR].map(async |kind| {
        let source = Stage::of(kind).await;
        let target = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        let layer = Digest::sha256(&vec![7; 200_000]);
        let stored = || When::of("GET", layer.as_str()).and(|seen| seen.place == Place::Storage);
        // Meanwhile the URL has expired.
        source.fake.script([
            (stored().and(|seen| seen.header("range").is_empty()), Answer::change(cut), 1),
            (stored().and(|seen| !seen.header("range").is_empty()), Answer::status(403), 1),
        ]);
        let (_all, from, to) = between(&source, &target);
        copy(&from, &to, &root.digest).await.unwrap();
        target.holds("dst", &root, (&source.fake, &source.name("src")));
        let asked = source.fake.seen().into_iter();
        let asked = asked.filter(|seen| seen.is("GET", layer.as_str()));
        let (there, registry): (Vec<_>, Vec<_>) =
            asked.partition(|seen| seen.place == Place::Storage);
        assert_eq!((there.len(), registry.len()), (3, 3), "{}", kind.0);
        let range = there[2].header("range");
        let from: u64 =
            range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        assert!(from > 0, "{} {range}", kind.0);
        let (twice_64_kib, size) = (2 << 16, 200_000);
        assert_eq!(source.fake.bytes_sent(layer.as_str()), twice_64_kib + size - from);
        source.was_shown_only(&[READER]);
    }))
    .await;
}

#[tokio::test]
async fn a_blob_beyond_the_largest_chunk_of_ghcr_goes_in_one_put() {
    let target = Stage::of(GHCR).await;
    let source = Stage::with("plain.example.com", Personality::default()).await;
    let bytes = vec![1_u8; (4 << 20) + 1];
    let digest: Digest = source.fake.add_blob("src/app", bytes.clone()).parse().unwrap();
    let image = image(&[descriptor("c", &digest, bytes.len())]);
    source.fake.add_manifest("src/app", "v1", &image.media_type, image.bytes.clone());
    let (_all, from, to) = between(&source, &target);
    copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(target.fake.bytes_received(digest.as_str()), (4 << 20) + 1);
    assert_eq!(target.fake.by_method().get("PATCH"), None);
}

#[tokio::test]
async fn a_tag_moves_at_each() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        let root = stage.publish("dst");
        let session = stage.writes();
        let first = session.manifest(&tag("v1")).await.unwrap().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&first.bytes).unwrap();
        let child: Digest = body["manifests"][1]["digest"].as_str().unwrap().parse().unwrap();
        let other = session.manifest(&by(&child)).await.unwrap().unwrap();
        for (moved, was) in
            [(&first, None), (&other, Some(&root.digest)), (&first, Some(&other.digest))]
        {
            let before = session.observe(&tag("stable")).await.unwrap();
            assert_eq!(before.as_ref(), was, "{}", kind.0);
            session.put_manifest(&tag("stable"), moved, None).await.unwrap();
            assert_eq!(
                session.observe(&tag("stable")).await.unwrap().as_ref(),
                Some(&moved.digest)
            );
        }
        assert_eq!(stage.fake.tag(&stage.name("dst"), "stable").unwrap(), root.digest.as_str());
        assert_eq!(stage.fake.manifest(&stage.name("dst"), "stable").unwrap().bytes, root.bytes);
        assert_eq!(stage.fake.tag(&stage.name("dst"), "v1").unwrap(), root.digest.as_str());
        stage.was_shown_only(&[WRITER]);
    }
}

#[tokio::test]
async fn a_preflight_leaves_no_upload_behind_at_each() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        stage.writes().preflight().await.unwrap();
        assert_eq!((stage.fake.count("DELETE", "/uploads/"), stage.fake.open_uploads()), (1, 0));
    }
}

#[tokio::test]
async fn a_registry_gets_no_more_requests_at_once_than_are_configured() {
    let target = Stage::of(CORP_LAN).await;
    let source = Stage::with("plain.example.com", Personality::default()).await;
    let name = source.name("src");
    let config: Digest = source.fake.add_blob(&name, "{}").parse().unwrap();
    let children: Vec<_> = (0..12)
        .map(|number| {
            let layer = format!("layer {number}");
            let digest: Digest = source.fake.add_blob(&name, layer.clone()).parse().unwrap();
            let child =
                image(&[descriptor("c", &config, 2), descriptor("l", &digest, layer.len())]);
            let (kind, bytes) = (&child.media_type, child.bytes.clone());
            source.fake.add_manifest(&name, child.digest.as_str(), kind, bytes);
            entry(&child)
        })
        .collect();
    let root = index(&children);
    source.fake.add_manifest(&name, "v1", &root.media_type, root.bytes.clone());
    let late = || Answer::Late(Duration::from_millis(20));
    target.fake.script([
        (When::of("PUT", "/manifests/"), late(), ALWAYS),
        (When::of("DELETE", "/uploads/"), late(), ALWAYS),
    ]);
    let few = RegistryConfig { max_connections: Some(3), ..target.config() };
    let keys = Keys::none().and(&format!("{name} pull"), READER.0, READER.1).and(
        &format!("{} push", target.name("dst")),
        WRITER.0,
        WRITER.1,
    );
    let registries = registries([source.config(), few], keys);
    let from = registries.session(&source.repository("src"), Access::Pull).unwrap();
    let to = registries.session(&target.repository("dst"), Access::Push).unwrap();
    copy(&from, &to, &root.digest).await.unwrap();
    target.holds("dst", &root, (&source.fake, &name));
    let preflights = join_all((0..12).map(|_| to.preflight())).await;
    assert!(preflights.iter().all(Result::is_ok));
    assert!(target.fake.peak_requests() <= 3, "{}", target.fake.peak_requests());
}

#[tokio::test]
async fn a_location_is_absolute_with_a_query_and_both_are_kept() {
    for kind in [ARTIFACTORY, HARBOR, CORP_LAN] {
        let target = Stage::of(kind).await;
        let source = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        let (_all, from, to) = between(&source, &target);
        copy(&from, &to, &root.digest).await.unwrap();
        let puts =
            target.fake.seen().into_iter().filter(|seen| seen.is("PUT", "/uploads/session-"));
        let puts: Vec<_> = puts.collect();
        assert_eq!(puts.len(), 5, "{}", kind.0);
        for put in puts {
            assert_eq!((put.query("_state").len(), put.query("digest").len()), (1, 1));
            assert!(!put.authorization().is_empty(), "the same host: {}", kind.0);
        }
    }
}

#[tokio::test]
async fn a_company_has_a_private_ca_which_is_trusted_by_its_file_alone() {
    let (folder, authority) = (TempDir::new().unwrap(), Authority::new("corp").unwrap());
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let stage = Stage::with_tls(CORP_LAN, &authority.issue().unwrap(), ca).await;
    let source = Stage::with("plain.example.com", Personality::default()).await;
    let root = source.publish("src");
    let (_all, from, to) = between(&source, &stage);
    copy(&from, &to, &root.digest).await.unwrap();
    to.put_manifest(&tag("v1"), &root, None).await.unwrap();
    stage.holds("dst", &root, (&source.fake, &source.name("src")));
    let before = stage.fake.seen().len();
    for (ca_file, plain_http) in [(None, false), (None, true)] {
        let config = RegistryConfig { ca_file, plain_http, ..stage.config() };
        let registries = registries([config], stage.keys());
        let session = registries.session(&stage.repository("dst"), Access::Push).unwrap();
        session.preflight().await.unwrap_err();
    }
    assert_eq!(stage.fake.seen().len(), before, "nothing is said to one that is not trusted");
}
