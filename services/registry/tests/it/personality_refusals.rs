//! What registries refuse, each in its own words, and what is made of it: tags that stay, rights
//! that are missing, repositories that must exist, and pauses.

use std::time::{Duration, Instant};

use colophon_domain::{Access, Digest, Failure, Reason, Repository, Retry};
use colophon_registry::{PutError, RegistryConfig};
use colophon_testkit::{
    scripted::{Answer, Personality, When},
    token_service::Allowed,
};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    stage::{
        ALL, ARTIFACTORY, CORP_LAN, DISTRIBUTION, ECR, GHCR, HARBOR, HUB, Kind, READER, Stage,
        WRITER, between,
    },
    support::{Keys, by, copy, registries, tag},
};

#[tokio::test]
async fn a_frozen_tag_is_known_before_a_put_and_told_as_one_that_cannot_move() {
    for kind in [HUB, HARBOR, ECR] {
        let stage = Stage::of(kind).await;
        let root = stage.publish("dst");
        stage.fake.freeze(&stage.name("dst"));
        let keys = stage.keys();
        let registries = registries([stage.config()], keys.clone());
        let session = registries.session(&stage.repository("dst"), Access::Push).unwrap();
        let there = session.observe(&tag("v1")).await.unwrap();
        assert_eq!(there.as_ref(), Some(&root.digest), "nothing is left to do: {}", kind.0);
        let body: serde_json::Value = serde_json::from_slice(&root.bytes).unwrap();
        let child = body["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        let other = session.manifest(&by(&child)).await.unwrap().unwrap();
        let refused = session.put_manifest(&tag("v1"), &other, None).await.unwrap_err();
        let PutError::NotApplied(failure) = refused else { panic!("{}: {refused}", kind.0) };
        assert_eq!(failure.reason(), Reason::TagImmutable, "{failure}");
        assert_eq!(failure.retry_class(), Retry::Never, "{failure}");
        assert!(keys.refused.lock().unwrap().is_empty(), "no other credential would help");
        assert_eq!(stage.fake.tag(&stage.name("dst"), "v1").unwrap(), root.digest.as_str());
        assert_eq!(stage.fake.count("PUT", "/manifests/v1"), 1, "{}", kind.0);
        // A tag that is new may be put all the same.
        session.put_manifest(&tag("v2"), &other, None).await.unwrap();
    }
}

/// The failure of trying an upload as one who may only read there.
async fn may_not_push(kind: Kind) -> Failure {
    let stage = Stage::of(kind).await;
    stage.fake.login(WRITER.0, WRITER.1, vec![Allowed::new(&stage.name("dst"), "pull")]);
    let failure = stage.writes().preflight().await.unwrap_err();
    assert_eq!(stage.fake.open_uploads(), 0, "{}", kind.0);
    stage.was_shown_only(&[WRITER]);
    failure
}

/// The failure of looking up a tag as one who may read nothing there.
async fn may_not_pull(kind: Kind) -> Failure {
    let stage = Stage::with(kind.0, Personality { anonymous_pull: false, ..kind.1() }).await;
    stage.fake.login(READER.0, READER.1, Vec::new());
    stage.publish("src");
    let failure = stage.reads().head(&tag("v1")).await.unwrap_err();
    stage.was_shown_only(&[READER]);
    failure
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_as_the_registry_calls_it() {
    let unknown = ("permission to pull", "permission to push");
    for (kind, (pull, push)) in [
        (HUB, ("permission Read, and", "Read & Write")),
        (GHCR, ("read:packages", "write:packages")),
        (ARTIFACTORY, unknown),
        (HARBOR, unknown),
        (ECR, ("ecr:BatchGetImage", "ecr:InitiateLayerUpload")),
        (CORP_LAN, unknown),
    ] {
        let (reading, writing) = (may_not_pull(kind).await, may_not_push(kind).await);
        for (failure, words, name) in [(reading, pull, "src/app"), (writing, push, "dst/app")] {
            assert_eq!(failure.reason(), Reason::RegistryDenied, "{} {failure}", kind.0);
            let remedy = failure.remedy_text().unwrap();
            assert!(remedy.contains(words) && remedy.contains(kind.0), "{remedy}");
            let text = format!("{failure} {failure:?} {remedy}");
            assert!(text.contains(name) && !text.contains("PatNeverShown"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_pat_that_is_wrong_is_told_apart_from_a_right_that_is_missing() {
    for kind in [HUB, GHCR, ARTIFACTORY, HARBOR, ECR, CORP_LAN] {
        let stage = Stage::of(kind).await;
        let keys = Keys::one(WRITER.0, "another_PatNeverShown");
        let session = registries([stage.config()], keys.clone());
        let session = session.session(&stage.repository("dst"), Access::Push);
        let failure = session.unwrap().preflight().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryUnauthorized, "{} {failure}", kind.0);
        assert!(failure.remedy_text().unwrap().contains("not expired"), "{}", kind.0);
        assert!(!format!("{failure:?}").contains("another_Pat"), "{}", kind.0);
        assert_eq!(keys.refused.lock().unwrap().len(), 1, "a newer one is asked for: {}", kind.0);
    }
}

#[tokio::test]
async fn a_repository_that_must_exist_first_is_named() {
    let stage = Stage::of(ECR).await;
    stage.fake.login(WRITER.0, WRITER.1, vec![Allowed::new("*", "pull,push")]);
    let registries = registries([stage.config()], Keys::one(WRITER.0, WRITER.1));
    let new = Repository::parse(&format!("{}/new/app", ECR.0)).unwrap();
    let session = registries.session(&new, Access::Push).unwrap();
    assert_eq!(session.head(&tag("v1")).await.unwrap(), None);
    let root = stage.publish("src");
    let put = session.put_manifest(&tag("v1"), &root, None).await.unwrap_err().into_failure();
    for failure in [session.preflight().await.unwrap_err(), put] {
        assert_eq!(failure.reason(), Reason::RepositoryNotFound, "{failure}");
        let remedy = failure.remedy_text().unwrap();
        assert!(remedy.starts_with(&format!("create {}/new/app first", ECR.0)), "{remedy}");
    }
}

#[tokio::test]
async fn a_name_without_artifactorys_key_is_refused_in_its_words() {
    let stage = Stage::of(ARTIFACTORY).await;
    stage.fake.login(WRITER.0, WRITER.1, vec![Allowed::new("*", "pull,push")]);
    let registries = registries([stage.config()], Keys::one(WRITER.0, WRITER.1));
    let name = Repository::parse(&format!("{}/acme/app", ARTIFACTORY.0)).unwrap();
    let session = registries.session(&name, Access::Push).unwrap();
    for failure in
        [session.preflight().await.unwrap_err(), session.head(&tag("v1")).await.unwrap_err()]
    {
        let text = failure.to_string();
        assert!(text.contains("Unsupported docker v2 repository request for 'acme/app'"), "{text}");
        assert_eq!(failure.retry_class(), Retry::Never, "{text}");
    }
}

#[tokio::test]
async fn a_short_pause_in_plain_text_is_waited_out_whatever_was_asked() {
    let paused = |(kind, method, part): (Kind, &'static str, &'static str)| async move {
        let target = Stage::of(kind).await;
        let source = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        target.fake.script([(When::of(method, part), Personality::throttled("1"), 1)]);
        let (_all, from, to) = between(&source, &target);
        let begin = Instant::now();
        copy(&from, &to, &root.digest).await.unwrap();
        to.put_manifest(&tag("v1"), &root, None).await.unwrap();
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(1), "{} {method} {part} {took:?}", kind.0);
        target.holds("dst", &root, (&source.fake, &source.name("src")));
        assert_eq!(target.fake.tag(&target.name("dst"), "v1").unwrap(), root.digest.as_str());
        target.was_shown_only(&[WRITER]);
    };
    // Side by side, so that all of them take one pause.
    let everywhere = ALL.map(|kind| (kind, "PUT", "/manifests/v1"));
    let others = [
        (HUB, "HEAD", "/manifests/"),
        (HUB, "HEAD", "/blobs/"),
        (HUB, "POST", "/blobs/uploads/"),
        (HUB, "PUT", "/blobs/uploads/"),
        (HUB, "PUT", "/manifests/sha256:"),
        (HUB, "GET", "/token"),
        (GHCR, "GET", "/token"),
        (DISTRIBUTION, "PUT", "/blobs/uploads/"),
    ];
    join_all(everywhere.into_iter().chain(others).map(paused)).await;
}

#[tokio::test]
async fn a_long_pause_is_told_with_its_time_and_holds_for_every_repository_of_the_host() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        let rows = [(When::of("GET", "/tags/list"), Personality::throttled("60"), 1)];
        stage.fake.script(rows);
        let registries = registries([stage.config()], stage.keys());
        let session = |short, access| registries.session(&stage.repository(short), access).unwrap();
        let reads = session("src", Access::Pull);
        let failure = reads.tags(&mut |_| ()).await.unwrap_err();
        let asked = stage.fake.seen().len();
        let other = session("dst", Access::Push).preflight().await.unwrap_err();
        for failure in [failure, other] {
            assert_eq!(failure.reason(), Reason::RateLimited, "{} {failure}", kind.0);
            let Retry::Wait(left) = failure.retry_class() else { panic!("{failure:?}") };
            let wanted = Duration::from_secs(50)..=Duration::from_mins(1);
            assert!(wanted.contains(&left), "{} {left:?}", kind.0);
        }
        assert_eq!(stage.fake.seen().len(), asked, "the other was not sent at all: {}", kind.0);
    }
}

#[tokio::test]
async fn docker_hubs_429_with_bare_line_ends_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _head = stream.read(&mut [0; 16384]).await.unwrap();
            let answer = "HTTP/1.1 429 Too Many Requests\nCache-Control: no-cache\n\
                          Connection: close\nContent-Type: text/plain\nRetry-After: 60\n\n\
                          Too Many Requests (HAP429).\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let config = RegistryConfig {
        endpoint: Some(address),
        plain_http: true,
        ..RegistryConfig::new("docker.io".parse().unwrap())
    };
    let registries = registries([config], Keys::one(READER.0, READER.1));
    let repository = Repository::parse("docker.io/acme/app").unwrap();
    let session = registries.session(&repository, Access::Pull).unwrap();
    let failure = session.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RateLimited, "{failure}");
    let Retry::Wait(left) = failure.retry_class() else { panic!("{failure:?}") };
    assert!(left > Duration::from_secs(50), "{left:?}");
    answers.abort();
}

#[tokio::test]
async fn a_wrong_digest_in_an_answer_is_seen_at_each() {
    for kind in ALL {
        let stage = Stage::of(kind).await;
        let root = stage.publish("dst");
        let other = Digest::sha256(b"other").to_string();
        let lie = Answer::change(move |mut answer| {
            answer.headers_mut().insert("docker-content-digest", other.parse().unwrap());
            answer
        });
        stage.fake.script([(When::of("PUT", "/manifests/v2"), lie, 1)]);
        let session = stage.writes();
        session.observe(&tag("v1")).await.unwrap();
        let refused = session.put_manifest(&tag("v2"), &root, None).await.unwrap_err();
        assert!(matches!(refused, PutError::Unknown(_)), "{} {refused}", kind.0);
        assert_eq!(refused.into_failure().reason(), Reason::DigestMismatch, "{}", kind.0);
    }
}
