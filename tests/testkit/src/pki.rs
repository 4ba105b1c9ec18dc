//! Certificates for servers on the loopback interface: by a private CA, and self-signed in the
//! way that operators make them (`openssl req -x509`, which says CA:TRUE).

use std::{net::Ipv4Addr, sync::Arc};

use colophon_launcher::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Result, While as _};

/// A private certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new authority with a new key.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = named(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).doing("signing a CA")?;
        let pem = issuer.pem();
        Ok(Self { issuer, pem })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server on 127.0.0.1 and `localhost`; clients may show it, too.
    pub fn issue(&self) -> Result<Tls> {
        let mut params = loopback("colophon test server")?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key()?;
        let cert = params.signed_by(&key, &self.issuer).doing("signing a certificate")?;
        Ok(Tls {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem().into(),
            ca_pem: self.pem.clone(),
        })
    }
}

/// A certificate for 127.0.0.1 and `localhost` that signs itself and calls itself a CA.
pub fn self_signed() -> Result<Tls> {
    let mut params = loopback("colophon self-signed")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = key()?;
    let pem = params.self_signed(&key).doing("signing a certificate")?.pem();
    Ok(Tls { cert_pem: pem.clone(), key_pem: key.serialize_pem().into(), ca_pem: pem })
}

/// The SHA-256 of the first certificate in a PEM text, in lower-case hexadecimal without colons.
pub fn fingerprint(cert_pem: &str) -> Result<String> {
    Ok(hex::encode(Sha256::digest(&der(cert_pem)?)))
}

/// The bytes of the first certificate in a PEM text.
pub(crate) fn der(cert_pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(cert_pem.as_bytes()).doing("reading a certificate")
}

/// What a server of our own needs to serve with this certificate.
pub(crate) fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>> {
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(tls.cert_pem.as_bytes()).collect();
    let chain = chain.doing("reading a certificate")?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.expose_secret().as_bytes())
        .doing("reading a private key")?;
    // The provider is named, so that the process's default, which is a service's to choose,
    // stays as it is.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .doing("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .doing("joining a certificate and its key")?;
    Ok(Arc::new(config))
}

fn key() -> Result<KeyPair> {
    KeyPair::generate().doing("making a key")
}

fn named(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).doing("naming a certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn loopback(name: &str) -> Result<CertificateParams> {
    let mut params = named(name)?;
    let localhost = "localhost".try_into().doing("naming a certificate")?;
    params.subject_alt_names =
        vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into()), SanType::DnsName(localhost)];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_what_openssl_would_say_and_each_certificate_has_its_own() {
        let authority = Authority::new("test").unwrap();
        let (one, two) = (authority.issue().unwrap(), authority.issue().unwrap());
        let print = fingerprint(&one.cert_pem).unwrap();
        assert_eq!(print.len(), 64);
        assert_ne!(print, fingerprint(&two.cert_pem).unwrap());
        assert!(server_config(&one).is_ok() && server_config(&self_signed().unwrap()).is_ok());
    }
}
