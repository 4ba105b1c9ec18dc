//! Certificates: whom Colophon trusts, and what it shows.

use std::path::{Path, PathBuf};

use colophon_domain::Reason;
use colophon_launcher::{Bao, BaoOptions, Tls};
use colophon_testkit::pki::Authority;
use colophon_vault::{Vault, VaultConfig, VaultHealth};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    bench::{ask, config, vault},
    outage::waits,
};

/// A server with TLS that has the secret `ghcr`, and a folder for files.
struct Secure {
    bao: Bao,
    folder: TempDir,
}

impl Secure {
    async fn start(options: BaoOptions) -> Self {
        let bao = Bao::start(options).await.unwrap();
        bao.put_secret("ghcr", json!({ "username": "robot", "token": "t" })).await.unwrap();
        Self { bao, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A configuration that trusts this authority.
    fn trusting(&self, ca_pem: &str) -> VaultConfig {
        let token = self.file("token", self.bao.root_token().expose_secret());
        let auth = format!("method = 'token'\ntoken_file = '{}'", token.display());
        VaultConfig {
            ca_file: Some(self.file("ca.pem", ca_pem)),
            pat_cache_ttl: std::time::Duration::from_nanos(1),
            ..config(&self.bao.address(), &auth)
        }
    }
}

fn issued(name: &str) -> Tls {
    Authority::new(name).unwrap().issue().unwrap()
}

/// Replaces a file as the kubelet does: by another one of the same name.
fn replace(path: &Path, content: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, content).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_named_and_only_then() {
    let tls = issued("vault CA");
    let secure =
        Secure::start(BaoOptions { tls: Some(tls.clone()), ..BaoOptions::default() }).await;
    ask(&vault(secure.trusting(&tls.ca_pem), "ghcr"), None).await.unwrap();

    let stranger = vault(secure.trusting(&issued("another CA").ca_pem), "ghcr");
    let failure = waits(&stranger, Reason::VaultUnavailable).await;
    assert!(failure.message().contains("certificate"), "{failure}");
    assert!(failure.remedy_text().unwrap().contains("ca_file"), "{failure}");
    let health = stranger.health().await;
    assert!(matches!(health, VaultHealth::Away(why) if why.contains("certificate")));
    // It is named in its file, and nobody starts anything anew.
    replace(&secure.folder.path().join("ca.pem"), &tls.ca_pem);
    ask(&stranger, None).await.unwrap();

    for (ca, name) in [("", "empty"), ("no pem", "no pem")] {
        let failure = Vault::new(secure.trusting(ca), [].into()).err().unwrap();
        assert_eq!(failure.field_name(), Some("vault.ca_file"), "{name}");
    }
}

#[tokio::test]
async fn a_vault_that_wants_a_certificate_gets_the_one_that_is_in_the_file_now() {
    let tls = issued("vault CA");
    let clients = Authority::new("clients CA").unwrap();
    let options = BaoOptions {
        tls: Some(tls.clone()),
        client: Some(clients.issue().unwrap()),
        ..BaoOptions::default()
    };
    let secure = Secure::start(options).await;
    let nameless = vault(secure.trusting(&tls.ca_pem), "ghcr");
    waits(&nameless, Reason::VaultUnavailable).await;

    let stranger = issued("another clients CA");
    let mut config = secure.trusting(&tls.ca_pem);
    let (cert, key) =
        (secure.file("cert.pem", &stranger.cert_pem), secure.folder.path().join("key.pem"));
    std::fs::write(&key, stranger.key_pem.expose_secret()).unwrap();
    config.client_cert_file = Some(cert.clone());
    config.client_key_file = Some(key.clone());
    let vault = vault(config.clone(), "ghcr");
    waits(&vault, Reason::VaultUnavailable).await;

    // The certificate comes first, and does not fit the old key for a moment.
    let own = clients.issue().unwrap();
    replace(&cert, &own.cert_pem);
    waits(&vault, Reason::VaultUnavailable).await;
    replace(&key, own.key_pem.expose_secret());
    ask(&vault, None).await.unwrap();

    for (cert_pem, key_pem, field) in [
        ("", own.key_pem.expose_secret(), "vault.client_cert_file"),
        (own.cert_pem.as_str(), "hunter2", "vault.client_key_file"),
        (own.cert_pem.as_str(), stranger.key_pem.expose_secret(), "vault.client_key_file"),
    ] {
        replace(&cert, cert_pem);
        replace(&key, key_pem);
        let failure = Vault::new(config.clone(), [].into()).err().unwrap();
        assert_eq!(failure.field_name(), Some(field), "{failure}");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
    std::fs::remove_file(&key).unwrap();
    let failure = Vault::new(config, [].into()).err().unwrap();
    assert_eq!(failure.field_name(), Some("vault.client_key_file"));
    assert!(failure.message().contains("key.pem"), "{failure}");
}
