//! Where the registry sends us: an upload's Location and a download's redirect, which may lead
//! to another host, but never with credentials and never into the private network.

use std::sync::atomic::{AtomicUsize, Ordering};

use colophon_domain::{Access, Digest, Reason};

use crate::{
    copying::pair,
    fake::{Fake, Seen, error, ranged, status, with},
    support::{Keys, by, copy, descriptor, image, registries, session},
};

const SECRET: &str = "ghp_neverShown";

/// Copies one blob to `target` with a credential for both.
async fn send(
    target: &Fake,
    config: colophon_registry::RegistryConfig,
) -> colophon_domain::Result<()> {
    let source = Fake::start().await;
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    let registries = registries([source.config(), config], Keys::one("robot", SECRET));
    let from = registries.session(&source.repository("a/src"), Access::Pull)?;
    let to = registries.session(&target.repository("a/dst"), Access::Push)?;
    copy(&from, &to, &image.digest).await.map(drop)
}

/// A registry with Basic authentication whose uploads are at `location`.
fn uploads_at(target: &Fake, location: String) {
    target.hook(move |seen| {
        if seen.authorization().is_empty() {
            return Some(with(401, &[("www-authenticate", "Basic realm=x")], ""));
        }
        seen.is("POST", "/uploads/").then(|| with(202, &[("location", &location)], ""))
    });
}

#[tokio::test]
async fn a_location_is_relative_or_absolute_with_or_without_a_query() {
    let target = Fake::start().await;
    let locations = [
        "/v2/a/dst/blobs/uploads/1".to_owned(),
        "/v2/a/dst/blobs/uploads/2?_state=a%3Db%26c&x=y".to_owned(),
        "3?state=x".to_owned(),
        target.url("/v2/a/dst/blobs/uploads/4?state=x"),
        format!("//{}/v2/a/dst/blobs/uploads/5", target.address),
    ];
    for (number, location) in locations.into_iter().enumerate() {
        let target = &target;
        let digest = Digest::sha256(b"content");
        uploads_at(target, location);
        target.forget();
        send(target, target.config()).await.unwrap();
        let put = target.seen().into_iter().rfind(|s| s.is("PUT", "/uploads/")).unwrap();
        assert!(put.path.ends_with(&format!("/uploads/{}", number + 1)), "{}", put.path);
        assert_eq!(put.query("digest"), [digest.as_str()]);
        assert!(put.authorization().starts_with("Basic "));
        if number == 1 {
            assert_eq!(put.query("_state"), ["a=b&c"], "the query is kept as it was");
        }
    }
}

#[tokio::test]
async fn another_host_gets_the_blob_and_no_credentials() {
    let (target, storage) = (Fake::start().await, Fake::start().await);
    uploads_at(&target, storage.url("/bucket/key?sig=abc"));
    storage.hook(|_| Some(status(201)));
    // The manifest's PUT is answered, although the blob is not in the fake's own memory.
    send(&target, target.config()).await.unwrap();
    let put = storage.seen().into_iter().find(|seen| seen.is("PUT", "/bucket/")).unwrap();
    assert_eq!((put.authorization(), put.body.as_deref()), ("", Some(b"content".as_slice())));
}

#[tokio::test]
async fn a_private_address_is_refused_unless_the_registry_is_there_or_it_is_named() {
    let (target, storage) = (Fake::start().await, Fake::start_on("127.0.0.2").await);
    uploads_at(&target, storage.url("/bucket/key"));
    storage.hook(|_| Some(status(201)));
    let failure = send(&target, target.config()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused);
    assert!(storage.seen().is_empty());
    let mut named = target.config();
    named.storage_hosts = vec![storage.address.to_string()];
    send(&target, named).await.unwrap();
    assert_eq!(storage.seen()[0].authorization(), "");
}

#[tokio::test]
async fn a_name_is_judged_by_the_address_behind_it() {
    let (registry, storage) = (Fake::start_on("127.0.0.2").await, Fake::start().await);
    let digest = Digest::sha256(b"x");
    let location = format!("http://localhost:{}/x", storage.address.port());
    registry.hook(move |_| Some(with(307, &[("location", &location)], "")));
    let session =
        session(registry.config(), Keys::none(), &registry.repository("a/b"), Access::Pull);
    let failure = session.manifest(&by(&digest)).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused);
    assert!(storage.seen().is_empty());
}

