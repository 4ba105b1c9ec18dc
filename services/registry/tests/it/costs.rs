//! What a copy may cost: requests where there is nothing to do, and connections however much there
//! is to do.

use colophon_domain::{Access, Digest};
use colophon_registry::RegistryConfig;
use colophon_testkit::scripted::{Personality, Seen};
use futures_util::future::try_join_all;

use crate::{
    stage::{ALL, Stage, between},
    support::{Keys, LAYER, copy, descriptor, image, registries},
};

#[tokio::test]
async fn what_is_in_its_place_costs_two_requests_a_manifest_and_no_put_at_each() {
    for kind in ALL {
        let source = Stage::with("source.example.com", Personality::default()).await;
        let target = Stage::of(kind).await;
        let root = source.publish("src");
        let (_all, from, to) = between(&source, &target);
        copy(&from, &to, &root.digest).await.unwrap();
        let before = (source.fake.seen().len(), target.fake.seen().len());
        copy(&from, &to, &root.digest).await.unwrap();
        let (source, target) = (source.fake.seen(), target.fake.seen());
        let (source, target) = (&source[before.0..], &target[before.1..]);
        // An index and two images.
        assert!(source.len() + target.len() <= 2 * 3, "{}: {source:#?} {target:#?}", kind.0);
        assert!(source.iter().chain(target).all(Seen::reads), "{}", kind.0);
    }
}

const CONNECTIONS: usize = 6;
const IMAGES: usize = 12;

/// A registry that may be asked by so many connections.
async fn narrow(host: &'static str) -> (Stage, RegistryConfig) {
    let stage = Stage::with(host, Personality::default()).await;
    let config = RegistryConfig { max_connections: Some(CONNECTIONS), ..stage.config() };
    (stage, config)
}

/// Images of four layers, each with its own.
fn images(source: &Stage) -> Vec<Digest> {
    let name = source.name("src");
    let blob = |text: String| {
        let bytes = text.into_bytes();
        let size = bytes.len();
        let digest: Digest = source.fake.add_blob(&name, bytes).parse().unwrap();
        descriptor(LAYER, &digest, size)
    };
    let image = |number: usize| {
        let layers: Vec<_> =
            (0..5).map(|layer| blob(format!("{number} {layer} ").repeat(40_000))).collect();
        let image = image(&layers);
        source.fake.add_manifest(&name, &number.to_string(), &image.media_type, image.bytes);
        image.digest
    };
    (0..IMAGES).map(image).collect()
}

#[tokio::test]
async fn no_registry_has_more_connections_than_configured_whatever_is_copied_at_once() {
    let (source, from) = narrow("source.example.com").await;
    let (one, first) = narrow("one.example.com").await;
    let (other, second) = narrow("other.example.com").await;
    let images = images(&source);
    let all = registries([from, first, second], Keys::none());
    let copies = images.iter().flat_map(|digest| {
        let all = &all;
        let from = all.session(&source.repository("src"), Access::Pull).unwrap();
        [&one, &other].map(|target| {
            let (from, digest) = (from.clone(), digest.clone());
            let to = all.session(&target.repository("dst"), Access::Push).unwrap();
            async move { copy(&from, &to, &digest).await }
        })
    });
    let totals = try_join_all(copies.collect::<Vec<_>>()).await.unwrap();
    let sent: i64 = totals.iter().map(|totals| totals.blobs_copied).sum();
    assert_eq!(usize::try_from(sent).unwrap(), 2 * 5 * IMAGES);
    for stage in [&source, &one, &other] {
        let peak = stage.fake.peak_connections();
        assert!((2..=CONNECTIONS).contains(&peak), "{}: {peak}", stage.host);
    }
}
