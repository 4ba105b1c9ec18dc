//! `OpenBao` of a world: holds the PATs, and lets Colophon in by `AppRole`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use colophon_testkit::{
    launcher::{Bao, BaoOptions, Login, Role},
    pki::Authority,
};
use secrecy::ExposeSecret as _;
use serde_json::json;

/// A running `OpenBao` and the role that Colophon logs in as.
pub struct Vault {
    /// The server.
    pub bao: Bao,
    toml: String,
}

impl Vault {
    /// A server with a certificate by a private CA. `settings` are further lines of `[vault]`;
    /// `token_ttl` is how long a token of Colophon's lives without renewal.
    pub(crate) async fn start(folder: &Path, settings: &str, token_ttl: Duration) -> Result<Self> {
        let tls = Authority::new("colophon vault CA")?.issue()?;
        let ca_file = folder.join("vault-ca.pem");
        std::fs::write(&ca_file, &tls.ca_pem).context("writing a CA")?;
        let bao = Bao::start(BaoOptions { tls: Some(tls), ..BaoOptions::default() }).await?;
        let policy = "path \"secret/data/registries/*\" { capabilities = [\"read\"] }";
        let role = bao
            .enable_approle(&Role {
                name: "colophon".to_owned(),
                policy: policy.to_owned(),
                token_ttl,
                token_max_ttl: token_ttl * 4,
            })
            .await?;
        let secret_id_file = folder.join("vault-secret-id");
        std::fs::write(&secret_id_file, role.secret_id.expose_secret())
            .context("writing a secret id")?;
        let toml = format!(
            "[vault]\naddress = {:?}\nca_file = {:?}\n{settings}\n[vault.auth]\n\
             method = \"approle\"\nrole_id = {:?}\nsecret_id_file = {:?}\n",
            bao.address(),
            ca_file.display().to_string(),
            role.role_id,
            secret_id_file.display().to_string(),
        );
        Ok(Self { bao, toml })
    }

    pub(crate) fn toml(&self) -> &str {
        &self.toml
    }

    /// Writes a new version of the secret `registries/NAME`, with the fields that Colophon
    /// reads by default.
    pub async fn put_login(&self, name: &str, login: &Login) -> Result<()> {
        let secret = json!({ "username": login.username, "token": login.password.expose_secret() });
        Ok(self.bao.put_secret(&format!("registries/{name}"), secret).await?)
    }
}