#[tokio::test]
async fn metadata_addresses_and_odd_schemes_are_refused() {
    for (location, reason) in [
        ("http://169.254.169.254/latest/meta-data", Reason::AddressRefused),
        ("http://[::1]:1/", Reason::AddressRefused),
        ("http://[::ffff:10.0.0.1]/", Reason::AddressRefused),
        ("file:///etc/passwd", Reason::RegistryProtocol),
        ("http://", Reason::RegistryProtocol),
    ] {
        let fake = Fake::start().await;
        fake.hook(move |_| Some(with(302, &[("location", location)], "")));
        let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
        let failure = session.manifest(&by(&Digest::sha256(b"x"))).await.unwrap_err();
        assert_eq!(failure.reason(), reason, "{location}");
    }
}

#[tokio::test]
async fn a_redirect_carries_no_authorization_and_circles_end() {
    let (source, storage) = (Fake::start().await, Fake::start().await);
    let location = storage.url("/signed?sig=abc");
    source.hook(move |seen| {
        if seen.authorization().is_empty() {
            return Some(with(401, &[("www-authenticate", "Basic realm=x")], ""));
        }
        seen.is("GET", "/blobs/").then(|| with(307, &[("location", &location)], ""))
    });
    storage.hook(|seen| Some(ranged(seen, &"content".into())));
    let target = Fake::start().await;
    copy_between(&source, &target).await.unwrap();
    assert_eq!(storage.seen()[0].authorization(), "");
    let circle = source.url("/v2/a/src/circle");
    source.hook(move |_| Some(with(302, &[("location", &circle)], "")));
    let failure = copy_between(&source, &Fake::start().await).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryProtocol);
}

async fn copy_between(source: &Fake, target: &Fake) -> colophon_domain::Result<()> {
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    let registries = registries([source.config(), target.config()], Keys::one("robot", SECRET));
    let from = registries.session(&source.repository("a/src"), Access::Pull)?;
    let to = registries.session(&target.repository("a/dst"), Access::Push)?;
    copy(&from, &to, &image.digest).await.map(drop)
}

#[tokio::test]
async fn when_a_redirected_url_expires_the_registry_is_asked_again() {
    let (source, _target, from, to) = pair().await;
    let storage = Fake::start().await;
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    let asked = AtomicUsize::new(0);
    let base = storage.url("/signed");
    source.hook(move |seen: &Seen| {
        seen.is("GET", "/blobs/").then(|| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            with(307, &[("location", &format!("{base}?n={number}"))], "")
        })
    });
    storage.hook(|seen| {
        Some(if seen.query("n") == ["0"] {
            error(403, "Expired", "Request has expired")
        } else {
            ranged(seen, &"content".into())
        })
    });
    copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(source.count("GET", "/blobs/"), 2);
}

#[tokio::test]
async fn what_another_host_refuses_is_an_upload_forgotten_and_teaches_nothing() {
    let challenge = [("www-authenticate", r#"Bearer realm="http://127.0.0.1:9/token""#)];
    for refusal in [
        with(401, &challenge, ""),
        with(403, &challenge, ""),
        with(404, &[], ""),
        with(429, &[("retry-after", "3600")], ""),
        with(503, &[("retry-after", "3600")], ""),
    ] {
        let code = refusal.status();
        let (target, storage) = (Fake::start().await, Fake::start().await);
        uploads_at(&target, storage.url("/bucket/key?sig=abc"));
        let refusal = std::sync::Mutex::new(Some(refusal));
        storage.hook(move |seen| {
            let refused = seen.is("PUT", "/").then(|| refusal.lock().unwrap().take()).flatten();
            Some(refused.unwrap_or_else(|| status(201)))
        });
        send(&target, target.config()).await.unwrap_or_else(|failure| panic!("{code} {failure}"));
        assert_eq!(storage.count("PUT", "/bucket/"), 2, "{code}");
        assert_eq!(target.count("POST", "/uploads/"), 2, "{code}");
        let known = |seen: &Seen| {
            seen.authorization().is_empty() || seen.authorization().starts_with("Basic ")
        };
        assert!(target.seen().iter().all(known), "{code}");
    }
}
