//! Looking for manifests and reading them.

use colophon_domain::{Access, Algorithm, Digest, Reason, TagOrDigest};
use colophon_registry::{Content, Manifest, Session};

use crate::{
    fake::{Fake, error, status, with},
    support::{IMAGE, Keys, by, descriptor, image, index, registries, session, tag},
};

async fn fake() -> (Fake, Session, Manifest) {
    let fake = Fake::start().await;
    let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
    fake.add_manifest("a/b", "v1", &image);
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    (fake, session, image)
}

#[tokio::test]
async fn a_tag_is_looked_up_by_head_and_all_four_types_are_accepted() {
    let (fake, session, image) = fake().await;
    let found = session.head(&tag("v1")).await.unwrap().unwrap();
    assert_eq!((&found.digest, found.media_type.as_str()), (&image.digest, IMAGE));
    assert_eq!(found, image.descriptor());
    let seen = fake.seen();
    assert_eq!((seen.len(), seen[0].method.as_str()), (1, "HEAD"));
    let accepted: Vec<&str> =
        seen[0].headers.get_all("accept").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(accepted.len(), 4);
    assert!(accepted.contains(&"application/vnd.docker.distribution.manifest.list.v2+json"));
    assert!(accepted.contains(&"application/vnd.oci.image.index.v1+json"));
}

#[tokio::test]
async fn a_head_that_does_not_suffice_is_followed_by_a_get() {
    let (fake, session, image) = fake().await;
    for code in [200, 404, 405] {
        fake.hook(move |seen| (seen.method == http::Method::HEAD).then(|| status(code)));
        let found = session.head(&tag("v1")).await.unwrap().unwrap();
        assert_eq!(found, image.descriptor(), "{code}");
    }
    fake.hook(|_| Some(error(404, "NAME_UNKNOWN", "repository name not known")));
    assert_eq!(session.head(&tag("v1")).await.unwrap(), None);
    assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
}

#[tokio::test]
async fn the_bytes_are_those_of_the_digest_or_refused() {
    let (fake, session, image) = fake().await;
    let read = session.manifest(&by(&image.digest)).await.unwrap().unwrap();
    assert_eq!((&read.bytes, &read.digest), (&image.bytes, &image.digest));
    assert!(matches!(read.content, Content::Image { layers, .. } if layers.is_empty()));
    let other = Digest::sha256(b"other");
    let bytes = image.bytes.clone();
    fake.hook(move |_| Some(with(200, &[("content-type", IMAGE)], bytes.clone())));
    let failure = session.manifest(&by(&other)).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::DigestMismatch);
    let wrong = other.to_string();
    let bytes = image.bytes.clone();
    fake.hook(move |_| Some(with(200, &[("docker-content-digest", &wrong)], bytes.clone())));
    let failure = session.manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::DigestMismatch);
    let failure = session.head(&by(&image.digest)).await;
    assert!(failure.is_err() || failure.unwrap().is_some());
}

#[tokio::test]
async fn sha512_is_verified_as_such() {
    let (fake, session, image) = fake().await;
    let long = Digest::of(Algorithm::Sha512, &image.bytes);
    let bytes = image.bytes.clone();
    fake.hook(move |_| Some(with(200, &[], bytes.clone())));
    let read = session.manifest(&TagOrDigest::Digest(long.clone())).await.unwrap().unwrap();
    assert_eq!(read.digest, long);
}

#[tokio::test]
async fn the_bodys_type_counts_and_not_the_headers() {
    let (fake, session, _) = fake().await;
    let list = index(&[]);
    let bytes = list.bytes.clone();
    let header = "application/vnd.oci.image.index.v1+json; charset=utf-8";
    fake.hook(move |_| Some(with(200, &[("content-type", header)], bytes.clone())));
    assert_eq!(session.manifest(&tag("v1")).await.unwrap().unwrap(), list);
}

#[tokio::test]
async fn a_manifest_of_more_than_four_mebibytes_is_refused() {
    let (fake, session, _) = fake().await;
    for announced in [true, false] {
        fake.hook(move |_| {
            let body = vec![b' '; (4 << 20) + 1];
            Some(if announced {
                with(200, &[], body)
            } else {
                let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
                    body.chunks(1 << 20).map(|piece| Ok(piece.to_vec())).collect();
                with(200, &[], axum::body::Body::from_stream(futures_util::stream::iter(pieces)))
            })
        });
        let failure = session.manifest(&tag("v1")).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::TooLarge);
    }
}

#[tokio::test]
async fn schema_1_is_refused_by_name() {
    let (fake, session, _) = fake().await;
    let body = r#"{"schemaVersion":1,"name":"a/b","tag":"v1","fsLayers":[],"signatures":[]}"#;
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    fake.hook(move |_| Some(with(200, &[("content-type", kind)], body)));
    for failure in [session.manifest(&tag("v1")).await.err(), session.head(&tag("v1")).await.err()]
    {
        let failure = failure.unwrap();
        assert_eq!(failure.reason(), Reason::UnsupportedManifest);
        assert!(failure.message().contains("schema 1"));
    }
}

#[tokio::test]
async fn only_configured_registries_are_known() {
    let (fake, _, _) = fake().await;
    let registries = registries([fake.config()], Keys::none());
    assert!(registries.knows(&fake.host()) && !registries.knows(&"ghcr.io".parse().unwrap()));
    let other = colophon_domain::Repository::parse("ghcr.io/acme/app").unwrap();
    let failure = registries.session(&other, Access::Pull).unwrap_err();
    assert_eq!(failure.reason(), Reason::UnknownRegistry);
    let twice = vec![fake.config(), fake.config()];
    let failure = colophon_registry::Registries::new(twice, Keys::none()).unwrap_err();
    assert_eq!(failure.field_name(), Some("registry.host"));
}
