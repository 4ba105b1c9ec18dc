//! A tag's PUT: what certainly did not happen, and what may have.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::Response;
use colophon_domain::{Access, Digest, Reason, Repository, Retry};
use colophon_registry::{Manifest, PutError, RegistryConfig, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    fake::{Fake, error, status, with},
    support::{Keys, descriptor, image, manifest, registries, session, tag},
};

fn some_image() -> Manifest {
    image(&[descriptor("c", &Digest::sha256(b""), 0)])
}

async fn put(session: &Session, deadline: Option<Instant>) -> Result<(), PutError> {
    session.put_manifest(&tag("v1"), &some_image(), deadline).await
}

/// The outcome of a PUT that is answered with this.
async fn answered(answer: impl Fn() -> Response + Send + Sync + 'static) -> (Fake, PutError) {
    let fake = Fake::start().await;
    fake.hook(move |_| Some(answer()));
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Push);
    let outcome = put(&session, None).await.unwrap_err();
    (fake, outcome)
}

/// A server that reads a request's head and does something with the connection.
async fn raw(answer: &'static [u8]) -> (RegistryConfig, Repository, Arc<tokio::sync::Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(tokio::sync::Semaphore::new(0));
    let count = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 65536];
            let _ = stream.read(&mut request).await;
            count.add_permits(1);
            let _ = stream.write_all(answer).await;
        }
    });
    let config = RegistryConfig {
        plain_http: true,
        ..RegistryConfig::new(address.to_string().parse().unwrap())
    };
    (config, Repository::parse(&format!("{address}/a/b")).unwrap(), heard)
}

#[tokio::test]
async fn exactly_the_bytes_are_put_under_the_bodys_type() {
    let fake = Fake::start().await;
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Push);
    // Odd spaces and unknown fields, which no re-serialisation would keep.
    let odd = manifest(&serde_json::json!({
        "unknown": [1.0, null], "schemaVersion": 2, "manifests": [],
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
    }));
    session.put_manifest(&tag("v1"), &odd, None).await.unwrap();
    let (kind, bytes) = fake.manifest("a/b", "v1").unwrap();
    assert_eq!(kind, "application/vnd.docker.distribution.manifest.list.v2+json");
    assert_eq!(bytes, odd.bytes);
}

#[tokio::test]
async fn a_4xx_was_not_applied() {
    for (code, name, message, reason) in [
        (404, "MANIFEST_BLOB_UNKNOWN", "m", Reason::ContentMissing),
        (400, "BLOB_UNKNOWN", "m", Reason::ContentMissing),
        (404, "MANIFEST_UNKNOWN", "a child is missing", Reason::ContentMissing),
        (404, "NAME_UNKNOWN", "m", Reason::RepositoryNotFound),
        (412, "PRECONDITION", "tag v1 is configured as immutable", Reason::TagImmutable),
        (
            400,
            "TAG_INVALID",
            "The image tag 'v1' already exists in the 'b' repository and cannot be overwritten \
             because the repository is immutable.",
            Reason::TagImmutable,
        ),
        (403, "DENIED", "ImageTagAlreadyExistsException", Reason::TagImmutable),
        (400, "MANIFEST_INVALID", "m", Reason::RegistryProtocol),
        (413, "SIZE_INVALID", "m", Reason::DigestMismatch),
    ] {
        let (fake, outcome) = answered(move || error(code, name, message)).await;
        let PutError::NotApplied(failure) = outcome else { panic!("{code} {name}") };
        assert_eq!(failure.reason(), reason, "{code} {name}");
        assert_eq!(fake.seen().len(), 1, "{code} {name}");
    }
}

