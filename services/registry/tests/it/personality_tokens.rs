//! Mounts, and the tokens that they and everything else are asked for with: the scopes as they
//! are on the wire, two credentials of one host, and nothing shown to anybody else.

use std::{collections::BTreeSet, sync::Arc};

use colophon_domain::{Access, CopyTotals, Reason};
use colophon_testkit::{
    scripted::{Answer, Personality, Place, Seen, When},
    token_service::{Allowed, TokenRequest},
};
use futures_util::future::join_all;

use crate::{
    stage::{
        ALL, ARTIFACTORY, CORP_LAN, ECR, GHCR, HARBOR, HUB, Kind, READER, Stage, WRITER, basic,
        between,
    },
    support::{Keys, copy, registries, tag},
};

/// Copies within one registry, with each repository's own credential. What the writer may do
/// beside writing is for the caller to say.
async fn within(kind: Kind, more: &str) -> (Stage, CopyTotals, Arc<Keys>) {
    let stage = Stage::of(kind).await;
    let mut allowed = vec![Allowed::new(&stage.name("dst"), "pull,push")];
    if !more.is_empty() {
        allowed.push(Allowed::new(&stage.name("src"), more));
    }
    stage.fake.login(WRITER.0, WRITER.1, allowed);
    let root = stage.publish("src");
    let keys = stage.keys();
    let registries = registries([stage.config()], Arc::clone(&keys));
    let from = registries.session(&stage.repository("src"), Access::Pull).unwrap();
    let to = registries.session(&stage.repository("dst"), Access::Push).unwrap();
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    stage.holds("dst", &root, (&stage.fake, &stage.name("src")));
    assert_eq!(stage.fake.open_uploads(), 0, "{}", kind.0);
    (stage, totals, keys)
}

/// The scopes of one request for a token, in the order of their names.
fn scopes(request: &TokenRequest) -> Vec<&str> {
    let mut scopes: Vec<&str> = request.scopes.iter().map(String::as_str).collect();
    scopes.sort_unstable();
    scopes
}

const READS: [&str; 1] = ["repository:src/app:pull"];
const WRITES: [&str; 1] = ["repository:dst/app:pull,push"];
const MOUNTS: [&str; 2] = ["repository:dst/app:pull,push", "repository:src/app:pull"];

#[tokio::test]
async fn a_mount_that_is_allowed_sends_nothing_at_each() {
    for kind in ALL {
        let (stage, totals, _) = within(kind, "pull").await;
        assert_eq!((totals.blobs_mounted, totals.blobs_copied), (5, 0), "{}", kind.0);
        assert_eq!(stage.fake.bytes_received_in_all(), 0, "{}", kind.0);
        assert_eq!(stage.fake.count("GET", "/blobs/"), 0, "{}", kind.0);
        stage.was_shown_only(&[READER, WRITER]);
    }
}

#[tokio::test]
async fn a_mount_that_is_refused_is_an_ordinary_upload_at_each() {
    for kind in ALL {
        if kind.0 == "registry.example.com" {
            continue;
        }
        let (stage, totals, keys) = within(kind, "").await;
        assert_eq!((totals.blobs_mounted, totals.blobs_copied), (0, 5), "{}", kind.0);
        assert_eq!(stage.fake.bytes_received_in_all(), 300_010, "{}", kind.0);
        assert!(keys.refused.lock().unwrap().is_empty(), "no credential is to blame: {}", kind.0);
        stage.was_shown_only(&[READER, WRITER]);
        let posts = stage.fake.seen().into_iter().filter(|seen| seen.is("POST", "/uploads/"));
        let mounts = |seen: &Seen| !seen.query("mount").is_empty();
        let (tried, begun): (Vec<_>, Vec<_>) = posts.partition(mounts);
        // Where the mount began an upload, that one goes on; Harbor's 401 begins none.
        let anew = if kind.0 == HARBOR.0 { 5 } else { 0 };
        assert!(tried.len() >= 5, "{} {}", kind.0, tried.len());
        assert_eq!(begun.len(), anew, "{}", kind.0);
    }
}

#[tokio::test]
async fn every_token_is_for_exactly_what_one_request_needs() {
    for kind in [HUB, GHCR, HARBOR] {
        let (stage, _, _) = within(kind, "pull").await;
        let requests = stage.fake.token_requests();
        let asked: BTreeSet<(Option<&str>, Vec<&str>)> =
            requests.iter().map(|request| (request.username.as_deref(), scopes(request))).collect();
        let wanted = [
            (Some(READER.0), READS.to_vec()),
            (Some(WRITER.0), MOUNTS.to_vec()),
            (Some(WRITER.0), WRITES.to_vec()),
        ];
        assert_eq!(asked, BTreeSet::from(wanted), "{}", kind.0);
        assert_eq!(requests.len(), 3, "none is asked for twice: {}", kind.0);
        assert!(requests.iter().all(|request| request.service.as_deref() == Some("scripted")));
        // Each repository is asked with the token of its own credential.
        let tokens = stage.fake.authorizations(Place::Registry);
        assert_eq!(tokens.iter().filter(|shown| shown.starts_with("Bearer ")).count(), 3);
    }
}

