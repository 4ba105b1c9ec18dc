//! What a process of the service depends on, as its probes see it.
//!
//! Without the database nothing can be answered. Without Vault, and on hold, releases are accepted
//! and wait, so a process stays ready, and says that it is degraded: a load balancer that took it
//! out, or a roll-out that stopped at it, would make a small outage a large one.

use std::{sync::Arc, time::Duration};

use colophon_domain::{Failure, Reason, Result};
use colophon_engine::Engine;
use colophon_server::{Part, Probe};
use colophon_vault::{Vault, VaultHealth};

use crate::live::Live;

/// Vault is asked no longer than this.
const PATIENCE: Duration = Duration::from_secs(3);

impl Probe for Live {
    fn parts(&self) -> Vec<Part<'_>> {
        let part = |name, needed, look| Part { name, needed, look };
        let database = part("database", true, Box::pin(self.engine.ready()));
        let queue = part("queue", false, Box::pin(held(&self.engine)));
        let vault = self.vault().map(|vault| part("vault", false, Box::pin(look_at(vault))));
        [database, queue].into_iter().chain(vault).collect()
    }
}

/// Whether anything is worked on. While the database is away nobody knows, and that is said already.
async fn held(engine: &Engine) -> Result<()> {
    match engine.hold().await {
        Ok(Some(hold)) => Err(hold.failure()),
        Ok(None) | Err(_) => Ok(()),
    }
}

async fn look_at(vault: Arc<Vault>) -> Result<()> {
    let away = |text: String| Failure::new(Reason::VaultUnavailable, text);
    match tokio::time::timeout(PATIENCE, vault.health()).await {
        Ok(VaultHealth::Active) => Ok(()),
        Ok(VaultHealth::Sealed) => Err(Failure::new(Reason::VaultSealed, "Vault is sealed")),
        Ok(VaultHealth::Uninitialised) => Err(away("Vault is not initialised".to_owned())),
        Ok(VaultHealth::Away(what)) => Err(away(format!("Vault is away: {what}"))),
        Err(_) => Err(away("Vault does not answer".to_owned())),
    }
}
