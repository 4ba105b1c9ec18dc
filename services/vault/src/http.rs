//! The HTTP client for Vault: time-outs, no redirects, the configured authorities and the
//! certificate that this process shows. Certificates are short-lived where machines make them, so
//! the client is made anew when one of their files has changed.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use colophon_domain::{Failure, Result};
use reqwest::{Certificate, Client, Identity, redirect::Policy};
use secrecy::zeroize::Zeroizing;
use tracing::{info, warn};

use crate::VaultConfig;

/// What tells one content of a file from the next, without reading it. `None` while it is not
/// there, as in the moment of its replacement.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The client, and the files that it was made from as they were then.
pub(crate) struct Http {
    state: Mutex<State>,
}

struct State {
    client: Client,
    stamps: [Stamp; 3],
}

impl Http {
    pub(crate) fn new(config: &VaultConfig) -> Result<Self> {
        let stamps = stamps(config);
        Ok(Self { state: Mutex::new(State { client: build(config)?, stamps }) })
    }

    /// The client as it should be now. While the files make no client, a certificate whose key has
    /// not been replaced yet for example, it is the one before.
    pub(crate) fn client(&self, config: &VaultConfig) -> Client {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamps(config);
        if found != state.stamps {
            state.stamps = found;
            match build(config) {
                Ok(client) => {
                    info!("the certificates for Vault were read anew");
                    state.client = client;
                }
                Err(failure) => {
                    let message = failure.message();
                    warn!(message, "the new certificates for Vault cannot be used yet");
                }
            }
        }
        state.client.clone()
    }
}

fn stamps(config: &VaultConfig) -> [Stamp; 3] {
    [&config.ca_file, &config.client_cert_file, &config.client_key_file].map(|file| {
        let data = fs::metadata(file.as_ref()?).ok()?;
        Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
    })
}

fn build(config: &VaultConfig) -> Result<Client> {
    let secure = config.address.scheme() == "https";
    let mut builder = Client::builder()
        .user_agent(concat!("colophon/", env!("CARGO_PKG_VERSION")))
        .timeout(config.request_timeout)
        .connect_timeout(config.request_timeout)
        .pool_idle_timeout(Duration::from_mins(1))
        // A redirect would carry the token to whatever host it names.
        .redirect(Policy::none())
        .https_only(secure);
    if config.is_loopback() {
        builder = builder.no_proxy();
    }
    if let Some(path) = config.ca_file.as_ref().filter(|_| secure) {
        builder = builder.tls_certs_only(authorities(path)?);
    } else if !secure {
        // Without this the client looks for the system's authorities, which a small image has not.
        builder = builder.tls_certs_only([]);
    }
    let shown = config.client_cert_file.as_deref().zip(config.client_key_file.as_deref());
    if let Some((cert, key)) = shown {
        builder = builder.identity(identity(cert, key)?);
    }
    builder.build().map_err(|error| {
        let failure = if shown.is_some() {
            Failure::invalid("vault.client_key_file", "the certificate and the key do not match")
                .remedy("give the private key of the certificate in vault.client_cert_file")
        } else {
            Failure::invalid("vault", "no HTTP client for Vault can be made")
                .remedy("install the system's CA certificates, or name a vault.ca_file")
        };
        failure.caused_by(error)
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>> {
    let unusable = |what: String| {
        Failure::invalid("vault.ca_file", format!("{}: {what}", path.display()))
            .remedy("give a PEM file with the certificates of the authorities to trust")
    };
    let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&pem)
        .map_err(|error| unusable("no PEM certificates".to_owned()).caused_by(error))?;
    if authorities.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(authorities)
}

fn identity(cert: &Path, key: &Path) -> Result<Identity> {
    let unreadable = |field: &'static str, path: &Path, what: &str| {
        Failure::invalid(field, format!("{}: {what}", path.display()))
    };
    let (cert_field, key_field) = ("vault.client_cert_file", "vault.client_key_file");
    let mut pem = Zeroizing::new(
        fs::read(cert).map_err(|error| unreadable(cert_field, cert, &error.to_string()))?,
    );
    if !Certificate::from_pem_bundle(&pem).is_ok_and(|certs| !certs.is_empty()) {
        return Err(unreadable(cert_field, cert, "no PEM certificate"));
    }
    let key_pem = Zeroizing::new(
        fs::read(key).map_err(|error| unreadable(key_field, key, &error.to_string()))?,
    );
    pem.push(b'\n');
    pem.extend_from_slice(&key_pem);
    Identity::from_pem(&pem).map_err(|error| {
        unreadable(key_field, key, "no PEM private key (PKCS #8, PKCS #1 or SEC 1)")
            .caused_by(error)
    })
}