#[tokio::test]
async fn a_mount_with_the_targets_credential_asks_to_read_the_source_and_is_not_let() {
    for kind in [HUB, GHCR, HARBOR] {
        let (stage, totals, _) = within(kind, "").await;
        assert_eq!(totals.blobs_copied, 5, "{}", kind.0);
        let requests = stage.fake.token_requests();
        let mounting: Vec<_> = requests.iter().filter(|asked| scopes(asked) == MOUNTS).collect();
        assert!(!mounting.is_empty(), "{}", kind.0);
        for request in mounting {
            assert_eq!(request.username.as_deref(), Some(WRITER.0), "{}", kind.0);
            assert_eq!((request.status, &*request.granted), (200, &[WRITES[0].to_owned()][..]));
        }
        let reading = requests.iter().filter(|request| scopes(request) == READS);
        assert!(reading.clone().count() > 0, "{}", kind.0);
        assert!(reading.clone().all(|request| request.username.as_deref() == Some(READER.0)));
    }
}

#[tokio::test]
async fn two_credentials_of_one_host_stay_with_their_repositories() {
    for kind in [ARTIFACTORY, ECR, CORP_LAN] {
        let (stage, totals, _) = within(kind, "").await;
        assert_eq!(totals.blobs_copied, 5, "{}", kind.0);
        for seen in stage.fake.seen() {
            let shown = seen.authorization();
            let wanted = if seen.path.contains("/src/app/") { READER } else { WRITER };
            let named = seen.place == Place::Registry && !shown.is_empty();
            assert!(!named || shown == basic(wanted), "{} {}", kind.0, seen.path);
        }
        assert_eq!(stage.fake.authorizations(Place::Registry).len(), 2, "{}", kind.0);
    }
}

#[tokio::test]
async fn two_credentials_of_one_repository_have_tokens_of_their_own() {
    for kind in [HUB, GHCR, HARBOR] {
        let stage = Stage::of(kind).await;
        stage.publish("src");
        for login in [READER, WRITER] {
            stage.fake.login(login.0, login.1, vec![Allowed::new(&stage.name("src"), "pull,push")]);
        }
        let keys = Keys::none()
            .and(&format!("{} pull", stage.name("src")), READER.0, READER.1)
            .and(&format!("{} push", stage.name("src")), WRITER.0, WRITER.1);
        let registries = registries([stage.config()], keys);
        // A session that writes lists tags with no more than the right to read.
        for access in [Access::Pull, Access::Push] {
            let session = registries.session(&stage.repository("src"), access).unwrap();
            assert!(session.tags(&mut |_| ()).await.unwrap(), "{}", kind.0);
        }
        let requests = stage.fake.token_requests();
        assert!(requests.iter().all(|request| scopes(request) == READS), "{}", kind.0);
        let asked: Vec<_> = requests.iter().map(|asked| asked.username.as_deref()).collect();
        assert_eq!(asked, [Some(READER.0), Some(WRITER.0)], "{}", kind.0);
    }
}

#[tokio::test]
async fn a_token_that_is_refused_in_mid_copy_is_replaced_once() {
    // Side by side, because each waits a moment before it sends again.
    join_all([HUB, GHCR, HARBOR].map(async |kind| {
        let target = Stage::of(kind).await;
        let source = Stage::with("plain.example.com", Personality::default()).await;
        let root = source.publish("src");
        // As if it had expired by the registry's clock.
        let expired = Answer::error(401, "UNAUTHORIZED", "authentication required");
        target.fake.script([
            (When::of("PUT", "/uploads/"), expired.clone(), 1),
            (When::of("PUT", "/manifests/sha256:"), expired, 1),
        ]);
        let (_all, from, to) = between(&source, &target);
        copy(&from, &to, &root.digest).await.unwrap();
        target.holds("dst", &root, (&source.fake, &source.name("src")));
        assert!(target.fake.token_requests().iter().all(|request| scopes(request) == WRITES));
        target.was_shown_only(&[WRITER]);
    }))
    .await;
}

#[tokio::test]
async fn a_realm_that_nobody_configured_gets_no_pat() {
    let stage = Stage::of(HUB).await;
    stage.publish("src");
    let mut config = stage.config();
    config.token_realms.clear();
    let registries = registries([config], stage.keys());
    let session = registries.session(&stage.repository("src"), Access::Pull).unwrap();
    let failure = session.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused, "{failure}");
    assert!(failure.remedy_text().unwrap().contains(&stage.fake.realm()));
    assert!(stage.fake.seen().iter().all(|seen| seen.authorization().is_empty()));
    assert!(stage.fake.seen().iter().all(|seen| seen.place == Place::Registry));
}

#[tokio::test]
async fn each_host_is_shown_what_it_is_for_and_no_pat_of_another() {
    for source_kind in ALL {
        for target_kind in [HUB, ECR] {
            if source_kind.0 == target_kind.0 {
                continue;
            }
            let (source, target) = (Stage::of(source_kind).await, Stage::of(target_kind).await);
            let root = source.publish("src");
            let (_all, from, to) = between(&source, &target);
            copy(&from, &to, &root.digest).await.unwrap();
            source.was_shown_only(&[READER]);
            target.was_shown_only(&[WRITER]);
            for (stage, foreign) in [(&source, basic(WRITER)), (&target, basic(READER))] {
                assert!(stage.fake.authorizations(Place::Storage).is_empty());
                for seen in stage.fake.seen() {
                    let all = format!("{:?} {}", seen.headers, seen.query);
                    assert!(!all.contains(&foreign), "{} {}", stage.host, seen.path);
                }
            }
        }
    }
}
