//! Everything that the process shares about one registry: its connections, its limits, its
//! tokens, and the rules about where a request of its may go.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use colophon_domain::{Clock, Failure, Reason, RegistryHost, Result};
use http::header;
use reqwest::{Client, ClientBuilder, Response, redirect};
use rustls::RootCertStore;
use url::{Host as UrlHost, Url};

use crate::{
    address::{GuardedResolver, OwnAddress},
    answer::Asked,
    config::{Authority, RegistryConfig},
    limited::HostLimits,
    schemes::Schemes,
    sent::Sent,
    tls::{self, Trust},
    token::TokenCache,
};

/// HTTP/2 flow control: enough for one stream to fill a fast network, little enough for many.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// One registry.
pub(crate) struct Host {
    pub name: RegistryHost,
    pub config: RegistryConfig,
    pub base: Url,
    pub limits: Arc<HostLimits>,
    pub tokens: TokenCache,
    pub schemes: Schemes,
    pub clock: Arc<dyn Clock>,
    realms: Vec<Authority>,
    storage: Vec<Authority>,
    own_address: Arc<OwnAddress>,
    /// It was seen to take no chunks, or none of our size.
    whole: AtomicBool,
    /// For the registry itself: trusted as configured, whatever its address is.
    own: Client,
    /// For hosts that the configuration names beside it.
    named: Client,
    /// For hosts that only the registry names: public addresses only.
    foreign: Client,
}

impl Host {
    pub(crate) fn new(
        config: RegistryConfig,
        system: &Arc<RootCertStore>,
        clock: Arc<dyn Clock>,
        limits: Arc<HostLimits>,
    ) -> Result<Self> {
        let checked = config.check()?;
        let roots = match &config.ca_file {
            Some(path) => Arc::new(tls::with_ca_file(system, path)?),
            None => Arc::clone(system),
        };
        let trust = match checked.pin {
            Some(pin) => Trust::Pinned(pin),
            None if config.insecure_skip_verify => Trust::Anything,
            None => Trust::Roots(Arc::clone(&roots)),
        };
        let others = Trust::Roots(roots);
        let own_address = Arc::new(OwnAddress::default());
        let guard = GuardedResolver(Arc::clone(&own_address));
        let builder = |trust| client(&config, checked.connections, trust);
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| {
                Failure::new(Reason::Internal, "the HTTP client cannot be set up").caused_by(error)
            })
        };
        Ok(Self {
            own: build(builder(&trust)?)?,
            named: build(builder(&others)?)?,
            foreign: build(builder(&others)?.dns_resolver(Arc::new(guard)))?,
            name: config.host.clone(),
            base: checked.base,
            limits,
            tokens: TokenCache::default(),
            schemes: Schemes::default(),
            clock,
            realms: checked.realms,
            storage: checked.storage,
            own_address,
            whole: AtomicBool::new(false),
            config,
        })
    }

    /// Lets the limits be what the configuration says, from now on.
    pub(crate) fn limit(&self) -> Result<()> {
        self.limits.configure(&self.config.check()?);
        Ok(())
    }

    /// Whether the URL leads to the registry itself, where credentials may go.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.scheme() == self.base.scheme()
            && url.host() == self.base.host()
            && url.port_or_known_default() == self.base.port_or_known_default()
    }

    /// The client for a URL that the registry named, or a refusal.
    pub(crate) fn client_for(&self, url: &Url, asked: &Asked<'_>) -> Result<&Client> {
        if self.is_own(url) {
            return Ok(&self.own);
        }
        if self.storage.iter().any(|named| named.covers(url)) {
            return Ok(&self.named);
        }
        // Names are checked when they are resolved; a literal address never is.
        let literal = match url.host() {
            Some(UrlHost::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(UrlHost::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match literal {
            Some(address) if !self.own_address.allows(address) => Err(asked
                .failure(
                    Reason::AddressRefused,
                    &format!("{} leads to the private address {address}", self.name),
                )
                .remedy("add the host to storage_hosts if it is really the registry's storage")),
            _ => Ok(&self.foreign),
        }
    }

    /// The client for a token realm, or a refusal: a PAT goes to the registry's own host and to
    /// hosts that the configuration names, never to whatever host a challenge names.
    pub(crate) fn client_for_realm(&self, realm: &Url, asked: &Asked<'_>) -> Result<&Client> {
        let place = place(realm);
        if realm.scheme() != "https" && !(realm.scheme() == "http" && self.config.plain_http) {
            return Err(asked.failure(
                Reason::AddressRefused,
                &format!("{} names the token realm {place}, which is not HTTPS", self.name),
            ));
        }
        if self.is_own(realm) {
            Ok(&self.own)
        } else if self.realms.iter().any(|named| named.covers(realm)) {
            Ok(&self.named)
        } else {
            Err(asked
                .failure(
                    Reason::AddressRefused,
                    &format!("{} names the unknown token realm {place}", self.name),
                )
                .remedy(format!("add {place} to token_realms if it may receive the PAT")))
        }
    }

    /// Resolves a `Location` against the URL that was asked (RFC 9110, section 10.2.2).
    pub(crate) fn location(
        &self,
        from: &Url,
        response: &Response,
        asked: &Asked<'_>,
    ) -> Result<Url> {
        let sent = response.extensions().get::<Sent>();
        let repeats = |url: &Url| sent.is_some_and(|sent| sent.is_in(&place(url)));
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| from.join(text).ok())
            .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
            // A host's name is shown, and a careless answer may have put a secret into it.
            .filter(|url| !repeats(url))
            .ok_or_else(|| asked.protocol("the answer names no usable Location"))?;
        if location.scheme() == "http" && !self.config.plain_http {
            return Err(asked
                .failure(
                    Reason::AddressRefused,
                    &format!("{} leads from HTTPS to http://{}", self.name, place(&location)),
                )
                .remedy("behind a proxy, let the registry know that it is reached by HTTPS"));
        }
        Ok(location)
    }

    /// Whether a blob of any size goes in one request.
    pub(crate) fn whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Remembers that the registry takes no chunks.
    pub(crate) fn sends_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Remembers where the registry is.
    pub(crate) fn learn_address(&self, response: &Response) {
        self.own_address.learn(response.remote_addr());
    }
}

/// The host and port of a URL, which is all of it that is ever shown.
pub(crate) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn client(config: &RegistryConfig, connections: usize, trust: &Trust) -> Result<ClientBuilder> {
    Ok(Client::builder()
        .user_agent(concat!("colophon/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls::client_config(trust)?)
        // Redirects are followed by hand, because credentials must not cross hosts.
        .redirect(redirect::Policy::none())
        .referer(false)
        // A proxy would resolve names where the guard against private addresses cannot look.
        .no_proxy()
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(connections)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW))
}
