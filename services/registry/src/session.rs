//! The registries of the process, and the light handle that joins one of them with a repository
//! and the right to read or write it.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use colophon_domain::{
    Access, Clock, CredentialSource, Failure, Reason, RegistryHost, Repository, Result, SystemClock,
};
use http::Method;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use url::Url;

use crate::{
    answer::Asked, config::RegistryConfig, exchange::Call, flight::Flights, gather, host::Host,
    scope::Scopes, tls, upload::Begun,
};

/// Blobs that are moved at the same time by the whole process. Each takes up to 4 MiB in buffers,
/// so this bounds the memory whatever the images' sizes.
const TRANSFERS: usize = 10;

/// The configured registries: one pool of connections, one pause and one set of tokens each,
/// shared by all sessions. Cloning is cheap.
#[derive(Clone)]
pub struct Registries(Arc<Shared>);

pub(crate) struct Shared {
    hosts: HashMap<RegistryHost, Arc<Host>>,
    credentials: Arc<dyn CredentialSource>,
    pub transfers: Arc<Semaphore>,
    /// Room for manifests that running copies hold, in KiB.
    pub manifests: Arc<Semaphore>,
    pub flights: Flights,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.hosts.keys()).finish()
    }
}

impl Registries {
    /// Takes the configured registries and whoever hands out credentials for them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the field's name for settings that contradict each other, and
    /// `TLS_UNTRUSTED` for a `ca_file` that cannot be used.
    pub fn new(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self::with_clock(configs, credentials, &clock)
    }

    /// Other registries for whatever begins from now on. Sessions of these go on as they are; both
    /// keep to the same limits of the process.
    ///
    /// # Errors
    /// As [`Registries::new`].
    pub fn replaced(
        &self,
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let limits = (Arc::clone(&self.0.transfers), Arc::clone(&self.0.manifests));
        Self::within(configs, credentials, &clock, limits)
    }

    /// The same with a clock of the caller's, for `Retry-After` dates.
    pub fn with_clock(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let limits = (Arc::new(Semaphore::new(TRANSFERS)), Arc::new(gather::room()));
        Self::within(configs, credentials, clock, limits)
    }

    fn within(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
        (transfers, manifests): (Arc<Semaphore>, Arc<Semaphore>),
    ) -> Result<Self> {
        let system = Arc::new(tls::system_roots());
        let mut hosts = HashMap::new();
        for config in configs {
            let name = config.host.clone();
            let host = Host::new(config, &system, Arc::clone(clock))?;
            if hosts.insert(name.clone(), Arc::new(host)).is_some() {
                return Err(Failure::invalid(
                    "registry.host",
                    format!("the registry {name} is configured twice"),
                ));
            }
        }
        let flights = Flights::default();
        Ok(Self(Arc::new(Shared { hosts, credentials, transfers, manifests, flights })))
    }

    /// Whether the registry is configured.
    pub fn knows(&self, host: &RegistryHost) -> bool {
        self.0.hosts.contains_key(host)
    }

    /// A handle on one repository.
    ///
    /// # Errors
    /// `UNKNOWN_REGISTRY` if the configuration does not name the registry.
    pub fn session(&self, repository: &Repository, access: Access) -> Result<Session> {
        let host = self.0.hosts.get(repository.registry()).ok_or_else(|| {
            Failure::new(
                Reason::UnknownRegistry,
                format!("the registry {} is not configured", repository.registry()),
            )
            .remedy(format!("add a [[registry]] with host = \"{}\"", repository.registry()))
        })?;
        Ok(Session {
            host: Arc::clone(host),
            credentials: Arc::clone(&self.0.credentials),
            shared: Arc::clone(&self.0),
            repository: repository.clone(),
            access,
        })
    }
}

/// One repository, and what is to be done with it. Light; cloning is cheap.
#[derive(Clone)]
pub struct Session {
    pub(crate) host: Arc<Host>,
    pub(crate) credentials: Arc<dyn CredentialSource>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) repository: Repository,
    pub(crate) access: Access,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("repository", &self.repository)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether an upload would be let in: starts one and cancels it (distribution-spec,
    /// "Pushing blobs"). For asking before any work is queued.
    pub async fn preflight(&self) -> Result<()> {
        let call =
            Call::writing(self, Method::POST, self.url("blobs/uploads/"), "trying an upload");
        if let Begun::Started(upload) = self.begin_upload(call).await? {
            upload.cancel().await;
        }
        Ok(())
    }

    /// `/v2/<name>/<rest>` at this registry (distribution-spec, "Endpoints").
    pub(crate) fn url(&self, rest: &str) -> Url {
        let mut url = self.host.base.clone();
        url.set_path(&format!("v2/{}/{rest}", self.repository.name()));
        url
    }

    pub(crate) fn scopes(&self) -> Scopes {
        Scopes::of(self.repository.name(), self.access)
    }

    pub(crate) fn asked<'a>(&'a self, what: impl Into<Cow<'a, str>>, writes: bool) -> Asked<'a> {
        Asked { repository: &self.repository, what: what.into(), writes }
    }

    /// One of the registry's places for requests of a kind.
    pub(crate) async fn permit<'a>(&self, places: &'a Semaphore) -> Result<SemaphorePermit<'a>> {
        places.acquire().await.map_err(|error| {
            Failure::new(Reason::Internal, "the registry client is shut down").caused_by(error)
        })
    }

    /// One of the places for requests, for what must be sent by a deadline.
    pub(crate) async fn permit_by(
        &self,
        deadline: Option<Instant>,
        asked: &Asked<'_>,
    ) -> Result<SemaphorePermit<'_>> {
        let place = self.permit(&self.host.requests);
        match deadline {
            Some(deadline) => timeout_at(deadline, place).await.map_err(|_| asked.late())?,
            None => place.await,
        }
    }

    /// Whether both sessions talk to the same registry.
    pub(crate) fn same_registry(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.host, &other.host)
    }
}
