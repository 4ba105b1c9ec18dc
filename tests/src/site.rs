//! One registry of a world, with a proxy before it where a test wants to make faults, and what
//! Colophon's configuration says about it.

use anyhow::{Context as _, Result};
use colophon_testkit::{
    image::{Destination, Image, ImageSpec},
    launcher::{Login, Registry, RegistryAuth, RegistryOptions, Tls},
    peer::Peer,
    pki::{self, Authority},
    proxy::FaultProxy,
    skopeo_inspect_digest,
    token_service::{Allowed, TokenOptions, TokenService},
};
use secrecy::ExposeSecret as _;

/// How a registry shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// HTTP without TLS.
    Plain,
    /// TLS by a private CA, which Colophon is told to trust.
    PrivateCa,
    /// TLS by a certificate that signs itself, which Colophon knows by its fingerprint.
    SelfSigned,
}

/// How a registry is set up.
#[derive(Clone)]
pub struct SiteOptions {
    /// Puts a [`FaultProxy`] before it, under whose address everybody knows it.
    pub proxy: bool,
    /// How it shows who it is.
    pub trust: Trust,
    /// Who may enter: with a password (htpasswd). The first one is the one that tests push as.
    pub logins: Vec<Login>,
    /// Who may do what by tokens (the distribution-spec's "Bearer"), instead of `logins`.
    pub tokens: Option<Vec<(Login, Vec<Allowed>)>>,
    /// Whether manifests and blobs can be deleted.
    pub delete: bool,
    /// Further lines of its `[[registry]]` table, `credentials` among them.
    pub settings: String,
}

impl Default for SiteOptions {
    /// Plain HTTP, open to all, no proxy.
    fn default() -> Self {
        Self {
            proxy: false,
            trust: Trust::Plain,
            logins: Vec::new(),
            tokens: None,
            delete: true,
            settings: String::new(),
        }
    }
}

impl SiteOptions {
    /// Plain HTTP, open to all, behind a proxy.
    pub fn proxied() -> Self {
        Self { proxy: true, ..Self::default() }
    }

    /// The same with a password.
    #[must_use]
    pub fn login(mut self, login: &Login) -> Self {
        self.logins.push(login.clone());
        self
    }

    /// The same with token authentication.
    #[must_use]
    pub fn token_login(mut self, login: &Login, allowed: Vec<Allowed>) -> Self {
        self.tokens.get_or_insert_default().push((login.clone(), allowed));
        self
    }

    /// The same with TLS.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The same with further lines of its `[[registry]]` table.
    #[must_use]
    pub fn settings(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }
}

/// One registry.
pub struct Site {
    registry: Registry,
    proxy: Option<FaultProxy>,
    tokens: Option<TokenService>,
    login: Option<Login>,
    ca_pem: Option<String>,
    toml: String,
}

impl Site {
    pub(crate) async fn start(options: SiteOptions, folder: &std::path::Path) -> Result<Self> {
        let tls = certificate(options.trust)?;
        let tokens = match &options.tokens {
            None => None,
            Some(logins) => {
                let service = TokenService::start(TokenOptions {
                    tls: tls.clone(),
                    ..TokenOptions::default()
                })
                .await?;
                for (login, allowed) in logins {
                    let password = login.password.expose_secret();
                    service.set_login(&login.username, password, allowed.clone());
                }
                Some(service)
            }
        };
        let auth = match &tokens {
            Some(service) => service.registry_auth(),
            None if options.logins.is_empty() => RegistryAuth::None,
            None => RegistryAuth::Htpasswd(options.logins.clone()),
        };
        // A proxy ends TLS itself and speaks HTTP to the registry.
        let own_tls = if options.proxy { None } else { tls.clone() };
        let delete = options.delete;
        let registry = RegistryOptions { auth, tls: own_tls, delete, ..RegistryOptions::default() };
        let registry = Registry::start(registry).await?;
        let proxy = if options.proxy {
            Some(FaultProxy::start_with(registry.address(), tls.as_ref()).await?)
        } else {
            None
        };
        let first_token = options.tokens.iter().flatten().next().map(|(login, _)| login);
        let login = first_token.or(options.logins.first()).cloned();
        let ca_pem = tls.as_ref().map(|tls| tls.ca_pem.clone());
        let mut site = Self { registry, proxy, tokens, login, ca_pem, toml: String::new() };
        site.toml = site.table(&options, tls.as_ref(), folder)?;
        Ok(site)
    }

