//! What a reload of the configuration replaces while the process runs: registries with their
//! credentials, rules of repositories, callers. Whatever began before goes on with what it began with.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Result, bail};
use colophon_domain::{Access, Credential, CredentialSource, Repository, TagRules};
use colophon_engine::Engine;
use colophon_registry::{Registries, RegistryConfig};
use colophon_server::Callers;
use colophon_vault::Vault;
use futures_util::future::BoxFuture;

use crate::config::Config;

/// The parts that are replaced, as everything in the process shares them.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) engine: Engine,
    pub(crate) callers: Callers,
    vault: Arc<RwLock<Option<Arc<Vault>>>>,
}

/// The same, built from a configuration and not in use yet.
pub(crate) struct Fresh {
    pub(crate) registries: Registries,
    pub(crate) rules: TagRules,
    pub(crate) callers: Callers,
    pub(crate) vault: Option<Arc<Vault>>,
}

impl Fresh {
    /// Builds everything; nothing is connected. `join` makes the registries, with new limits or those
    /// of before.
    pub(crate) fn build(
        config: &mut Config,
        join: impl FnOnce(
            Vec<RegistryConfig>,
            Arc<dyn CredentialSource>,
        ) -> colophon_domain::Result<Registries>,
    ) -> Result<Self> {
        let (registries, rules) = config.take_registries()?;
        let vault = match config.vault.take() {
            Some(vault) => Some(Vault::new(vault, rules)?),
            None if rules.values().any(|rules| !rules.is_empty()) => {
                bail!("a registry has credentials, and there is no [vault] to read them from")
            }
            None => None,
        };
        let credentials: Arc<dyn CredentialSource> = match &vault {
            Some(vault) => vault.clone(),
            None => Arc::new(Anonymous),
        };
        let rules = TagRules::new(std::mem::take(&mut config.repositories))?;
        let callers = Callers::new(std::mem::take(&mut config.callers))?;
        // Last: limits that others share hold at once, and those of a bad file must not.
        Ok(Self { registries: join(registries, credentials)?, rules, callers, vault })
    }
}

impl Live {
    pub(crate) fn new(engine: Engine, callers: Callers, vault: Option<Arc<Vault>>) -> Self {
        Self { engine, callers, vault: Arc::new(RwLock::new(vault)) }
    }

    /// Where PATs come from now.
    pub(crate) fn vault(&self) -> Option<Arc<Vault>> {
        self.vault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts fresh parts into the place of those before.
    pub(crate) fn replace(&self, fresh: Fresh) {
        self.engine.reload(fresh.registries, fresh.rules);
        self.callers.replace(&fresh.callers);
        *self.vault.write().unwrap_or_else(PoisonError::into_inner) = fresh.vault;
    }
}

/// Where no Vault is configured every registry is anonymous.
pub(crate) struct Anonymous;

impl CredentialSource for Anonymous {
    fn credential<'a>(
        &'a self,
        _repository: &'a Repository,
        _access: Access,
        _refused: Option<u64>,
    ) -> BoxFuture<'a, colophon_domain::Result<Option<Credential>>> {
        Box::pin(async { Ok(None) })
    }

    fn shared(&self, target: &Repository, other: &Repository) -> bool {
        target.registry() == other.registry()
    }
}
