//! How often Vault is asked, and when a change of a secret is seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use colophon_domain::Reason;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::{
    bench::{Bench, PAT, ask, vault},
    proxy::Mode,
};

#[tokio::test]
async fn a_secret_is_read_once_while_it_is_fresh() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    let first = ask(&vault, None).await.unwrap();
    let second = ask(&vault, None).await.unwrap();
    assert_eq!((first.version, bench.reads()), (second.version, 1));
}

#[tokio::test]
async fn a_secret_is_read_again_when_it_is_not_fresh_any_more() {
    let bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.pat_cache_ttl = Duration::from_nanos(1);
    let vault = vault(config, "ghcr");
    let first = ask(&vault, None).await.unwrap();
    let second = ask(&vault, None).await.unwrap();
    assert_eq!((first.version, bench.reads()), (second.version, 2));
    bench.put("ghcr", json!({ "username": "robot", "token": "new" })).await;
    assert!(ask(&vault, None).await.unwrap().version > second.version);
}

#[tokio::test]
async fn a_refused_credential_is_read_again_at_once() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    let old = ask(&vault, None).await.unwrap();
    bench.put("ghcr", json!({ "username": "robot", "token": "rotated" })).await;
    assert_eq!(ask(&vault, None).await.unwrap().token.expose_secret(), PAT);
    let new = ask(&vault, Some(old.version)).await.unwrap();
    assert_eq!(new.token.expose_secret(), "rotated");
    assert!(new.version > old.version);
    // Whoever still complains about the old one gets the new one from memory.
    assert_eq!(ask(&vault, Some(old.version)).await.unwrap().version, new.version);
    assert_eq!(bench.reads(), 2);
}

#[tokio::test]
async fn a_pat_that_is_rotated_soon_after_another_refusal_is_read_when_the_interval_is_over() {
    let bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.reread_interval = Duration::from_secs(2);
    let vault = vault(config, "ghcr");
    let old = ask(&vault, None).await.unwrap().version;
    // Somebody was not allowed to do something, which no other PAT helps.
    let refused = Instant::now();
    assert_eq!(ask(&vault, Some(old)).await.unwrap().version, old);
    bench.put("ghcr", json!({ "username": "robot", "token": "rotated" })).await;
    let versions = crowd(&vault, Some(old)).await.join_all().await;
    assert!(refused.elapsed() >= Duration::from_secs(2));
    let new = ask(&vault, None).await.unwrap();
    assert_eq!(new.token.expose_secret(), "rotated");
    assert!(versions.iter().all(|version| *version == Ok(new.version)), "{versions:?}");
    assert_eq!(bench.reads(), 3);
}

#[tokio::test]
async fn a_refused_credential_is_not_read_often_and_others_get_it_meanwhile() {
    let bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.reread_interval = Duration::from_mins(10);
    let vault = vault(config, "ghcr");
    let version = ask(&vault, None).await.unwrap().version;
    assert_eq!(ask(&vault, Some(version)).await.unwrap().version, version);
    let mut waiting = crowd(&vault, Some(version)).await;
    for _ in 0..5 {
        assert_eq!(ask(&vault, None).await.unwrap().version, version);
    }
    let early = tokio::time::timeout(Duration::from_millis(100), waiting.join_next()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(bench.reads(), 2);
}

/// Starts that many callers and returns when each of them waits for Vault.
async fn crowd(
    vault: &Arc<colophon_vault::Vault>,
    refused: Option<u64>,
) -> tokio::task::JoinSet<Result<u64, Reason>> {
    let started = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (vault, started) = (vault.clone(), started.clone());
        callers.spawn(async move {
            // On a runtime of one thread nothing comes between this and the first wait.
            started.fetch_add(1, Ordering::Relaxed);
            let answer = ask(&vault, refused).await;
            answer.map(|credential| credential.version).map_err(|failure| failure.reason())
        });
    }
    while started.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }
    callers
}

#[tokio::test]
async fn many_callers_share_one_login_and_one_reading() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let vault = vault(bench.approle_config(&role), "ghcr");
    bench.proxy.set(Mode::Hold);
    let callers = crowd(&vault, None).await;
    bench.proxy.set(Mode::Forward);
    let versions = callers.join_all().await;
    assert!(versions.iter().all(|version| version.is_ok() && *version == versions[0]));
    assert_eq!((bench.proxy.count("approle/login"), bench.reads()), (1, 1));

    // For all whose credential was refused one more; and because it brings nothing new, a last
    // one for those whose refusal is younger than its beginning.
    bench.proxy.set(Mode::Hold);
    let callers = crowd(&vault, versions[0].ok()).await;
    bench.proxy.set(Mode::Forward);
    assert_eq!(callers.join_all().await, versions);
    assert_eq!(bench.reads(), 3);
}

#[tokio::test]
async fn many_callers_share_one_failure() {
    let bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.pat_cache_ttl = Duration::from_nanos(1);
    let vault = vault(config, "ghcr");
    ask(&vault, None).await.unwrap();
    bench.proxy.set(Mode::Hold);
    let callers = crowd(&vault, None).await;
    bench.proxy.set(Mode::Answer("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".into()));
    for answer in callers.join_all().await {
        assert_eq!(answer, Err(Reason::VaultUnavailable));
    }
    assert_eq!(bench.reads(), 2);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_take_the_others_with_it() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    bench.proxy.set(Mode::Hold);
    let first = tokio::spawn({
        let vault = vault.clone();
        async move { ask(&vault, None).await.map(drop) }
    });
    bench.proxy.until("lookup-self", 1).await;
    let second = tokio::spawn(async move { ask(&vault, None).await.map(drop) });
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    bench.proxy.set(Mode::Forward);
    second.await.unwrap().unwrap();
}
