//! How far a registry's certificate is trusted: the system's CAs, one more CA, exactly one
//! certificate, or (explicitly) anything. Always rustls with aws-lc-rs.

use std::{fmt, path::Path, sync::Arc};

use colophon_domain::{Failure, Reason, Result};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest as _, Sha256};

/// Whose word is taken for a server being the one that was meant.
pub(crate) enum Trust {
    /// The CAs of the store.
    Roots(Arc<RootCertStore>),
    /// Exactly the certificate with this SHA-256.
    Pinned([u8; 32]),
    /// Nobody's; whatever the server shows is taken.
    Anything,
}

/// The operating system's CAs. None at all is no failure here: registries over plain HTTP or
/// with a pinned certificate need none, and the others say so when they are connected to.
pub(crate) fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = store.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, errors = found.errors.len(), "system CAs loaded");
    store
}

/// `base` and the CAs in a PEM file.
pub(crate) fn with_ca_file(base: &RootCertStore, path: &Path) -> Result<RootCertStore> {
    let refused = |what: &str| {
        Failure::new(Reason::TlsUntrusted, format!("ca_file {}: {what}", path.display()))
            .field("registry.ca_file")
            .remedy("give a PEM file with the certificate of the registry's CA")
    };
    let pem = std::fs::read(path).map_err(|error| refused("cannot be read").caused_by(error))?;
    let mut store = base.clone();
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| refused("is not PEM"))?;
        store
            .add(certificate)
            .map_err(|error| refused("holds a certificate that cannot be a CA").caused_by(error))?;
        count += 1;
    }
    if count == 0 { Err(refused("holds no certificate")) } else { Ok(store) }
}

/// A client's TLS settings, with HTTP/2 where the server offers it.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Reason::Internal, "TLS cannot be set up").caused_by(error))?;
    let mut config = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(Arc::clone(roots)),
        Trust::Pinned(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { pin: Some(*pin), provider })),
        Trust::Anything => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { pin: None, provider })),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts the pinned certificate, or any where none is pinned. The handshake's signature is
/// checked in both cases: the server must hold the key of the certificate that it shows.
struct Verifier {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("pinned", &self.pin.is_some()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pin {
            Some(pin) if Sha256::digest(end_entity.as_ref()).as_slice() != pin => Err(
                rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
            ),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
