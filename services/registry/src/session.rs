//! The registries of the process, and the light handle that joins one of them with a repository
//! and the right to read or write it.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use colophon_domain::{
    Access, BlobPlaces, Clock, CredentialSource, Failure, FlightBook, RateBudget, Reason,
    RegistryHost, Repository, Result, SystemClock, Urgency,
};
use http::Method;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    answer::Asked,
    budget::Pass,
    config::RegistryConfig,
    exchange::Call,
    flight::Flights,
    host::Host,
    known::Holders,
    limited::Limits,
    memory_budget::MemoryBudget,
    places::{Place, Places},
    scope::Scopes,
    seal::Seals,
    tls,
    upload::Begun,
};

/// The configured registries: one pool of connections, one budget and one set of tokens each,
/// shared by all sessions. Cloning is cheap.
#[derive(Clone)]
pub struct Registries(Arc<Shared>);

#[derive(Clone)]
pub(crate) struct Shared {
    hosts: HashMap<RegistryHost, Arc<Host>>,
    credentials: Arc<dyn CredentialSource>,
    pub limits: Arc<Limits>,
    pub flights: Arc<Flights>,
    /// Where blobs are known to be.
    pub holders: Arc<Holders>,
    /// What seals the URLs of uploads that are written down.
    pub seals: Arc<Seals>,
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

    /// The same with a budget of requests that others keep to as well.
    ///
    /// # Errors
    /// As [`Registries::new`].
    pub fn sharing(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
        budget: Arc<dyn RateBudget>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self::within(configs, credentials, &clock, Limits::new(budget))
    }

    /// Other registries for whatever begins from now on. Sessions of these go on as they are; both
    /// keep to the same limits, those of each registry included: a pause outlives the reload, and so
    /// does who brings which blob.
    ///
    /// # Errors
    /// As [`Registries::new`].
    pub fn replaced(
        &self,
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Shared { limits, flights, holders, seals, .. } = (*self.0).clone();
        let hosts = Self::hosts(configs, &clock, &limits)?;
        Ok(Self(Arc::new(Shared { hosts, credentials, limits, flights, holders, seals })))
    }

    /// The same, which look up where blobs are, and remember where they have brought some.
    #[must_use]
    pub fn with_places(self, places: Arc<dyn BlobPlaces>) -> Self {
        let holders = Arc::new(Holders::of(places));
        Self(Arc::new(Shared { holders, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, whose copies write down which blobs they bring and how far they are, so that other
    /// processes neither bring them too nor begin anew.
    #[must_use]
    pub fn with_flights(self, book: Arc<dyn FlightBook>) -> Self {
        let flights = Arc::new(Flights::with(book));
        Self(Arc::new(Shared { flights, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same with a clock of the caller's, for `Retry-After` dates.
    pub fn with_clock(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let limits = Limits::new(Arc::new(MemoryBudget::default()));
        Self::within(configs, credentials, clock, limits)
    }

    fn within(
        configs: Vec<RegistryConfig>,
        credentials: Arc<dyn CredentialSource>,
        clock: &Arc<dyn Clock>,
        limits: Arc<Limits>,
    ) -> Result<Self> {
        let hosts = Self::hosts(configs, clock, &limits)?;
        let (flights, holders, seals) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self(Arc::new(Shared { hosts, credentials, limits, flights, holders, seals })))
    }

    fn hosts(
        configs: Vec<RegistryConfig>,
        clock: &Arc<dyn Clock>,
        limits: &Limits,
    ) -> Result<HashMap<RegistryHost, Arc<Host>>> {
        let system = Arc::new(tls::system_roots());
        let mut hosts = HashMap::new();
        for config in configs {
            let name = config.host.clone();
            let host = Host::new(config, &system, Arc::clone(clock), limits.of(&name))?;
            if hosts.insert(name.clone(), Arc::new(host)).is_some() {
                return Err(Failure::invalid(
                    "registry.host",
                    format!("the registry {name} is configured twice"),
                ));
            }
        }
        // Only now that all of it is sound.
        for host in hosts.values() {
            host.limit()?;
        }
        Ok(hosts)
    }

    /// Looks at the budget of a registry, about which others have something new; of all of them
    /// without a name.
    pub async fn look_at_budget(&self, name: Option<&RegistryHost>) {
        let hosts = self.0.hosts.values().filter(|host| name.is_none_or(|name| host.name == *name));
        for host in hosts {
            host.limits.budget.look().await;
        }
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
            urgency: Urgency::default(),
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
    pub(crate) urgency: Urgency,
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

    /// The same for work of another urgency.
    #[must_use]
    pub fn urgent(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    /// Waits until the registry may be asked once more, as the budget that all processes share says.
    /// For what must be sent soon once it is begun; every other request waits by itself.
    ///
    /// # Errors
    /// `RATE_LIMITED` if that takes long, and how long.
    pub async fn ready(&self) -> Result<Pass> {
        self.host.limits.budget.ready(self.urgency, None).await
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
    pub(crate) async fn place(&self, places: &Arc<Places>) -> Place {
        if let Some(place) = places.try_take() {
            return place;
        }
        let _pressing = self.host.limits.budget.press(self.urgency);
        places.take(self.urgency).await
    }

    /// One of the places for requests, for what must be sent by a deadline.
    pub(crate) async fn place_by(
        &self,
        deadline: Option<Instant>,
        asked: &Asked<'_>,
    ) -> Result<Place> {
        let place = self.place(&self.host.limits.requests);
        match deadline {
            Some(deadline) => timeout_at(deadline, place).await.map_err(|_| asked.late()),
            None => Ok(place.await),
        }
    }

    /// Whether both sessions talk to the same registry.
    pub(crate) fn same_registry(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.host, &other.host)
    }
}
