//! The requests to Vault: one HTTP client, and on it vaultrs for the API. What comes back as an
//! error is reduced to its status: the bodies may hold what must not be logged.

use std::{collections::HashMap, error::Error as StdError};

use colophon_domain::Result;
use rustify::{clients::reqwest::Client as RustifyClient, errors::ClientError as RustifyError};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};
use vaultrs::{
    api::{AuthInfo, EndpointMiddleware, token::responses::LookupTokenResponse},
    auth::{approle, kubernetes, oidc},
    client::{VaultClient, VaultClientSettings},
    error::ClientError,
    kv1, kv2, token,
};

use crate::{KvVersion, SecretPath, VaultConfig, http::Http, place::Place, trouble::Trouble};

/// How Vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultHealth {
    /// It serves requests, or is a standby that passes them on.
    Active,
    /// It is sealed.
    Sealed,
    /// It was never initialised.
    Uninitialised,
    /// It cannot be reached or gives no answer that is of use; the text says which.
    Away(String),
}

/// An answer that is not the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another status than success; whether the body says that Vault is sealed.
    Status { code: u16, sealed: bool },
    /// No connection, or it broke, or it took too long.
    Unreachable(&'static str, &'static str),
    /// The answer is not one of Vault's.
    Garbled,
}

/// What the fields of a secret hold.
pub(crate) type Fields = HashMap<String, Value>;

/// Sends requests to one Vault.
pub(crate) struct Wire {
    http: Http,
    config: VaultConfig,
    address: String,
}

impl Wire {
    pub(crate) fn new(config: VaultConfig) -> Result<Self> {
        config.validate()?;
        let address = config.shown_address();
        Ok(Self { http: Http::new(&config)?, config, address })
    }

    pub(crate) fn config(&self) -> &VaultConfig {
        &self.config
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Reads the newest version of a secret.
    pub(crate) async fn read(
        &self,
        token: &SecretString,
        place: &Place,
    ) -> Result<Fields, Refusal> {
        let client = self.client(Some(token), place.namespace.as_deref());
        let (mount, path) = (place.mount.as_str(), place.path.as_str());
        match place.kv_version {
            KvVersion::One => answer(kv1::get(&client, mount, path)).await,
            KvVersion::Two => answer(kv2::read(&client, mount, path)).await,
        }
    }

    /// Logs in with a role id and a secret id.
    pub(crate) async fn approle(
        &self,
        mount: &SecretPath,
        role_id: &str,
        secret_id: &SecretString,
    ) -> Result<AuthInfo, Refusal> {
        let client = self.client(None, self.namespace());
        answer(approle::login(&client, mount.as_str(), role_id, secret_id.expose_secret())).await
    }

    /// Logs in with the token of a service account.
    pub(crate) async fn kubernetes(
        &self,
        mount: &SecretPath,
        role: &str,
        jwt: &SecretString,
    ) -> Result<AuthInfo, Refusal> {
        let client = self.client(None, self.namespace());
        answer(kubernetes::login(&client, mount.as_str(), role, jwt.expose_secret())).await
    }

    /// Logs in with a token of an issuer that Vault trusts.
    pub(crate) async fn jwt(
        &self,
        mount: &SecretPath,
        role: &str,
        jwt: &SecretString,
    ) -> Result<AuthInfo, Refusal> {
        let client = self.client(None, self.namespace());
        let role = Some(role.to_owned());
        answer(oidc::login(&client, mount.as_str(), jwt.expose_secret(), role)).await
    }

    /// Asks what a token is good for.
    pub(crate) async fn look_up(
        &self,
        token: &SecretString,
    ) -> Result<LookupTokenResponse, Refusal> {
        let client = self.client(Some(token), self.namespace());
        answer(token::lookup_self(&client)).await
    }

    /// Lengthens the life of a token.
    pub(crate) async fn renew(&self, token: &SecretString) -> Result<AuthInfo, Refusal> {
        let client = self.client(Some(token), self.namespace());
        answer(token::renew_self(&client, None)).await
    }

    /// Asks how Vault is; needs no token.
    pub(crate) async fn health(&self) -> VaultHealth {
        let mut url = self.config.address.clone();
        url.set_path("/v1/sys/health");
        match self.http.client(&self.config).get(url).send().await {
            Ok(answer) => match answer.status().as_u16() {
                200 | 429 | 473 => VaultHealth::Active,
                501 => VaultHealth::Uninitialised,
                503 => VaultHealth::Sealed,
                472 => VaultHealth::Away("it is a secondary for disaster recovery".to_owned()),
                code => VaultHealth::Away(format!("it answers {code}")),
            },
            Err(error) => VaultHealth::Away(unreachable(&error).0.to_owned()),
        }
    }

    /// The namespace of the login.
    fn namespace(&self) -> Option<&str> {
        self.config.namespace.as_deref()
    }

    /// A vaultrs client for one request. It keeps the token as a plain `String`, so it does not
    /// live longer than that.
    fn client(&self, token: Option<&SecretString>, namespace: Option<&str>) -> VaultClient {
        let config = &self.config;
        let settings = VaultClientSettings {
            address: config.address.clone(),
            ca_certs: Vec::new(),
            identity: None,
            timeout: Some(config.request_timeout),
            token: String::new(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: None,
            proxy: None,
        };
        let middle = EndpointMiddleware {
            token: token.map(|token| token.expose_secret().to_owned()).unwrap_or_default(),
            version: "v1".to_owned(),
            wrap: None,
            namespace: namespace.map(str::to_owned),
        };
        let http = RustifyClient::new(config.address.as_str(), self.http.client(config));
        VaultClient { http, middle, settings }
    }
}

/// What Vault says to one call, made without a subscriber: vaultrs logs every refusal as an error of
/// its own, and a failure is logged once, where it is handled.
async fn answer<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Refusal> {
    call.with_subscriber(NoSubscriber::new()).await.map_err(refusal)
}

/// Reduces an error of vaultrs to what may be kept of it.
fn refusal(error: ClientError) -> Refusal {
    let sealed = |text: &str| text.contains("sealed");
    match error {
        ClientError::APIError { code, errors } => {
            Refusal::Status { code, sealed: errors.iter().any(|text| sealed(text)) }
        }
        ClientError::RestClientError { source } => match source {
            RustifyError::ServerResponseError { code, content } => {
                Refusal::Status { code, sealed: content.as_deref().is_some_and(sealed) }
            }
            RustifyError::RequestError { source, .. } | RustifyError::ResponseError { source } => {
                match source.downcast_ref::<reqwest::Error>() {
                    Some(error) => {
                        let (what, remedy) = unreachable(error);
                        Refusal::Unreachable(what, remedy)
                    }
                    None => Refusal::Garbled,
                }
            }
            _ => Refusal::Garbled,
        },
        _ => Refusal::Garbled,
    }
}

/// What went wrong on the way, and what to do about it.
fn unreachable(error: &reqwest::Error) -> (&'static str, &'static str) {
    let look = "look whether Vault runs and vault.address is right";
    if is_untrusted(error) {
        (
            "has a certificate that is not trusted",
            "name the private CA's certificate in vault.ca_file",
        )
    } else if error.is_timeout() {
        ("does not answer in time", look)
    } else if error.is_connect() {
        ("cannot be connected to", look)
    } else {
        ("broke the connection", look)
    }
}

/// Whether somewhere behind the error is a certificate.
fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
        return true;
    }
    // An `io::Error` leaves out what it wraps when it is asked for its source.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => is_untrusted(inner),
        None => error.source().is_some_and(is_untrusted),
    }
}

