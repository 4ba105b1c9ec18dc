//! What the tests share: a Vault with a secret in it, and configurations for it.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use colophon_domain::{Access, Credential, CredentialSource as _, Failure, Repository};
use colophon_launcher::{AppRole, Bao, BaoOptions, Role};
use colophon_vault::{CredentialRule, Vault, VaultConfig};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::proxy::Proxy;

/// The PAT that every fresh bench holds.
pub const PAT: &str = "ghp_verySecretPersonalAccessToken";

/// A real server, a proxy before it, and a folder for token files.
pub struct Bench {
    pub bao: Bao,
    pub proxy: Proxy,
    pub folder: TempDir,
}

impl Bench {
    /// A server with the secret `ghcr`, readable by the policy `reader`.
    pub async fn start() -> Self {
        let bao = Bao::start(BaoOptions::default()).await.unwrap();
        let proxy = Proxy::start(&bao.address()).await;
        let bench = Self { bao, proxy, folder: tempfile::tempdir().unwrap() };
        bench.put("ghcr", json!({ "username": "robot", "token": PAT })).await;
        bench.role(Duration::from_mins(5), Duration::from_mins(10)).await;
        bench
    }

    pub async fn put(&self, path: &str, data: Value) {
        self.bao.put_secret(path, data).await.unwrap();
    }

    pub async fn root(&self, method: Method, path: &str, body: Value) -> Value {
        self.bao.request(method, path, Some(body)).await.unwrap()
    }

    /// Makes (or changes) the role, whose policy covers `ghcr` and `other` only.
    pub async fn role(&self, token_ttl: Duration, token_max_ttl: Duration) -> AppRole {
        let policy = ["ghcr", "other", "gone", "bad"]
            .map(|name| format!("path \"secret/data/{name}\" {{ capabilities = [\"read\"] }}\n"));
        let role =
            Role { name: "reader".to_owned(), policy: policy.concat(), token_ttl, token_max_ttl };
        self.bao.enable_approle(&role).await.unwrap()
    }

    /// A token of the policy `reader`, with further wishes.
    pub async fn token(&self, wishes: Value) -> String {
        let mut body = json!({ "policies": ["reader"], "no_parent": true });
        body.as_object_mut().unwrap().extend(wishes.as_object().unwrap().clone());
        let made = self.root(Method::POST, "auth/token/create", body).await;
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub async fn revoke(&self, token: &str) {
        self.root(Method::POST, "auth/token/revoke", json!({ "token": token })).await;
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A configuration with a token file, through the proxy.
    pub fn token_config(&self, token: &str) -> VaultConfig {
        let file = self.file("token", token);
        config(&self.proxy.address, &format!("method = 'token'\ntoken_file = '{}'", file.display()))
    }

    /// A configuration with an `AppRole` login, through the proxy.
    pub fn approle_config(&self, role: &AppRole) -> VaultConfig {
        let file = self.file("secret-id", role.secret_id.expose_secret());
        config(
            &self.proxy.address,
            &format!(
                "method = 'approle'\nrole_id = '{}'\nsecret_id_file = '{}'",
                role.role_id,
                file.display()
            ),
        )
    }

    /// A client that logs in with a fresh token of the policy `reader`.
    pub async fn vault(&self) -> Arc<Vault> {
        let token = self.token(json!({})).await;
        vault(self.token_config(&token), "ghcr")
    }

    pub fn reads(&self) -> usize {
        self.proxy.count("/v1/secret/data/")
    }
}

/// A configuration with quick time-outs; nothing is remembered about refusals for long.
pub fn config(address: &str, auth: &str) -> VaultConfig {
    let text = format!(
        "address = '{address}'\nrequest_timeout = '5s'\nreread_interval = '1ms'\n[auth]\n{auth}"
    );
    toml::from_str(&text).unwrap()
}

/// A source with one registry, all of whose repositories have this secret.
pub fn vault(config: VaultConfig, secret: &str) -> Arc<Vault> {
    vault_by(config, &format!("push = '{secret}'"))
}

/// The same with a rule that says more.
pub fn vault_by(config: VaultConfig, rule: &str) -> Arc<Vault> {
    let rule: CredentialRule = toml::from_str(rule).unwrap();
    Vault::new(config, HashMap::from([("ghcr.io".parse().unwrap(), vec![rule])])).unwrap()
}

/// Asks for the credential of a repository there.
pub async fn ask(vault: &Vault, refused: Option<u64>) -> Result<Credential, Failure> {
    let repository = Repository::parse("ghcr.io/acme/app").unwrap();
    vault.credential(&repository, Access::Push, refused).await.map(Option::unwrap)
}
