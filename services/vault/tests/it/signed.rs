//! Logging in with a token that somebody else has signed: a cluster's service account, and the
//! issuer of a CI system or a cloud.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Retry};
use colophon_testkit::{
    cluster::{ClusterApi, ServiceAccount},
    issuer::Issuer,
};
use colophon_vault::VaultConfig;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::bench::{Bench, PAT, ask, config, vault};

const LIFE: Duration = Duration::from_mins(10);
const POD: ServiceAccount<'_> = ServiceAccount { namespace: "colophon", name: "colophon" };
const LOGIN: &str = "/login";

/// A server that lets in the service account [`POD`], with tokens for the audience `vault`.
async fn kubernetes(bench: &Bench, cluster: &ClusterApi) {
    bench.root(Method::POST, "sys/auth/kubernetes", json!({ "type": "kubernetes" })).await;
    configure(bench, cluster, &cluster.url()).await;
    let role = json!({
        "bound_service_account_names": "colophon",
        "bound_service_account_namespaces": "colophon",
        "audience": "vault", "token_policies": "reader", "token_ttl": "5m",
    });
    bench.root(Method::POST, "auth/kubernetes/role/colophon", role).await;
}

async fn configure(bench: &Bench, cluster: &ClusterApi, url: &str) {
    let config = json!({
        "kubernetes_host": url, "kubernetes_ca_cert": cluster.ca_pem(),
        "token_reviewer_jwt": cluster.reviewer().expose_secret(), "disable_local_ca_jwt": true,
    });
    bench.root(Method::POST, "auth/kubernetes/config", config).await;
}

/// A server that lets in `sub = "release-service"` of an issuer, for the audience `vault`.
async fn jwt(bench: &Bench, issuer: &Issuer) {
    bench.root(Method::POST, "sys/auth/jwt", json!({ "type": "jwt" })).await;
    let config = json!({
        "jwt_validation_pubkeys": [issuer.public_pem()], "bound_issuer": issuer.name(),
    });
    bench.root(Method::POST, "auth/jwt/config", config).await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_subject": "release-service",
        "bound_audiences": ["vault"], "token_policies": "reader", "token_ttl": "5m",
    });
    bench.root(Method::POST, "auth/jwt/role/colophon", role).await;
}

fn claims() -> serde_json::Value {
    json!({ "sub": "release-service", "aud": "vault" })
}

/// A configuration that logs in by `method` as `role` with this token, and remembers nothing.
fn by(bench: &Bench, method: &str, role: &str, token: &SecretString, more: &str) -> VaultConfig {
    let file = bench.file("jwt", token.expose_secret());
    let auth =
        format!("method = '{method}'\nrole = '{role}'\ntoken_file = '{}'\n{more}", file.display());
    let pat_cache_ttl = Duration::from_nanos(1);
    VaultConfig { pat_cache_ttl, ..config(&bench.proxy.address, &auth) }
}

/// Asks with a login that must be refused: it waits, and shows nothing.
async fn denied(config: VaultConfig) -> Failure {
    let shown = match &config.auth {
        colophon_vault::AuthConfig::Kubernetes { token_file, .. }
        | colophon_vault::AuthConfig::Jwt { token_file, .. } => std::fs::read_to_string(token_file),
        _ => Ok(String::new()),
    };
    let failure = ask(&vault(config, "ghcr"), None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultDenied, "{failure}");
    assert!(matches!(failure.retry_class(), Retry::Wait(_)), "{failure:?}");
    let token = shown.unwrap_or_default();
    let said = format!("{failure} {failure:?}");
    assert!(token.is_empty() || !said.contains(&token), "{said}");
    failure
}

