//! How far certificates are trusted: each of the settings against a real registry with a
//! private CA and with a self-signed certificate.

use std::path::PathBuf;

use colophon_domain::{Access, Reason, Repository, Retry};
use colophon_launcher::{Registry, RegistryAuth, RegistryOptions, Tls};
use colophon_registry::{Registries, RegistryConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    fake::Fake,
    support::{Keys, session, tag},
};

/// A self-signed certificate as `openssl req -x509` makes them, with `CA:TRUE`.
fn self_signed() -> (Tls, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let pin = hex::encode(Sha256::digest(certificate.der()));
    let tls = Tls {
        cert_pem: certificate.pem(),
        key_pem: key.serialize_pem().into(),
        ca_pem: certificate.pem(),
    };
    (tls, pin)
}

/// A certificate of a private CA.
fn of_a_private_ca() -> Tls {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Tls { cert_pem: certificate.pem(), key_pem: key.serialize_pem().into(), ca_pem: issuer.pem() }
}

async fn registry(tls: Option<Tls>) -> Registry {
    Registry::start(RegistryOptions { tls, ..RegistryOptions::default() }).await.unwrap()
}

fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, text).unwrap();
    path
}

/// Asks for a tag that is not there; the reason if it does not come that far.
async fn reason(registry: &Registry, set: impl FnOnce(&mut RegistryConfig)) -> Option<Reason> {
    let mut config = RegistryConfig::new(registry.host().parse().unwrap());
    set(&mut config);
    let repository = Repository::parse(&format!("{}/a/b", registry.host())).unwrap();
    let session = session(config, Keys::one("robot", "pat"), &repository, Access::Pull);
    match session.head(&tag("v1")).await {
        Ok(found) => {
            assert_eq!(found, None);
            None
        }
        Err(failure) => {
            assert!(failure.remedy_text().is_some(), "{failure}");
            assert_eq!(failure.retry_class(), Retry::Never, "{failure}");
            Some(failure.reason())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_is_trusted_by_its_file_only() {
    let tls = of_a_private_ca();
    let folder = TempDir::new().unwrap();
    let ca = file(&folder, &tls.ca_pem);
    let registry = registry(Some(tls)).await;
    assert_eq!(reason(&registry, |_| {}).await, Some(Reason::TlsUntrusted));
    assert_eq!(reason(&registry, |config| config.ca_file = Some(ca)).await, None);
    assert_eq!(reason(&registry, |config| config.insecure_skip_verify = true).await, None);
    let pin = |config: &mut RegistryConfig| config.cert_sha256 = Some("0".repeat(64));
    assert_eq!(reason(&registry, pin).await, Some(Reason::TlsUntrusted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_pinned() {
    let (tls, pin) = self_signed();
    let folder = TempDir::new().unwrap();
    let ca = file(&folder, &tls.ca_pem);
    let registry = registry(Some(tls)).await;
    assert_eq!(reason(&registry, |config| config.cert_sha256 = Some(pin)).await, None);
    // As its own CA it does not count: it may not be an end entity.
    let as_ca = reason(&registry, |config| config.ca_file = Some(ca)).await;
    assert_eq!(as_ca, Some(Reason::TlsUntrusted));
    assert_eq!(reason(&registry, |_| {}).await, Some(Reason::TlsUntrusted));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_recognised_and_spoken_only_if_allowed() {
    let registry = registry(None).await;
    assert_eq!(reason(&registry, |_| {}).await, Some(Reason::PlainHttpRefused));
    assert_eq!(reason(&registry, |config| config.plain_http = true).await, None);
    let insecure = reason(&registry, |config| config.insecure_skip_verify = true).await;
    assert_eq!(insecure, Some(Reason::PlainHttpRefused), "never plain by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_recognised_where_plain_http_is_configured() {
    let (tls, _) = self_signed();
    let registry = registry(Some(tls)).await;
    let plain = reason(&registry, |config| config.plain_http = true).await;
    assert_eq!(plain, Some(Reason::RegistryProtocol));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pat_never_goes_to_a_realm_without_tls() {
    let (tls, pin) = self_signed();
    let realm = Fake::start().await;
    let auth = RegistryAuth::Token {
        realm: realm.url("/token"),
        service: "registry".into(),
        issuer: "issuer".into(),
        root_cert_pem: tls.ca_pem.clone(),
    };
    let options = RegistryOptions { auth, tls: Some(tls), ..RegistryOptions::default() };
    let registry = Registry::start(options).await.unwrap();
    let mut config = RegistryConfig::new(registry.host().parse().unwrap());
    config.cert_sha256 = Some(pin);
    config.token_realms = vec![realm.address.to_string()];
    let repository = Repository::parse(&format!("{}/a/b", registry.host())).unwrap();
    let session = session(config, Keys::one("robot", "pat"), &repository, Access::Pull);
    let failure = session.head(&tag("v1")).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::AddressRefused);
    assert!(realm.seen().is_empty());
}

#[test]
fn a_ca_file_that_is_none_is_refused_at_the_start() {
    let folder = TempDir::new().unwrap();
    for path in [file(&folder, "no pem"), folder.path().join("missing.pem")] {
        let mut config = RegistryConfig::new("r.corp.lan".parse().unwrap());
        config.ca_file = Some(path);
        let failure = Registries::new(vec![config], Keys::none()).unwrap_err();
        assert_eq!(failure.reason(), Reason::TlsUntrusted);
        assert_eq!(failure.field_name(), Some("registry.ca_file"));
    }
}
