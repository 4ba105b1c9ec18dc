//! Secrets that are not as they should be, and secrets that must never be seen.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use colophon_domain::{Reason, Retry};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::bench::{Bench, PAT, ask, config, vault};

#[tokio::test]
async fn a_secret_that_is_missing_or_deleted_is_named() {
    let bench = Bench::start().await;
    bench.put("gone", json!({ "username": "u", "token": "t" })).await;
    bench.bao.delete_secret("gone").await.unwrap();
    for path in ["other", "gone"] {
        let token = bench.token(json!({})).await;
        let failure = ask(&vault(bench.token_config(&token), path), None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::CredentialMissing, "{failure}");
        assert_eq!(failure.retry_class(), Retry::Backoff);
        assert!(failure.message().contains(path) && failure.message().contains("mount secret"));
    }
}

#[tokio::test]
async fn a_field_that_is_missing_or_of_no_use_is_named_and_not_shown() {
    let bench = Bench::start().await;
    for (data, field) in [
        (json!({ "username": "u" }), "token"),
        (json!({ "token": "hunter2" }), "username"),
        (json!({ "username": "u", "token": "" }), "token"),
        (json!({ "username": "u", "token": 12345 }), "token"),
        (json!({ "username": "u", "token": null }), "token"),
        (json!({ "username": "u", "token": "hunter2\nhunter3" }), "token"),
        (json!({ "username": "a:hunter2", "token": "t" }), "username"),
        (json!({ "username": "", "token": "hunter2" }), "username"),
    ] {
        bench.put("bad", data.clone()).await;
        let token = bench.token(json!({})).await;
        let failure = ask(&vault(bench.token_config(&token), "bad"), None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::CredentialMissing, "{data}");
        assert_eq!(failure.retry_class(), Retry::Backoff);
        let message = failure.message();
        assert!(message.contains(field) && message.contains("bad"), "{message}");
        assert!(!format!("{failure:?}").contains("hunter"), "{failure:?}");
    }
    bench.put("bad", json!({ "username": "u\n", "token": "t\n" })).await;
    let token = bench.token(json!({})).await;
    let credential = ask(&vault(bench.token_config(&token), "bad"), None).await.unwrap();
    assert_eq!((credential.username.as_str(), credential.token.expose_secret()), ("u", "t"));
}

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_log_at_any_level_shows_a_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(log.clone())
        .finish();
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_secs(3), Duration::from_mins(10)).await;
    let token = bench.token(json!({})).await;
    let watched = tracing::subscriber::set_default(subscriber);
    let approle = vault(bench.approle_config(&role), "ghcr");
    let credential = ask(&approle, None).await.unwrap();
    ask(&vault(bench.token_config(&token), "ghcr"), None).await.unwrap();
    ask(&vault(bench.token_config(&token), "forbidden"), None).await.unwrap_err();
    ask(&vault(bench.token_config(&token), "other"), None).await.unwrap_err();
    // Two more logins, which are refused.
    let signed = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjb2xvcGhvbiJ9.c2lnbmVkLWJ5LW5vYm9keQ";
    for method in ["kubernetes", "jwt"] {
        let file = bench.file("jwt", signed).display().to_string();
        let auth = format!("method = '{method}'\nrole = 'r'\ntoken_file = '{file}'");
        ask(&vault(config(&bench.proxy.address, &auth), "ghcr"), None).await.unwrap_err();
        assert!(bench.proxy.saw(signed));
    }
    bench.proxy.until("renew-self", 1).await;
    drop(watched);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("logged in to Vault"), "the log is watched: {log}");
    assert!(!log.contains("ERROR"), "a failure is logged by whoever handles it: {log}");
    for secret in [PAT, &token, role.secret_id.expose_secret(), signed] {
        let shown = log.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None);
    }
    assert!(!format!("{credential:?}").contains(PAT));
}