impl Refusal {
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status { code: 403, .. })
    }

    /// Whether asking again later, in the same way, can bring another answer.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Status { code, .. } => matches!(code, 300..=399 | 412 | 429 | 472 | 473 | 500..),
            Self::Unreachable(..) | Self::Garbled => true,
        }
    }

    /// The trouble with a Vault that is not there; `None` if it is there and says no.
    pub(crate) fn outage(&self, address: &str) -> Option<Trouble> {
        match self {
            Self::Status { code: 503, sealed: true } => Some(Trouble::sealed(address)),
            Self::Status { code: 300..=399, .. } => Some(Trouble::away(
                address,
                "is a standby that sends requests elsewhere",
                "let vault.address name the active node, or let the standbys forward requests",
            )),
            Self::Status { code, .. } if self.is_passing() => Some(Trouble::away(
                address,
                &format!("answers {code}"),
                "look at Vault's own log and health",
            )),
            Self::Status { .. } => None,
            Self::Unreachable(what, remedy) => Some(Trouble::away(address, what, remedy)),
            Self::Garbled => Some(Trouble::away(
                address,
                "gives an answer that is not Vault's",
                "look whether vault.address names Vault itself, and kv_version is that of the mount",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use colophon_domain::Reason;

    use super::*;

    #[test]
    fn a_status_is_an_outage_or_a_refusal() {
        let reason = |code, sealed| {
            Refusal::Status { code, sealed }.outage("https://v").map(|trouble| trouble.reason)
        };
        assert_eq!(reason(503, true), Some(Reason::VaultSealed));
        for code in [307, 412, 429, 472, 473, 500, 502, 503, 504] {
            assert_eq!(reason(code, false), Some(Reason::VaultUnavailable), "{code}");
        }
        for code in [400, 403, 404, 405] {
            assert_eq!(reason(code, false), None, "{code}");
        }
    }

    #[test]
    fn an_error_keeps_its_status_and_loses_its_body() {
        let body = Some("{\"data\":{\"token\":\"hunter2\"}} sealed".to_owned());
        let error = RustifyError::ServerResponseError { code: 503, content: body };
        let refusal = refusal(ClientError::from(error));
        assert_eq!(refusal, Refusal::Status { code: 503, sealed: true });
        assert!(!format!("{refusal:?}").contains("hunter2"));
    }
}
