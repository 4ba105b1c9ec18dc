//! Logging in, staying logged in, and logging in anew.

use std::time::Duration;

use colophon_domain::{Reason, Retry};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::bench::{Bench, PAT, ask, config, vault};

const LOGIN: &str = "/v1/auth/approle/login";
const RENEWAL: &str = "/v1/auth/token/renew-self";

/// A time after which nothing read is remembered any more.
fn uncached(mut config: colophon_vault::VaultConfig) -> colophon_vault::VaultConfig {
    config.pat_cache_ttl = Duration::from_nanos(1);
    config
}

#[tokio::test]
async fn a_token_from_a_file_reads_a_secret() {
    let bench = Bench::start().await;
    let token = bench.token(json!({})).await;
    let vault = vault(bench.token_config(&format!("{token}\n")), "ghcr");
    let credential = ask(&vault, None).await.unwrap();
    assert_eq!(credential.username, "robot");
    assert_eq!(credential.token.expose_secret(), PAT);
}

#[tokio::test]
async fn a_token_from_the_environment_reads_a_secret() {
    const TOKEN: &str = "COLOPHON_TEST_VAULT_TOKEN";
    const ADDRESS: &str = "COLOPHON_TEST_VAULT_ADDRESS";
    let auth = format!("method = 'token'\ntoken_env = '{TOKEN}'");
    if let Ok(address) = std::env::var(ADDRESS) {
        ask(&vault(config(&address, &auth), "ghcr"), None).await.unwrap();
        return;
    }
    let bench = Bench::start().await;
    // The environment is set for a copy of this process: changing one's own is not safe.
    let copy = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "login::a_token_from_the_environment_reads_a_secret"])
        .env(TOKEN, bench.token(json!({})).await)
        .env(ADDRESS, &bench.proxy.address)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stdout));
    assert_eq!(bench.reads(), 1);
    let failure = ask(&vault(config(&bench.proxy.address, &auth), "ghcr"), None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultDenied);
    assert!(failure.message().contains(TOKEN));
}

#[tokio::test]
async fn an_approle_logs_in_once_and_renews_its_token() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_secs(6), Duration::from_mins(10)).await;
    let vault = vault(uncached(bench.approle_config(&role)), "ghcr");
    ask(&vault, None).await.unwrap();
    // Two renewals later the first life of the token is over.
    bench.proxy.until(RENEWAL, 2).await;
    ask(&vault, None).await.unwrap();
    assert_eq!(bench.proxy.count(LOGIN), 1);
}

#[tokio::test]
async fn a_token_near_its_greatest_age_is_replaced_before_it_ends() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_secs(3), Duration::from_secs(3)).await;
    let vault = vault(uncached(bench.approle_config(&role)), "ghcr");
    ask(&vault, None).await.unwrap();
    bench.proxy.until(LOGIN, 2).await;
    assert!(bench.proxy.saw(RENEWAL));
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_replaced_before_it_ends() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_secs(3), Duration::from_mins(10)).await;
    let path = "auth/approle/role/reader";
    bench.root(Method::POST, path, json!({ "token_type": "batch" })).await;
    let vault = vault(uncached(bench.approle_config(&role)), "ghcr");
    ask(&vault, None).await.unwrap();
    bench.proxy.until(LOGIN, 2).await;
    ask(&vault, None).await.unwrap();
    assert!(!bench.proxy.saw(RENEWAL));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_and_the_reading_repeated() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let vault = vault(uncached(bench.approle_config(&role)), "ghcr");
    ask(&vault, None).await.unwrap();
    bench.root(Method::POST, "sys/leases/revoke-prefix/auth/approle", json!({})).await;
    ask(&vault, None).await.unwrap();
    assert_eq!(bench.proxy.count(LOGIN), 2);
}

