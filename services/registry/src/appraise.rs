//! How a registry can be trusted that nobody has configured yet: what it shows when it is asked,
//! without a credential and without believing it.

use std::{sync::Arc, time::Duration};

use colophon_domain::{Failure, Reason, RegistryHost, Result};
use reqwest::{Client, StatusCode, redirect, tls::TlsInfo};
use sha2::{Digest as _, Sha256};

use crate::tls::{self, Trust};

/// For each of the at most three questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a registry showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A certificate that the system trusts for this name.
    Trusted,
    /// A certificate that the system does not trust: its SHA-256, of the DER.
    Certificate([u8; 32]),
    /// No TLS, and HTTP.
    PlainHttp,
    /// Neither.
    Nothing,
}

/// Asks a registry `/v2/` (distribution-spec, "Determining Support") over TLS and, if there is
/// none, over HTTP.
///
/// # Errors
/// `INTERNAL` if the HTTP client cannot be set up. A registry that does not answer is no error.
pub async fn appraise(registry: &RegistryHost) -> Result<Shown> {
    let roots = Trust::Roots(Arc::new(tls::system_roots()));
    if ask(&client(&roots)?, "https", registry).await.is_some() {
        return Ok(Shown::Trusted);
    }
    if let Some((_, certificate)) = ask(&client(&Trust::Anything)?, "https", registry).await {
        return Ok(certificate.map_or(Shown::Nothing, Shown::Certificate));
    }
    Ok(match ask(&client(&roots)?, "http", registry).await {
        Some((StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => {
            Shown::PlainHttp
        }
        _ => Shown::Nothing,
    })
}

fn client(trust: &Trust) -> Result<Client> {
    Client::builder()
        .user_agent(concat!("colophon/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls::client_config(trust)?)
        .tls_info(true)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| {
            Failure::new(Reason::Internal, "the HTTP client cannot be set up").caused_by(error)
        })
}

/// The status of the answer, and the SHA-256 of the certificate that came with it.
async fn ask(
    client: &Client,
    scheme: &str,
    registry: &RegistryHost,
) -> Option<(StatusCode, Option<[u8; 32]>)> {
    let url = format!("{scheme}://{}/v2/", registry.as_str());
    let response = client.get(url).send().await.ok()?;
    let shown = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    let hash = shown.map(|certificate| Sha256::digest(certificate).into());
    Some((response.status(), hash))
}