    fn table(
        &self,
        options: &SiteOptions,
        tls: Option<&Tls>,
        folder: &std::path::Path,
    ) -> Result<String> {
        let host = self.host();
        let trust = match (options.trust, tls) {
            (Trust::Plain, _) | (_, None) => "plain_http = true".to_owned(),
            (Trust::PrivateCa, Some(tls)) => {
                let file = folder.join(format!("ca-{}.pem", host.replace(':', "-")));
                std::fs::write(&file, &tls.ca_pem).context("writing a CA")?;
                format!("ca_file = {:?}", file.display().to_string())
            }
            (Trust::SelfSigned, Some(tls)) => {
                format!("cert_sha256 = {:?}", pki::fingerprint(&tls.cert_pem)?)
            }
        };
        let realm = self
            .tokens
            .as_ref()
            .map_or_else(String::new, |service| format!("token_realms = [{:?}]\n", service.host()));
        let settings = &options.settings;
        Ok(format!("[[registry]]\nhost = {host:?}\n{trust}\n{realm}{settings}\n"))
    }

    pub(crate) fn toml(&self) -> &str {
        &self.toml
    }

    /// `127.0.0.1:port`, as it stands in references: the proxy's where there is one.
    pub fn host(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.registry.host(), FaultProxy::host)
    }

    /// A repository, host included.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// A reference by tag.
    pub fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.host())
    }

    /// The registry itself.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry itself, to be stopped and started again.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The proxy.
    ///
    /// # Panics
    /// Where the registry was set up without one.
    #[expect(clippy::expect_used, reason = "a test that asks for what it did not set up is wrong")]
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("the registry was set up without a proxy")
    }

    /// The token service, where there is one.
    pub fn tokens(&self) -> Option<&TokenService> {
        self.tokens.as_ref()
    }

    /// Independent eyes on the registry, past the proxy.
    pub fn peer(&self) -> Result<Peer> {
        let mut peer = Peer::of(&self.registry)?;
        if let Some(ca_pem) = &self.ca_pem {
            peer = peer.trusting(ca_pem)?;
        }
        if let Some(login) = &self.login {
            peer = peer.login(login.clone());
        }
        Ok(peer)
    }

    /// What `skopeo inspect` says that a tag points to, past the proxy.
    pub async fn inspect(&self, name: &str, tag: &str) -> Result<String> {
        let host = self.registry.host();
        Ok(skopeo_inspect_digest(&host, name, tag, self.login.as_ref()).await?)
    }

    /// Builds an image and pushes it with `skopeo`, past the proxy.
    pub async fn push(&self, image: &ImageSpec, name: &str, tag: &str) -> Result<Image> {
        let image = image.clone().build().await?;
        self.push_built(&image, name, tag).await?;
        Ok(image)
    }

    /// Pushes an image that was built already, past the proxy.
    pub async fn push_built(&self, image: &Image, name: &str, tag: &str) -> Result<()> {
        let host = self.registry.host();
        let to = Destination { host: &host, repository: name, tag, login: self.login.as_ref() };
        Ok(image.push(&to).await?)
    }
}

fn certificate(trust: Trust) -> Result<Option<Tls>> {
    Ok(match trust {
        Trust::Plain => None,
        Trust::PrivateCa => Some(Authority::new("colophon test CA")?.issue()?),
        Trust::SelfSigned => Some(pki::self_signed()?),
    })
}
