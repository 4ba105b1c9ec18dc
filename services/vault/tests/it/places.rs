//! Where secrets are: engines of both versions, several mounts, namespaces.

use colophon_domain::{Reason, Retry};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::bench::{Bench, PAT, ask, vault, vault_by};

/// Mounts an engine in a namespace and writes `ghcr` there.
async fn engine(bench: &Bench, namespace: Option<&str>, mount: &str, version: &str, pat: &str) {
    let post = async |path: &str, body: Value| {
        bench.bao.request_in(namespace, Method::POST, path, Some(body)).await
    };
    let options = json!({ "type": "kv", "options": { "version": version } });
    post(&format!("sys/mounts/{mount}"), options).await.unwrap();
    let secret = json!({ "username": "robot", "token": pat });
    let (path, body) = match version {
        "1" => (format!("{mount}/ghcr"), secret),
        _ => (format!("{mount}/data/ghcr"), json!({ "data": secret })),
    };
    // KV version 2 upgrades itself after it was mounted, and refuses writes until it has.
    let since = std::time::Instant::now();
    while let Err(error) = post(&path, body.clone()).await {
        assert!(since.elapsed() < std::time::Duration::from_secs(30), "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A token that may read these paths.
async fn token_for(bench: &Bench, namespace: Option<&str>, paths: &[&str]) -> String {
    let rule = |path: &&str| format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
    let policy = paths.iter().map(rule).collect::<Vec<_>>().join("\n");
    let post = async |path: &str, body: Value| {
        bench.bao.request_in(namespace, Method::POST, path, Some(body)).await.unwrap()
    };
    post("sys/policies/acl/places", json!({ "policy": policy })).await;
    let made = post("auth/token/create", json!({ "policies": ["places"] })).await;
    made["auth"]["client_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn secrets_of_both_versions_are_read_and_read_anew() {
    let bench = Bench::start().await;
    engine(&bench, None, "old", "1", "in version 1").await;
    let token = token_for(&bench, None, &["old/ghcr", "old/none", "secret/data/ghcr"]).await;
    // All of Vault is of version 1, or one mount of it.
    let mut config = bench.token_config(&token);
    (config.mount, config.kv_version) = ("old".parse().unwrap(), 1.try_into().unwrap());
    for vault in [
        vault(config, "ghcr"),
        vault_by(bench.token_config(&token), "push = 'ghcr'\nmount = 'old'\nkv_version = 1"),
    ] {
        let first = ask(&vault, None).await.unwrap();
        assert_eq!(
            (first.username.as_str(), first.token.expose_secret()),
            ("robot", "in version 1")
        );
        bench.root(Method::POST, "old/ghcr", json!({ "username": "robot", "token": "new" })).await;
        let second = ask(&vault, Some(first.version)).await.unwrap();
        assert_eq!(second.token.expose_secret(), "new");
        bench
            .root(Method::POST, "old/ghcr", json!({ "username": "robot", "token": "in version 1" }))
            .await;
    }
    let both = vault(bench.token_config(&token), "ghcr");
    assert_eq!(ask(&both, None).await.unwrap().token.expose_secret(), PAT);

    let missing =
        vault_by(bench.token_config(&token), "push = 'none'\nmount = 'old'\nkv_version = 1");
    let failure = ask(&missing, None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::CredentialMissing, "{failure}");
    assert!(failure.message().contains("none at the mount old"), "{failure}");
}

#[tokio::test]
async fn a_wrong_version_is_told() {
    let bench = Bench::start().await;
    engine(&bench, None, "old", "1", "in version 1").await;
    let rules = ["push = 'ghcr'\nmount = 'old'", "push = 'ghcr'\nkv_version = 1"];
    // Whoever may read everything is told that nothing is there, others that they may not.
    let everything = token_for(&bench, None, &["*"]).await;
    for rule in rules {
        let failure =
            ask(&vault_by(bench.token_config(&everything), rule), None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::CredentialMissing, "{failure}");
        assert!(failure.remedy_text().unwrap().contains("kv_version"), "{failure}");
    }
    let little = token_for(&bench, None, &["old/ghcr", "secret/data/ghcr"]).await;
    for (rule, path) in rules.into_iter().zip(["old/data/ghcr", "secret/ghcr"]) {
        let failure = ask(&vault_by(bench.token_config(&little), rule), None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::VaultDenied, "{failure}");
        assert!(matches!(failure.retry_class(), Retry::Wait(_)));
        let remedy = failure.remedy_text().unwrap();
        assert!(remedy.contains("kv_version") && remedy.contains(path), "{failure}");
    }
}

#[tokio::test]
async fn a_namespace_is_sent_with_every_request() {
    let bench = Bench::start().await;
    bench.root(Method::POST, "sys/namespaces/team", json!({})).await;
    engine(&bench, Some("team"), "kv", "2", "in the namespace").await;
    let token = token_for(&bench, Some("team"), &["kv/data/ghcr"]).await;
    let mut config = bench.token_config(&token);
    config.namespace = Some("team".to_owned());
    config.mount = "kv".parse().unwrap();
    let credential = ask(&vault(config.clone(), "ghcr"), None).await.unwrap();
    assert_eq!(credential.token.expose_secret(), "in the namespace");
    assert_eq!(bench.proxy.count("x-vault-namespace: team"), bench.proxy.count("/v1/"));

    // A token of the namespace is nobody elsewhere.
    config.namespace = None;
    let failure = ask(&vault(config, "ghcr"), None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultDenied, "{failure}");
}

#[tokio::test]
async fn one_login_reads_in_the_namespaces_of_two_teams() {
    let bench = Bench::start().await;
    for team in ["team-a", "team-b"] {
        bench.root(Method::POST, &format!("sys/namespaces/{team}"), json!({})).await;
        engine(&bench, Some(team), "kv", "2", &format!("of {team}")).await;
    }
    let paths = ["team-a/kv/data/ghcr", "team-b/kv/data/ghcr"];
    let token = token_for(&bench, None, &paths).await;
    for team in ["team-a", "team-b"] {
        let rule = format!("push = 'ghcr'\nmount = 'kv'\nnamespace = '{team}'");
        let vault = vault_by(bench.token_config(&token), &rule);
        let credential = ask(&vault, None).await.unwrap();
        assert_eq!(credential.token.expose_secret(), format!("of {team}"));
        bench.bao.request_in(Some(team), Method::DELETE, "kv/data/ghcr", None).await.unwrap();
        let failure = ask(&vault, Some(credential.version)).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::CredentialMissing);
        assert!(failure.message().contains(&format!("namespace {team}")), "{failure}");
    }
}
