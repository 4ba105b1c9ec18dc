//! What stays of a registry when its configuration is read again: how often it may be asked, and the
//! places for requests at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use colophon_domain::{RateBudget, RegistryHost};
use tokio::sync::Semaphore;

use crate::{budget::Budget, config::Checked, gather, places::Places};

/// Blobs that are moved at the same time by the whole process. Each takes up to 4 MiB in buffers,
/// so this bounds the memory whatever the images' sizes.
const TRANSFERS: usize = 10;

/// Those of them that may come from clients, whose pace is their own: copies find a place all the same.
const RECEPTIONS: usize = 8;

/// The limits of the process.
pub(crate) struct Limits {
    pub transfers: Arc<Places>,
    pub receptions: Arc<Places>,
    /// Room for manifests that running copies hold, in KiB.
    pub manifests: Semaphore,
    pub budget: Arc<dyn RateBudget>,
    hosts: Mutex<HashMap<RegistryHost, Arc<HostLimits>>>,
}

/// Those of one registry.
pub(crate) struct HostLimits {
    pub budget: Arc<Budget>,
    /// Manifests and checks; downloads; uploads. Apart, so that a copy within one registry,
    /// which holds one of each of the latter two, cannot wait for itself. A token, or a challenge, is
    /// asked for by who has a place already and sends nothing else meanwhile.
    pub requests: Arc<Places>,
    pub downloads: Arc<Places>,
    pub uploads: Arc<Places>,
}

impl Limits {
    pub(crate) fn new(budget: Arc<dyn RateBudget>) -> Arc<Self> {
        Arc::new(Self {
            transfers: Places::new(TRANSFERS),
            receptions: Places::new(RECEPTIONS),
            manifests: gather::room(),
            budget,
            hosts: Mutex::default(),
        })
    }

    /// Those of a registry, the same ones whenever they are asked for.
    pub(crate) fn of(&self, name: &RegistryHost) -> Arc<HostLimits> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = hosts.entry(name.clone()).or_insert_with(|| {
            Arc::new(HostLimits {
                budget: Budget::new(name.clone(), Arc::clone(&self.budget)),
                requests: Places::new(0),
                downloads: Places::new(0),
                uploads: Places::new(0),
            })
        });
        Arc::clone(limits)
    }
}

impl HostLimits {
    /// As the configuration says now.
    pub(crate) fn configure(&self, checked: &Checked) {
        self.budget.configure(checked.per_second);
        for places in [&self.requests, &self.downloads, &self.uploads] {
            places.resize(checked.connections / 3);
        }
    }
}
