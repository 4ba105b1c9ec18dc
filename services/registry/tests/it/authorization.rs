//! Challenges, tokens, scopes, realms, and credentials that are refused or replaced.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::response::Response;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_domain::{Access, Digest, Reason};

use crate::{
    fake::{Fake, Seen, error, status, with},
    support::{Keys, copy, descriptor, image, registries, session, tag},
};

const SECRET: &str = "ghp_neverShown";

fn basic(username: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
}

/// A registry that wants tokens from its own `/token` and accepts those that `good` accepts.
fn wants_tokens(fake: &Fake, good: impl Fn(&str, &Seen) -> bool + Send + Sync + 'static) {
    let realm = fake.url("/token");
    fake.hook(move |seen| {
        if seen.path == "/token" {
            let scopes = seen.query("scope").join(" ");
            let token = serde_json::json!({"access_token": format!("opaque/{scopes}")});
            return Some(with(200, &[], token.to_string()));
        }
        let token = seen.authorization().strip_prefix("Bearer opaque/");
        match token {
            Some(token) if good(token, seen) => None,
            _ => Some(challenge(&realm)),
        }
    });
}

fn challenge(realm: &str) -> Response {
    let text = format!(r#"Basic realm="odd, one", Bearer realm="{realm}",service="fake""#);
    with(401, &[("www-authenticate", &text)], "")
}

#[tokio::test]
async fn basic_is_learnt_once_and_anonymous_goes_without() {
    let fake = Fake::start().await;
    let wanted = basic("robot", SECRET);
    fake.hook(move |seen| {
        let known = seen.authorization() == wanted;
        (!known).then(|| with(401, &[("www-authenticate", "Basic realm=x")], ""))
    });
    let registries = registries([fake.config()], Keys::one("robot", SECRET));
    for _ in 0..3 {
        let session = registries.session(&fake.repository("a/b"), Access::Pull).unwrap();
        assert_eq!(session.head(&tag("v1")).await.unwrap(), None);
    }
    // HEAD and, for the 404, GET; one of them twice because the first did not know the scheme.
    assert_eq!(fake.seen().len(), 7);
    let nobody = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    let failure = nobody.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnauthorized);
    assert!(failure.remedy_text().unwrap().contains("configure a credential"));
}

#[tokio::test]
async fn a_token_is_fetched_for_exactly_its_scopes_and_shared() {
    let fake = Fake::start().await;
    wants_tokens(&fake, |token, seen| {
        seen.path.starts_with("/v2/a/b/") && token == "repository:a/b:pull"
            || seen.path.starts_with("/v2/c/d/") && token == "repository:c/d:pull,push"
    });
    let registries = registries([fake.config()], Keys::one("robot", SECRET));
    let reader = registries.session(&fake.repository("a/b"), Access::Pull).unwrap();
    let writer = registries.session(&fake.repository("c/d"), Access::Push).unwrap();
    let what = tag("v1");
    let (first, second) = tokio::join!(reader.head(&what), reader.head(&what));
    assert!(first.unwrap().is_none() && second.unwrap().is_none());
    writer.head(&what).await.unwrap();
    let tokens: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 2, "one for each scope set, and none added up");
    assert!(tokens.iter().all(|seen| seen.authorization() == basic("robot", SECRET)));
    assert!(tokens.iter().all(|seen| seen.query("service") == ["fake"]));
    // The PAT goes to the realm only.
    let basic_elsewhere =
        fake.seen().iter().any(|s| s.path != "/token" && s.authorization().starts_with("Basic"));
    assert!(!basic_elsewhere);
}