#[tokio::test]
async fn a_pod_logs_in_as_its_service_account_and_again_with_the_token_that_replaced_it() {
    let (bench, cluster) = (Bench::start().await, ClusterApi::start().await.unwrap());
    kubernetes(&bench, &cluster).await;
    let token = || cluster.token(POD, "vault", LIFE).unwrap();
    let (old, new) = (token(), token());
    let vault = vault(by(&bench, "kubernetes", "colophon", &old, "audience = 'vault'"), "ghcr");
    let credential = ask(&vault, None).await.unwrap();
    assert_eq!(credential.token.expose_secret(), PAT);
    ask(&vault, None).await.unwrap();
    assert_eq!((cluster.reviews(), bench.proxy.count(LOGIN)), (1, 1));

    bench.file("jwt", new.expose_secret());
    bench.root(Method::POST, "sys/leases/revoke-prefix/auth/kubernetes", json!({})).await;
    ask(&vault, None).await.unwrap();
    assert_eq!((cluster.reviews(), bench.proxy.count(LOGIN)), (2, 2));
    assert!(bench.proxy.saw(new.expose_secret()));
}

#[tokio::test]
async fn what_a_cluster_or_its_role_does_not_take_is_waited_for() {
    let (bench, cluster) = (Bench::start().await, ClusterApi::start().await.unwrap());
    kubernetes(&bench, &cluster).await;
    let k8s = |role: &str, token: &SecretString| by(&bench, "kubernetes", role, token, "");
    let token = |account, audience| cluster.token(account, audience, LIFE).unwrap();
    let other = |namespace, name| token(ServiceAccount { namespace, name }, "vault");
    let fresh = token(POD, "vault");
    for (role, token) in [
        ("colophon", other("colophon", "default")),
        ("colophon", other("elsewhere", "colophon")),
        ("colophon", token(POD, "https://kubernetes.default.svc")),
        ("colophon", cluster.ended_token(POD, "vault").unwrap()),
        ("nobody", fresh.clone()),
    ] {
        let failure = denied(k8s(role, &token)).await;
        let (message, remedy) = (failure.message(), failure.remedy_text().unwrap());
        assert!(message.contains("Kubernetes login at auth/kubernetes as"), "{failure}");
        assert!(remedy.contains(role) && remedy.contains("/jwt"), "{failure}");
    }
    // The very same source goes on when there is a token that is taken.
    let waiting = by(&bench, "kubernetes", "colophon", &other("elsewhere", "colophon"), "");
    let vault = vault(waiting, "ghcr");
    ask(&vault, None).await.unwrap_err();
    bench.file("jwt", fresh.expose_secret());
    ask(&vault, None).await.unwrap();

    cluster.delete(POD);
    denied(k8s("colophon", &fresh)).await;
}

#[tokio::test]
async fn a_token_for_somebody_else_is_not_given_to_vault() {
    let (bench, cluster) = (Bench::start().await, ClusterApi::start().await.unwrap());
    kubernetes(&bench, &cluster).await;
    let token = cluster.token(POD, "https://kubernetes.default.svc", LIFE).unwrap();
    for method in ["kubernetes", "jwt"] {
        for token in [&token, &SecretString::from("hvs.hunter2")] {
            let failure = denied(by(&bench, method, "colophon", token, "audience = 'vault'")).await;
            assert!(failure.message().contains("not for the audience vault"), "{failure}");
            assert!(failure.remedy_text().unwrap().contains("vault.auth.audience"));
        }
    }
    assert_eq!(bench.proxy.count("/v1/"), 0);
}

