//! Registries that ask to slow down, or that are away for a moment.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use colophon_domain::{Access, Reason, Retry};

use crate::{
    copying::pair,
    fake::{Fake, status, with},
    support::{Keys, copy, descriptor, image, registries, session, tag},
};

#[tokio::test]
async fn retry_after_is_obeyed_on_a_manifests_put_as_well() {
    let fake = Fake::start().await;
    let image = image(&[descriptor("c", &colophon_domain::Digest::sha256(b""), 0)]);
    let asked = AtomicUsize::new(0);
    fake.hook(move |_| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        // Docker Hub's 429 is HTML.
        first.then(|| with(429, &[("retry-after", "1")], "<html>Too Many Requests</html>"))
    });
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Push);
    let begin = Instant::now();
    session.put_manifest(&tag("v1"), &image, None).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.count("PUT", "/manifests/v1"), 2);
}

#[tokio::test]
async fn a_long_pause_is_returned_and_holds_for_everybody() {
    let fake = Fake::start().await;
    fake.hook(|_| {
        let headers = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:59:37 GMT"),
        ];
        Some(with(429, &headers, "slow down"))
    });
    let registries = registries([fake.config()], Keys::none());
    let first = registries.session(&fake.repository("a/b"), Access::Pull).unwrap();
    let other = registries.session(&fake.repository("c/d"), Access::Pull).unwrap();
    for session in [&first, &other] {
        let failure = session.head(&tag("v1")).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RateLimited);
        let Retry::Wait(left) = failure.retry_class() else { panic!("{failure:?}") };
        assert!(left > Duration::from_secs(590) && left <= Duration::from_mins(10), "{left:?}");
    }
    assert_eq!(fake.seen().len(), 1, "the second was not sent at all");
}

#[tokio::test]
async fn a_blobs_upload_waits_and_is_sent_again() {
    let (source, target, from, to) = pair().await;
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    let asked = AtomicUsize::new(0);
    target.hook(move |seen| {
        let first = seen.is("PUT", "/uploads/") && asked.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| with(429, &[("retry-after", "1")], ""))
    });
    let begin = Instant::now();
    copy(&from, &to, &image.digest).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(target.blob("a/dst", &digest).unwrap(), "content");
}

#[tokio::test]
async fn a_429_without_a_time_is_waited_out() {
    let fake = Fake::start().await;
    let asked = AtomicUsize::new(0);
    fake.hook(move |_| (asked.fetch_add(1, Ordering::SeqCst) < 1).then(|| status(429)));
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_registry_that_is_away_for_a_moment_is_asked_again() {
    let fake = Fake::start().await;
    let asked = AtomicUsize::new(0);
    fake.hook(move |_| (asked.fetch_add(1, Ordering::SeqCst) < 2).then(|| status(503)));
    let patient = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    assert_eq!(patient.manifest(&tag("v1")).await.unwrap(), None);
    fake.hook(|_| Some(with(502, &[], "<html>bad gateway</html>")));
    let failure = patient.manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnavailable);
    assert_eq!(failure.retry_class(), Retry::Backoff);
    assert!(failure.message().contains("502") && failure.message().contains("a/b"));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_unavailable() {
    let fake = Fake::start().await;
    let (config, repository) = (fake.config(), fake.repository("a/b"));
    drop(fake);
    // The port may still be open until the task has ended.
    tokio::task::yield_now().await;
    let away = session(config, Keys::none(), &repository, Access::Pull);
    let failure = away.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnavailable);
    assert_eq!(failure.retry_class(), Retry::Backoff);
}

#[tokio::test]
async fn a_rate_limit_is_told_as_one_by_a_blobs_upload_and_by_the_realm() {
    let limited = || with(429, &[("retry-after", "0")], "");
    let told = |failure: colophon_domain::Failure| {
        assert_eq!(failure.reason(), Reason::RateLimited, "{failure}");
        let Retry::Wait(pause) = failure.retry_class() else { panic!("{failure:?}") };
        assert!(pause >= Duration::from_secs(1));
    };
    let (source, target, from, to) = pair().await;
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    target.hook(move |seen| seen.is("PUT", "/uploads/").then(limited));
    told(copy(&from, &to, &image.digest).await.unwrap_err());
    let fake = Fake::start().await;
    let challenge = format!(r#"Bearer realm="{}""#, fake.url("/token"));
    fake.hook(move |seen| {
        let challenge = || with(401, &[("www-authenticate", &challenge)], "");
        Some(if seen.path == "/token" { limited() } else { challenge() })
    });
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    told(session.manifest(&tag("v1")).await.unwrap_err());
}