#[tokio::test]
async fn an_unknown_realm_gets_no_credential_until_it_is_configured() {
    let (fake, realm) = (Fake::start().await, Fake::start().await);
    let text = realm.url("/token");
    fake.hook(move |seen| (seen.authorization() != "Bearer t").then(|| challenge(&text)));
    realm.hook(|_| Some(with(200, &[], r#"{"token":"t","expires_in":300}"#)));
    let repository = fake.repository("a/b");
    let keys = || Keys::one("robot", SECRET);
    let refused = session(fake.config(), keys(), &repository, Access::Pull);
    let failure = refused.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused);
    assert!(failure.remedy_text().unwrap().contains(&realm.address.to_string()));
    assert!(realm.seen().is_empty());
    let mut config = fake.config();
    config.token_realms = vec![realm.address.to_string()];
    let allowed = session(config, keys(), &repository, Access::Pull);
    assert_eq!(allowed.head(&tag("v1")).await.unwrap(), None);
    assert_eq!(realm.seen()[0].authorization(), basic("robot", SECRET));
}

#[tokio::test]
async fn an_identity_token_is_posted_and_falls_back_to_get() {
    for post_works in [true, false] {
        let fake = Fake::start().await;
        let realm = fake.url("/token");
        fake.hook(move |seen| {
            if seen.is("POST", "/token") {
                return Some(if post_works {
                    with(200, &[], r#"{"access_token":"t"}"#)
                } else {
                    status(404)
                });
            }
            if seen.is("GET", "/token") {
                return Some(with(200, &[], r#"{"token":"t"}"#));
            }
            (seen.authorization() != "Bearer t").then(|| challenge(&realm))
        });
        let keys = Keys::one("<token>", SECRET);
        let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Pull);
        assert_eq!(session.head(&tag("v1")).await.unwrap(), None);
        let post = fake.seen().into_iter().find(|seen| seen.is("POST", "/token")).unwrap();
        let form = String::from_utf8(post.body.unwrap().to_vec()).unwrap();
        assert!(form.contains("grant_type=refresh_token") && form.contains(SECRET), "{form}");
        assert_eq!(fake.count("GET", "/token"), usize::from(!post_works));
    }
}

#[tokio::test]
async fn a_token_that_expires_in_mid_copy_is_replaced() {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let config = source.add_blob("a/b", b"{}");
    let layer = source.add_blob("a/b", b"a layer");
    let image = image(&[descriptor("c", &config, 2), descriptor("l", &layer, 7)]);
    source.add_manifest("a/b", "v1", &image);
    // Every token is good for five requests.
    let (issued, used) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let realm = target.url("/token");
    let count = Arc::clone(&issued);
    target.hook(move |seen| {
        if seen.path == "/token" {
            used.store(0, Ordering::SeqCst);
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Some(with(200, &[], format!(r#"{{"token":"t{number}","expires_in":300}}"#)));
        }
        let current = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        let good = seen.authorization() == current && used.fetch_add(1, Ordering::SeqCst) < 5;
        (!good).then(|| challenge(&realm))
    });
    let registries = registries([source.config(), target.config()], Keys::one("u", SECRET));
    let from = registries.session(&source.repository("a/b"), Access::Pull).unwrap();
    let to = registries.session(&target.repository("c/d"), Access::Push).unwrap();
    let totals = copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(totals.blobs_copied, 2);
    assert!(count.load(Ordering::SeqCst) > 1);
    assert_eq!(target.blob("c/d", &layer).unwrap(), "a layer");
}

#[tokio::test]
async fn a_token_close_to_its_end_is_not_used() {
    let fake = Fake::start().await;
    let realm = fake.url("/token");
    fake.hook(move |seen| {
        if seen.path == "/token" {
            return Some(with(200, &[], r#"{"token":"t","expires_in":0}"#));
        }
        (seen.authorization() != "Bearer t").then(|| challenge(&realm))
    });
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    session.manifest(&tag("v1")).await.unwrap();
    session.manifest(&tag("v1")).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_wider_scope_is_asked_for_once() {
    for enough in ["repository:a/b:metadata,pull", "nothing"] {
        let fake = Fake::start().await;
        let realm = fake.url("/token");
        fake.hook(move |seen| {
            if seen.path == "/token" {
                let mut scopes = seen.query("scope");
                scopes.reverse();
                let token = serde_json::json!({"token": scopes.join(" ")});
                return Some(with(200, &[], token.to_string()));
            }
            let text = if seen.authorization().is_empty() {
                format!(r#"Bearer realm="{realm}""#)
            } else {
                format!(
                    r#"Bearer realm="{realm}",scope="repository:a/b:metadata repository:c/d:pull",error="insufficient_scope""#
                )
            };
            (seen.authorization() != format!("Bearer {enough}"))
                .then(|| with(401, &[("www-authenticate", &text)], ""))
        });
        let keys = Keys::one("u", SECRET);
        let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Pull);
        let answer = session.manifest(&tag("v1")).await;
        if enough == "nothing" {
            assert_eq!(answer.unwrap_err().reason(), Reason::RegistryDenied);
            assert_eq!(fake.count("GET", "/manifests/"), 3);
        } else {
            assert_eq!(answer.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_refused_credential_is_renewed_once() {
    let fake = Fake::start().await;
    let wanted = basic("robot", "new");
    fake.hook(move |seen| {
        (seen.authorization() != wanted)
            .then(|| with(401, &[("www-authenticate", "Basic realm=x")], ""))
    });
    let keys = Keys::one("robot", "old").then("robot", "new");
    let renewed = session(fake.config(), Arc::clone(&keys), &fake.repository("a/b"), Access::Pull);
    assert_eq!(renewed.manifest(&tag("v1")).await.unwrap(), None);
    assert_eq!(*keys.refused.lock().unwrap(), [1]);
    let keys = Keys::one("robot", SECRET);
    let stale = session(fake.config(), Arc::clone(&keys), &fake.repository("a/b"), Access::Pull);
    let failure = stale.manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnauthorized);
    assert_eq!(keys.refused.lock().unwrap().len(), 1);
    assert_eq!(fake.seen().len(), 5);
}

#[tokio::test]
async fn a_denial_names_what_is_missing_and_never_the_pat() {
    let fake = Fake::start().await;
    fake.hook(|seen| {
        // A registry that echoes what it got.
        Some(if seen.authorization().is_empty() {
            with(401, &[("www-authenticate", "Basic realm=x")], "")
        } else {
            error(403, "DENIED", &format!("no, {} {SECRET}", seen.authorization()))
        })
    });
    let keys = Keys::one("robot", SECRET);
    let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Push);
    let failure = session.preflight().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryDenied);
    let text = format!("{failure} {failure:?} {session:?}");
    assert!(text.contains("a/b") && text.contains("push"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn two_credentials_of_one_host_are_kept_apart() {
    let fake = Fake::start().await;
    let layer = fake.add_blob("team/src", b"layer");
    let image = image(&[descriptor("c", &layer, 5)]);
    fake.add_manifest("team/src", "v1", &image);
    let (reader, writer) = (basic("robot", "read-pat"), basic("robot", "write-pat"));
    let realm = fake.url("/token");
    fake.hook(move |seen| {
        if seen.path == "/token" {
            let scopes = seen.query("scope");
            let source = "repository:team/src:pull";
            let allowed = (seen.authorization() == reader && scopes == [source])
                || (seen.authorization() == writer && scopes == ["repository:team/dst:pull,push"]);
            return Some(if allowed {
                with(200, &[], serde_json::json!({"token": scopes.join(" ")}).to_string())
            } else {
                error(403, "DENIED", "no")
            });
        }
        let repository = if seen.path.contains("/dst/") { "dst:pull,push" } else { "src:pull" };
        (!seen.authorization().ends_with(repository)).then(|| challenge(&realm))
    });
    let keys = Keys::none().and("team/src pull", "robot", "read-pat").and(
        "team/dst push",
        "robot",
        "write-pat",
    );
    let registries = registries([fake.config()], Arc::clone(&keys));
    let from = registries.session(&fake.repository("team/src"), Access::Pull).unwrap();
    let to = registries.session(&fake.repository("team/dst"), Access::Push).unwrap();
    let totals = copy(&from, &to, &image.digest).await.unwrap();
    assert_eq!(totals.blobs_copied, 1, "the writer may not mount, so the blob is sent");
    assert_eq!(fake.blob("team/dst", &layer).unwrap(), "layer");
    assert!(keys.refused.lock().unwrap().is_empty(), "a refused mount refuses no credential");
    assert_eq!(Digest::sha256(b"layer"), layer);
}

#[tokio::test]
async fn a_remembered_realm_that_fails_is_forgotten_and_the_challenge_heard_anew() {
    let registry = Fake::start().await;
    let (first, second) = (Fake::start().await, Fake::start().await);
    for realm in [&first, &second] {
        realm.hook(|_| Some(with(200, &[], r#"{"token":"t","expires_in":0}"#)));
    }
    let mut config = registry.config();
    config.token_realms = [&first, &second].map(|realm| realm.address.to_string()).to_vec();
    let session =
        session(config, Keys::one("robot", SECRET), &registry.repository("a/b"), Access::Pull);
    let wants = |realm: String| {
        registry.hook(move |seen| (seen.authorization() != "Bearer t").then(|| challenge(&realm)));
    };
    // One that no configuration names, from a proxy that stood in for the registry a moment.
    wants("https://login.example.com/token".to_owned());
    let failure = session.manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused);
    wants(first.url("/token"));
    assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
    // The realm is moved; the old one is gone, knows nothing, or refuses everybody.
    for (code, old, new) in [(502, &first, &second), (404, &second, &first), (401, &first, &second)]
    {
        wants(new.url("/token"));
        old.hook(move |_| Some(status(code)));
        new.hook(|_| Some(with(200, &[], r#"{"token":"t","expires_in":0}"#)));
        assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None, "{code}");
    }
}

#[tokio::test]
async fn each_repository_has_a_realm_of_its_own() {
    let fake = Fake::start().await;
    let realms = [fake.url("/token/a"), fake.url("/token/c")];
    fake.hook(move |seen| {
        if let Some(team) = seen.path.strip_prefix("/token/") {
            return Some(with(200, &[], format!(r#"{{"token":"{team}"}}"#)));
        }
        let team = usize::from(!seen.path.contains("/a/"));
        let wanted = ["Bearer a", "Bearer c"][team];
        (seen.authorization() != wanted).then(|| challenge(&realms[team]))
    });
    let registries = registries([fake.config()], Keys::one("robot", SECRET));
    for _ in 0..2 {
        for name in ["a/b", "c/d"] {
            let session = registries.session(&fake.repository(name), Access::Pull).unwrap();
            assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
        }
    }
    assert_eq!((fake.count("GET", "/token/"), fake.count("GET", "/manifests/")), (2, 6));
}

#[tokio::test]
async fn a_stranger_who_has_a_credential_asks_for_the_challenge() {
    for hidden in [401, 403, 404] {
        let fake = Fake::start().await;
        let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
        fake.add_manifest("a/b", "v1", &image);
        let realm = fake.url("/token");
        fake.hook(move |seen| match (seen.path.as_str(), seen.authorization()) {
            ("/v2/", _) => Some(challenge(&realm)),
            ("/token", _) => Some(with(200, &[], r#"{"token":"t","expires_in":300}"#)),
            (_, "Bearer t") => None,
            // Without any challenge: strangers are not told what exists.
            _ => Some(status(hidden)),
        });
        let registries = registries([fake.config()], Keys::one("robot", SECRET));
        let session = registries.session(&fake.repository("a/b"), Access::Pull).unwrap();
        for _ in 0..2 {
            let found = session.observe(&tag("v1")).await.unwrap();
            assert_eq!(found.as_ref(), Some(&image.digest), "{hidden}");
        }
        assert_eq!((fake.count("GET", "/v2/"), fake.count("GET", "/token")), (1, 1));
    }
    // A registry without authentication is asked once, and then believed.
    let fake = Fake::start().await;
    let session =
        session(fake.config(), Keys::one("robot", SECRET), &fake.repository("a/b"), Access::Pull);
    for _ in 0..3 {
        assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
    }
    assert_eq!(fake.seen().iter().filter(|seen| seen.path == "/v2/").count(), 1);
}

#[tokio::test]
async fn a_realm_that_hangs_is_asked_once_by_all_who_wait() {
    let fake = Fake::start().await;
    let slow = Fake::start().await;
    let mut config = fake.config();
    config.request_timeout = std::time::Duration::from_millis(300);
    config.token_realms = vec![slow.address.to_string()];
    let realm = slow.url("/token");
    fake.hook(move |_| Some(challenge(&realm)));
    slow.hang();
    let session =
        session(config, Keys::one("robot", SECRET), &fake.repository("a/b"), Access::Pull);
    let what = tag("v1");
    let asks = (0..8).map(|_| session.manifest(&what));
    for answer in futures_util::future::join_all(asks).await {
        assert_eq!(answer.unwrap_err().reason(), Reason::RegistryUnavailable);
    }
    // One request and its repetitions for all, and once more after the challenge was heard anew;
    // one after the other would be four for each of the eight.
    assert!(slow.seen().len() <= 12, "{}", slow.seen().len());
}

#[tokio::test]
async fn a_token_too_long_for_a_header_is_refused() {
    let fake = Fake::start().await;
    let realm = fake.url("/token");
    fake.hook(move |seen| {
        let token = serde_json::json!({"token": "t".repeat(17 << 10)});
        Some(if seen.path == "/token" {
            with(200, &[], token.to_string())
        } else {
            challenge(&realm)
        })
    });
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    let failure = session.manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryProtocol);
}

#[tokio::test]
async fn no_refusal_and_no_address_repeats_a_secret() {
    for code in [307, 400, 403, 404, 418, 429, 503] {
        let fake = Fake::start().await;
        fake.hook(move |seen| {
            let Some((_, secret)) = seen.authorization().split_once(' ') else {
                return Some(with(401, &[("www-authenticate", "Basic realm=x")], ""));
            };
            let place = format!("https://{SECRET}.invalid/{secret}");
            let realm = format!(r#"Bearer realm="{place}""#);
            let headers = [
                ("location", place.as_str()),
                ("www-authenticate", realm.as_str()),
                ("retry-after", "60"),
            ];
            Some(with(code, &headers, format!("no: {} {SECRET}", seen.authorization())))
        });
        let keys = Keys::one("robot", SECRET);
        let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Push);
        let pair = STANDARD.encode(format!("robot:{SECRET}")).to_lowercase();
        let failures = [session.preflight().await.err(), session.manifest(&tag("v1")).await.err()];
        for failure in failures.into_iter().flatten() {
            let text = format!("{failure} {failure:?}").to_lowercase();
            assert!(!text.contains(&SECRET.to_lowercase()) && !text.contains(&pair), "{text}");
        }
    }
}

#[tokio::test]
async fn no_challenge_is_waited_for_beyond_the_deadline() {
    let fake = Fake::start().await;
    let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
    // Strangers are refused at once, and `/v2/` never answers.
    fake.hook(|_| Some(status(403)));
    fake.silent_at("/v2/");
    let keys = Keys::one("robot", SECRET);
    let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Push);
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(500);
    let put = session.put_manifest(&tag("v1"), &image, Some(deadline)).await;
    let Err(colophon_registry::PutError::NotApplied(failure)) = put else { panic!("{put:?}") };
    assert!(failure.message().contains("time for it was over"), "{failure}");
    assert_eq!(fake.count("PUT", "/manifests/"), 1);
}