#[tokio::test]
async fn a_tag_that_the_registry_keeps_in_place_was_not_moved() {
    let long = "n".repeat(200);
    let ecr = format!(
        "The image tag 'v1' already exists in the '{long}' repository and cannot be overwritten \
         because the repository is immutable."
    );
    for (registry, code, name, message) in [
        ("ECR", 400, "ImageTagAlreadyExistsException", "tag v1 already exists"),
        ("ECR, a repository with a long name", 400, "TAG_INVALID", ecr.as_str()),
        ("Harbor", 412, "PRECONDITION", "Failed to process request due to 'b:v1' configured as"),
        ("Docker Hub", 400, "TAG_INVALID", "tag v1 is immutable and cannot be overwritten"),
        ("Docker Hub", 403, "DENIED", "this tag is immutable"),
        ("Docker Hub", 409, "CONFLICT", "Tag is Immutable"),
    ] {
        // Whether or not somebody has logged in: no other credential would help.
        for keys in [Keys::none(), Keys::one("robot", "pat").then("robot", "newer")] {
            let fake = Fake::start().await;
            let message = message.to_owned();
            fake.hook(move |_| Some(error(code, name, &message)));
            let repository = fake.repository("a/b");
            let session = session(fake.config(), Arc::clone(&keys), &repository, Access::Push);
            let outcome = put(&session, None).await.unwrap_err();
            let PutError::NotApplied(failure) = outcome else { panic!("{registry}: {outcome}") };
            assert_eq!(failure.reason(), Reason::TagImmutable, "{registry}");
            assert_eq!(failure.retry_class(), Retry::Never, "{registry}");
            assert!(keys.refused.lock().unwrap().is_empty(), "{registry}");
            assert!(fake.count("PUT", "/manifests/v1") <= 2, "{registry}");
        }
    }
    // Outside of the specification's envelope.
    for body in ["ImageTagAlreadyExistsException", r#"{"__type":"ImageTagAlreadyExistsException"}"#]
    {
        let (fake, outcome) = answered(move || with(400, &[], body)).await;
        let PutError::NotApplied(failure) = outcome else { panic!("{outcome}") };
        assert_eq!((failure.reason(), fake.seen().len()), (Reason::TagImmutable, 1), "{body}");
    }
}

#[tokio::test]
async fn a_plain_denial_is_no_immutable_tag() {
    for (code, name, message) in [
        (403, "DENIED", "permission_denied: write_package"),
        (403, "DENIED", "denied"),
        (403, "DENIED", "no write access to immutable/cannot-immutable:v1"),
        (403, "FORBIDDEN", "Not enough permissions to overwrite artifact 'v1/manifest.json'"),
    ] {
        let fake = Fake::start().await;
        fake.hook(move |seen| {
            let challenge = || with(401, &[("www-authenticate", "Basic realm=x")], "");
            let denied = || error(code, name, message);
            Some(if seen.authorization().is_empty() { challenge() } else { denied() })
        });
        let repository = fake.repository("immutable/cannot-immutable");
        let session = session(fake.config(), Keys::one("robot", "pat"), &repository, Access::Push);
        let outcome = put(&session, None).await.unwrap_err();
        let PutError::NotApplied(failure) = outcome else { panic!("{outcome}") };
        assert_eq!(failure.reason(), Reason::RegistryDenied, "{message}");
        assert_eq!(fake.count("PUT", "/manifests/v1"), 2, "{message}");
    }
}

#[tokio::test]
async fn a_5xx_may_have_been_applied_and_is_not_repeated() {
    for code in [500, 502, 503, 504] {
        let (fake, outcome) = answered(move || status(code)).await;
        assert!(matches!(outcome, PutError::Unknown(_)), "{code}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn another_digest_in_the_answer_leaves_it_open() {
    let other = Digest::sha256(b"other").to_string();
    let (_fake, outcome) =
        answered(move || with(201, &[("docker-content-digest", &other)], "")).await;
    let PutError::Unknown(failure) = outcome else { panic!("{outcome}") };
    assert_eq!(failure.reason(), Reason::DigestMismatch);
}

#[tokio::test]
async fn a_connection_lost_after_sending_leaves_it_open() {
    for answer in [b"".as_slice(), b"HTTP/1.1 20"] {
        let (config, repository, heard) = raw(answer).await;
        let session = session(config, Keys::none(), &repository, Access::Push);
        let outcome = put(&session, None).await.unwrap_err();
        assert!(matches!(outcome, PutError::Unknown(_)), "{outcome}");
        assert_eq!(heard.available_permits(), 1, "sent once");
    }
}

#[tokio::test]
async fn no_answer_in_time_leaves_it_open() {
    let (config, repository, _task) = silent().await;
    let session = session(config, Keys::none(), &repository, Access::Push);
    let begin = Instant::now();
    let outcome = put(&session, Some(begin + Duration::from_millis(300))).await.unwrap_err();
    assert!(matches!(outcome, PutError::Unknown(_)), "{outcome}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// A server that reads and never answers.
async fn silent() -> (RegistryConfig, Repository, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let config = RegistryConfig {
        plain_http: true,
        ..RegistryConfig::new(address.to_string().parse().unwrap())
    };
    (config, Repository::parse(&format!("{address}/a/b")).unwrap(), task)
}

#[tokio::test]
async fn nothing_is_sent_after_the_deadline() {
    let fake = Fake::start().await;
    let on_time = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Push);
    let outcome = put(&on_time, Some(Instant::now())).await.unwrap_err();
    assert!(matches!(outcome, PutError::NotApplied(_)), "{outcome}");
    assert!(fake.seen().is_empty());
    // A pause that ends after the deadline.
    fake.hook(|_| Some(with(429, &[("retry-after", "5")], "")));
    let registries = registries([fake.config()], Keys::none());
    let paused = registries.session(&fake.repository("a/b"), Access::Push).unwrap();
    let outcome = put(&paused, Some(Instant::now() + Duration::from_millis(200))).await;
    assert!(matches!(outcome, Err(PutError::NotApplied(_))));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_carried_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = RegistryConfig {
        plain_http: true,
        ..RegistryConfig::new(address.to_string().parse().unwrap())
    };
    let repository = Repository::parse(&format!("{address}/a/b")).unwrap();
    let session = session(config, Keys::none(), &repository, Access::Push);
    let outcome = put(&session, None).await.unwrap_err();
    let PutError::NotApplied(failure) = outcome else { panic!("{outcome}") };
    assert_eq!(failure.reason(), Reason::RegistryUnavailable);
}

#[tokio::test]
async fn a_put_that_finds_no_place_in_time_was_not_sent() {
    let fake = Fake::start().await;
    fake.silent_at("/v2/a/b/manifests/busy");
    let config = RegistryConfig { max_connections: Some(3), ..fake.config() };
    let registries = registries([config], Keys::none());
    let other = registries.session(&fake.repository("a/b"), Access::Pull).unwrap();
    // The one place for requests is taken by one that is never answered.
    let busy = tokio::spawn(async move { other.head(&tag("busy")).await });
    while fake.count("HEAD", "/manifests/busy") == 0 {
        tokio::task::yield_now().await;
    }
    let session = registries.session(&fake.repository("a/b"), Access::Push).unwrap();
    let outcome = put(&session, Some(Instant::now() + Duration::from_millis(50))).await;
    let Err(PutError::NotApplied(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.retry_class(), Retry::Backoff, "{failure}");
    assert!(failure.message().contains("before it was sent"), "{failure}");
    assert_eq!(fake.count("PUT", "/manifests/"), 0);
    busy.abort();
}
