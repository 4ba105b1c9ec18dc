//! What a process of the service depends on, as its probes see it.
//!
//! Without the database nothing can be answered. Without Vault releases are accepted and wait, so a
//! process stays ready, and says that it is degraded: a load balancer that took it out, or a
//! roll-out that stopped at it, would make a small outage a large one.

use std::{sync::Arc, time::Duration};

use colophon_domain::{Failure, Reason, Result};
use colophon_engine::Engine;
use colophon_server::{Part, Probe};
use colophon_vault::{Vault, VaultHealth};

/// Vault is asked no longer than this.
const PATIENCE: Duration = Duration::from_secs(3);

/// The parts that a process needs to do its work.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) engine: Engine,
    pub(crate) vault: Option<Arc<Vault>>,
}

impl Probe for Health {
    fn parts(&self) -> Vec<Part<'_>> {
        let database = Part { name: "database", needed: true, look: Box::pin(self.engine.ready()) };
        let vault = self.vault.as_ref().map(|vault| Part {
            name: "vault",
            needed: false,
            look: Box::pin(look_at(vault)),
        });
        [database].into_iter().chain(vault).collect()
    }
}

async fn look_at(vault: &Vault) -> Result<()> {
    let away = |text: String| Failure::new(Reason::VaultUnavailable, text);
    match tokio::time::timeout(PATIENCE, vault.health()).await {
        Ok(VaultHealth::Active) => Ok(()),
        Ok(VaultHealth::Sealed) => Err(Failure::new(Reason::VaultSealed, "Vault is sealed")),
        Ok(VaultHealth::Uninitialised) => Err(away("Vault is not initialised".to_owned())),
        Ok(VaultHealth::Away(what)) => Err(away(format!("Vault is away: {what}"))),
        Err(_) => Err(away("Vault does not answer".to_owned())),
    }
}
