//! What runs beside the service, as far as this machine has it.

use std::time::Duration;

use anyhow::Result;
use colophon_domain::{Entropy as _, SystemEntropy};
use colophon_launcher::{
    Bao, BaoOptions, Error, Login, Postgres, PostgresOptions, Registry, RegistryAuth,
    RegistryOptions, Role,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::folder::Folder;

/// Names a database that is there already; then none is started. It is another variable than the
/// service's: nobody shall try something out on the database that a shell happens to name.
pub(super) const DATABASE_VARIABLE: &str = "COLOPHON_DEV_DATABASE_URL";

/// Where the PAT of the registry `production` is in `OpenBao`.
pub(super) const SECRET: &str = "registries/production";

/// What Vault lets the service do: read the registries' secrets, and nothing else.
const POLICY: &str = "path \"secret/data/registries/*\" { capabilities = [\"read\"] }";

/// The running parts. Dropping them stops them.
pub(super) struct Beside {
    // Dropped in this order: whoever uses another goes first.
    staging: Result<Registry, Error>,
    production: Result<Registry, Error>,
    vault: Result<Bao, Error>,
    postgres: Result<Postgres, Error>,
    database: Option<SecretString>,
    pat: SecretString,
}

/// How the service logs in to `OpenBao`.
pub(super) struct VaultLogin {
    pub(super) address: String,
    pub(super) role_id: String,
}

impl Beside {
    /// Starts all that is installed, at once. A part that does not start is kept as its error.
    pub(super) async fn start(folder: &Folder) -> Self {
        let named = std::env::var(DATABASE_VARIABLE).ok().filter(|url| !url.is_empty());
        let named = named.map(SecretString::from);
        // A PAT for each start: nobody but the registry and OpenBao has to know it.
        let pat = SecretString::from(format!("pat-{}", hex::encode(SystemEntropy.salt())));
        let (vault, postgres, staging) = tokio::join!(
            Bao::start(BaoOptions { kept: folder.vault(), ..BaoOptions::default() }),
            database(folder, named.is_some()),
            registry(RegistryOptions { kept: folder.staging(), ..RegistryOptions::default() }),
        );
        // Without a Vault nobody could hold its PAT, so it is open then.
        let auth = if vault.is_ok() {
            RegistryAuth::Htpasswd(vec![login(&pat)])
        } else {
            RegistryAuth::None
        };
        let production = RegistryOptions { auth, kept: folder.production(), ..Default::default() };
        let production = registry(production).await;
        let database = named.or_else(|| postgres.as_ref().ok().map(|own| own.url().into()));
        Self { staging, production, vault, postgres, database, pat }
    }

    /// What could not be started, a line for each, with the remedy.
    pub(super) fn missing(&self) -> Vec<String> {
        let line = |what: &str, error: Option<&Error>| error.map(|error| said(what, error));
        let postgres = self.postgres.as_ref().err().filter(|_| self.database.is_none());
        [
            line("no database", postgres),
            line("no registry `staging`", self.staging.as_ref().err()),
            line("no registry `production`", self.production.as_ref().err()),
            line("no Vault, so no registry has a PAT", self.vault.as_ref().err()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The address of the database.
    pub(super) fn database(&self) -> Option<&SecretString> {
        self.database.as_ref()
    }

    /// Whether the database is ours.
    pub(super) fn postgres(&self) -> Option<&Postgres> {
        self.postgres.as_ref().ok()
    }

    /// `OpenBao`, if it runs.
    pub(super) fn vault(&self) -> Option<&Bao> {
        self.vault.as_ref().ok()
    }

    /// The registry that builds are pushed to, if it runs.
    pub(super) fn staging(&self) -> Option<&Registry> {
        self.staging.as_ref().ok()
    }

    /// The registry that is published to, if it runs.
    pub(super) fn production(&self) -> Option<&Registry> {
        self.production.as_ref().ok()
    }

    /// `staging` and `production`, as they stand in references.
    pub(super) fn hosts(&self) -> [Option<String>; 2] {
        [self.staging().map(Registry::host), self.production().map(Registry::host)]
    }

    /// Puts the PAT into `OpenBao`, and writes what the service logs in with.
    pub(super) async fn fill_vault(&self, folder: &Folder) -> Result<Option<VaultLogin>> {
        let Ok(bao) = &self.vault else { return Ok(None) };
        let Login { username, password } = login(&self.pat);
        let secret = json!({ "username": username, "token": password.expose_secret() });
        bao.put_secret(SECRET, secret).await?;
        let role = Role {
            name: "colophon".to_owned(),
            policy: POLICY.to_owned(),
            token_ttl: Duration::from_mins(20),
            token_max_ttl: Duration::from_hours(24),
        };
        let role = bao.enable_approle(&role).await?;
        folder.write("secret-id", role.secret_id.expose_secret())?;
        folder.write("vault-root-token", bao.root_token().expose_secret())?;
        Ok(Some(VaultLogin { address: bao.address(), role_id: role.role_id }))
    }
}

fn login(pat: &SecretString) -> Login {
    Login { username: "colophon".to_owned(), password: pat.clone() }
}

async fn database(folder: &Folder, named: bool) -> Result<Postgres, Error> {
    if named {
        return Err(Error::Refused {
            part: "postgres".to_owned(),
            message: format!("is not started, since {DATABASE_VARIABLE} names one"),
        });
    }
    let kept = folder.database();
    Postgres::start(PostgresOptions {
        // What is kept must survive a power cut; what is not, need not.
        fsync: kept.is_some(),
        max_connections: 100,
        kept,
        ..PostgresOptions::default()
    })
    .await
}

async fn registry(options: RegistryOptions) -> Result<Registry, Error> {
    Registry::start(options).await
}

/// One error on one line, with what caused it.
fn said(what: &str, error: &Error) -> String {
    let mut text = format!("{what}: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
