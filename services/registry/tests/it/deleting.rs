//! Deleting a tag: the tag alone, once, and what registries say that do not do it.

use colophon_domain::{Access, Digest, Reason, Tag};
use colophon_registry::{Manifest, Session};

use crate::{
    fake::{Fake, Seen, error, status, with},
    support::{Keys, descriptor, image, session},
};

fn v1() -> Tag {
    "v1".parse().unwrap()
}

async fn fake(keys: std::sync::Arc<Keys>) -> (Fake, Session, Manifest) {
    let fake = Fake::start().await;
    let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
    fake.add_manifest("a/b", "v1", &image);
    fake.add_manifest("a/b", "v2", &image);
    let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Push);
    (fake, session, image)
}

#[tokio::test]
async fn the_tag_goes_and_everything_else_stays() {
    let (fake, session, image) = fake(Keys::none()).await;
    assert!(session.delete_tag(&v1()).await.unwrap());
    assert_eq!(fake.manifest("a/b", "v1"), None);
    for reference in ["v2", image.digest.as_str()] {
        assert!(fake.manifest("a/b", reference).is_some(), "{reference}");
    }
    assert!(session.delete_tag(&v1()).await.unwrap(), "it is gone already");
    let paths: Vec<String> = fake.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v2/a/b/manifests/v1", "/v2/a/b/manifests/v1"]);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    let (fake, session, _) = fake(Keys::none()).await;
    for code in [200, 202, 204, 404] {
        fake.hook(move |_| Some(status(code)));
        assert!(session.delete_tag(&v1()).await.unwrap(), "{code}");
    }
    for (code, name, message) in [
        (405, "UNSUPPORTED", "The operation is unsupported."),
        (400, "UNSUPPORTED", "unsupported digest v1"),
        (400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
        (400, "TAG_INVALID", "deleting by tag is not supported"),
    ] {
        fake.hook(move |_| Some(error(code, name, message)));
        assert!(!session.delete_tag(&v1()).await.unwrap(), "{code} {name}");
    }
    fake.hook(|_| Some(with(405, &[], "<html>")));
    assert!(!session.delete_tag(&v1()).await.unwrap());
    for (code, name, message, reason) in [
        (412, "PRECONDITION", "configured as immutable, cannot be deleted", Reason::TagImmutable),
        (403, "DENIED", "tag is immutable", Reason::TagImmutable),
        (401, "UNAUTHORIZED", "authentication required", Reason::RegistryUnauthorized),
        (400, "TAG_INVALID", "manifest tag did not match URI", Reason::RegistryProtocol),
        (307, "X", "elsewhere", Reason::RegistryProtocol),
    ] {
        fake.hook(move |_| Some(error(code, name, message)));
        let failure = session.delete_tag(&v1()).await.unwrap_err();
        assert_eq!(failure.reason(), reason, "{code} {name}");
        assert!(failure.message().starts_with("deleting the tag v1 of "), "{failure}");
    }
}

#[tokio::test]
async fn a_denied_deletion_is_typed_and_the_credential_is_not_shown() {
    let (fake, session, _) = fake(Keys::one("robot", "ghp_neverShown")).await;
    fake.hook(|seen| {
        let challenge = || with(401, &[("www-authenticate", "Basic realm=x")], "");
        let denied = || error(403, "DENIED", "ghp_neverShown may not delete");
        Some(if seen.authorization().is_empty() { challenge() } else { denied() })
    });
    let failure = session.delete_tag(&v1()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryDenied);
    assert!(format!("{failure:?}").contains("lacks the permission to delete"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("ghp_neverShown"));
}

#[tokio::test]
async fn a_hidden_tag_is_not_taken_for_a_deleted_one() {
    // A registry that says 404 to strangers, without a challenge.
    let (fake, session, _) = fake(Keys::one("robot", "pat")).await;
    fake.hook(|seen| match (seen.authorization().is_empty(), seen.path.as_str()) {
        (true, "/v2/") => Some(with(401, &[("www-authenticate", "Basic realm=x")], "")),
        (true, _) => Some(status(404)),
        _ => None,
    });
    assert!(session.delete_tag(&v1()).await.unwrap());
    assert_eq!(fake.manifest("a/b", "v1"), None);
}

#[tokio::test]
async fn a_lost_answer_is_an_error_and_nothing_is_repeated() {
    let (fake, session, _) = fake(Keys::none()).await;
    for code in [500, 502, 503] {
        let before = fake.seen().len();
        fake.hook(move |_| Some(status(code)));
        let failure = session.delete_tag(&v1()).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryUnavailable, "{code}");
        assert_eq!(fake.seen().len(), before + 1, "{code}");
    }
}

#[tokio::test]
async fn a_pause_is_waited_out() {
    let (fake, session, _) = fake(Keys::none()).await;
    let asked = std::sync::atomic::AtomicBool::new(false);
    fake.hook(move |_| {
        let first = !asked.swap(true, std::sync::atomic::Ordering::SeqCst);
        first.then(|| with(429, &[("retry-after", "1")], ""))
    });
    assert!(session.delete_tag(&v1()).await.unwrap());
    assert_eq!(fake.count("DELETE", "/manifests/v1"), 2);
}

#[tokio::test]
async fn the_token_is_for_deleting_too() {
    let (fake, session, _) = fake(Keys::one("robot", "pat")).await;
    let challenge = format!(r#"Bearer realm="{}""#, fake.url("/token"));
    fake.hook(move |seen| {
        if seen.path == "/token" {
            return Some(with(200, &[], r#"{"token":"opaque"}"#));
        }
        let known = seen.authorization() == "Bearer opaque";
        (!known).then(|| with(401, &[("www-authenticate", &challenge)], ""))
    });
    assert!(session.delete_tag(&v1()).await.unwrap());
    let tokens: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].query("scope"), ["repository:a/b:delete,pull,push"]);
}