#[tokio::test]
async fn a_secret_id_that_ran_out_is_read_anew_from_its_file() {
    let bench = Bench::start().await;
    let old = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let new = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let body = json!({ "secret_id": old.secret_id.expose_secret() });
    bench.root(Method::POST, "auth/approle/role/reader/secret-id/destroy", body).await;
    let vault = vault(uncached(bench.approle_config(&old)), "ghcr");
    let failure = ask(&vault, None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultDenied);
    assert!(failure.message().contains("auth/approle"), "{failure}");
    assert!(failure.remedy_text().unwrap().contains("secret-id"), "{failure}");
    bench.file("secret-id", new.secret_id.expose_secret());
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn a_token_file_that_was_rotated_is_read_anew() {
    let bench = Bench::start().await;
    let (old, new) = (bench.token(json!({})).await, bench.token(json!({})).await);
    let vault = vault(uncached(bench.token_config(&old)), "ghcr");
    ask(&vault, None).await.unwrap();
    bench.revoke(&old).await;
    assert_eq!(ask(&vault, None).await.unwrap_err().reason(), Reason::VaultDenied);
    bench.file("token", &new);
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn a_token_with_a_number_of_uses_works_that_often() {
    let bench = Bench::start().await;
    let token = bench.token(json!({ "num_uses": 3, "renewable": false })).await;
    let vault = vault(uncached(bench.token_config(&token)), "ghcr");
    // One use goes into asking how long the token lives.
    ask(&vault, None).await.unwrap();
    ask(&vault, None).await.unwrap();
    assert_eq!(ask(&vault, None).await.unwrap_err().reason(), Reason::VaultDenied);
    bench.file("token", &bench.token(json!({ "num_uses": 3, "renewable": false })).await);
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn a_token_without_the_right_to_look_at_itself_reads_all_the_same() {
    let bench = Bench::start().await;
    let token = bench.token(json!({ "no_default_policy": true })).await;
    ask(&vault(bench.token_config(&token), "ghcr"), None).await.unwrap();
}

#[tokio::test]
async fn a_file_that_holds_no_token_is_named_and_not_shown() {
    let bench = Bench::start().await;
    for content in ["", "\n", "hunter2\nhunter3\n", "hunter2 hunter3", "hunter2\0"] {
        let vault = vault(bench.token_config(content), "ghcr");
        let failure = ask(&vault, None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::VaultDenied, "{content:?}");
        assert!(matches!(failure.retry_class(), Retry::Wait(_)));
        assert!(failure.message().contains("/token"), "{failure}");
        assert!(!format!("{failure:?}").contains("hunter"), "{failure:?}");
    }
    let config = bench.token_config("x");
    std::fs::remove_file(bench.folder.path().join("token")).unwrap();
    let failure = ask(&vault(config, "ghcr"), None).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultDenied);
    assert_eq!(bench.proxy.count("/v1/"), 0);
}

#[tokio::test]
async fn a_forbidden_path_waits_and_does_not_log_in_again_and_again() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let mut config = bench.approle_config(&role);
    config.reread_interval = Duration::from_mins(1);
    let vault = vault(config, "forbidden");
    for _ in 0..4 {
        let failure = ask(&vault, None).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::VaultDenied);
        assert!(matches!(failure.retry_class(), Retry::Wait(_)));
        assert!(failure.message().contains("forbidden"), "{failure}");
        assert!(failure.remedy_text().unwrap().contains("secret/data/forbidden"), "{failure}");
    }
    // The first, and one because the token might have been to blame.
    assert_eq!(bench.proxy.count(LOGIN), 2);
}

#[tokio::test]
async fn the_background_task_ends_with_the_source() {
    let bench = Bench::start().await;
    let role = bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
    let idle = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut config = uncached(bench.approle_config(&role));
    // Straight to the server: the proxy's own tasks would be counted.
    config.address = bench.bao.address().parse().unwrap();
    let before = idle();
    let vault = vault(config, "ghcr");
    ask(&vault, None).await.unwrap();
    assert!(idle() > before);
    drop(vault);
    let since = std::time::Instant::now();
    while idle() > before {
        assert!(since.elapsed() < Duration::from_secs(30), "{} tasks are left", idle());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