#[tokio::test]
async fn a_file_without_a_token_is_named() {
    let bench = Bench::start().await;
    for method in ["kubernetes", "jwt"] {
        for content in ["", "hunter2 hunter3", "hunter2\nhunter3"] {
            let config = by(&bench, method, "colophon", &content.to_owned().into(), "");
            let failure = denied(config).await;
            assert!(failure.message().contains("/jwt"), "{failure}");
        }
        let config = by(&bench, method, "colophon", &"x".to_owned().into(), "");
        std::fs::remove_file(bench.folder.path().join("jwt")).unwrap();
        assert!(denied(config).await.message().contains("cannot be read"));
    }
    assert_eq!(bench.proxy.count("/v1/"), 0);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_vault_is_waited_for() {
    let (bench, cluster) = (Bench::start().await, ClusterApi::start().await.unwrap());
    kubernetes(&bench, &cluster).await;
    let token = cluster.token(POD, "vault", LIFE).unwrap();
    let config = by(&bench, "kubernetes", "colophon", &token, "");
    // Nobody listens at port 1.
    configure(&bench, &cluster, "https://127.0.0.1:1").await;
    let failure = denied(config.clone()).await;
    assert!(failure.remedy_text().unwrap().contains("the API of the cluster"), "{failure}");
    assert_eq!(cluster.reviews(), 0);
    configure(&bench, &cluster, &cluster.url()).await;
    ask(&vault(config, "ghcr"), None).await.unwrap();
}

#[tokio::test]
async fn a_method_that_nobody_configured_is_waited_for() {
    let bench = Bench::start().await;
    bench.root(Method::POST, "sys/auth/kubernetes", json!({ "type": "kubernetes" })).await;
    let role = json!({
        "bound_service_account_names": "*", "bound_service_account_namespaces": "colophon",
    });
    bench.root(Method::POST, "auth/kubernetes/role/colophon", role).await;
    let token = Issuer::new("any").unwrap().token(LIFE, claims()).unwrap();
    let vault = vault(by(&bench, "kubernetes", "colophon", &token, ""), "ghcr");
    let failure = ask(&vault, None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultUnavailable, "{failure}");
    assert!(matches!(failure.retry_class(), Retry::Wait(_)));
    assert!(failure.remedy_text().unwrap().contains("configured"), "{failure}");
}

#[tokio::test]
async fn a_token_of_an_issuer_logs_in_and_its_successor_too() {
    let (bench, issuer) = (Bench::start().await, Issuer::new("https://ci.corp.lan").unwrap());
    jwt(&bench, &issuer).await;
    let token = || issuer.token(LIFE, claims()).unwrap();
    let (old, new) = (token(), token());
    let vault = vault(by(&bench, "jwt", "colophon", &old, "audience = 'vault'"), "ghcr");
    assert_eq!(ask(&vault, None).await.unwrap().token.expose_secret(), PAT);
    bench.file("jwt", &format!("{}\n", new.expose_secret()));
    bench.root(Method::POST, "sys/leases/revoke-prefix/auth/jwt", json!({})).await;
    ask(&vault, None).await.unwrap();
    assert_eq!(bench.proxy.count(LOGIN), 2);
    assert!(bench.proxy.saw(new.expose_secret()));
}

#[tokio::test]
async fn what_the_role_of_an_issuer_does_not_take_is_waited_for() {
    let (bench, issuer) = (Bench::start().await, Issuer::new("https://ci.corp.lan").unwrap());
    jwt(&bench, &issuer).await;
    let impostor = Issuer::new(issuer.name()).unwrap();
    let stranger = Issuer::new("https://elsewhere").unwrap();
    let good = issuer.token(LIFE, claims()).unwrap();
    for (role, token) in [
        ("colophon", issuer.token(LIFE, json!({ "sub": "somebody", "aud": "vault" })).unwrap()),
        ("colophon", issuer.token(LIFE, json!({ "sub": "release-service", "aud": "x" })).unwrap()),
        ("colophon", issuer.ended_token(Duration::from_mins(10), claims()).unwrap()),
        ("colophon", impostor.token(LIFE, claims()).unwrap()),
        ("colophon", stranger.token(LIFE, claims()).unwrap()),
        ("nobody", good.clone()),
    ] {
        let failure = denied(by(&bench, "jwt", role, &token, "")).await;
        assert!(failure.message().contains("JWT login at auth/jwt as"), "{failure}");
    }
    let config = by(&bench, "jwt", "colophon", &good, "mount = 'elsewhere'");
    assert!(denied(config).await.message().contains("auth/elsewhere"));
    ask(&vault(by(&bench, "jwt", "colophon", &good, ""), "ghcr"), None).await.unwrap();
}
