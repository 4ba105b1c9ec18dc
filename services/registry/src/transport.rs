//! What went wrong below HTTP: not reached, not trusted, not TLS at all, or broken off; and
//! whether the request can have been heard.

use std::{error::Error as StdError, io};

use colophon_domain::{Failure, Reason};

use crate::{address, answer::Asked};

/// The failure for an error of the HTTP client. Its own text may hold a signed URL and is
/// therefore cut before it is kept for the log.
pub(crate) fn explain(error: reqwest::Error, asked: &Asked<'_>) -> Failure {
    let registry = asked.registry();
    let failure = if let Some(tls) = find::<rustls::Error>(&error) {
        explain_tls(tls, asked)
    } else if find::<address::Refused>(&error).is_some() {
        asked
            .failure(Reason::AddressRefused, &format!("{registry} leads to a private address"))
            .remedy("add the host to storage_hosts if it is really the registry's storage")
    } else if error.is_timeout() {
        asked.unavailable("no connection in time")
    } else if error.is_connect() {
        asked.unavailable("no connection")
    } else {
        asked.unavailable("the connection broke")
    };
    failure.caused_by(error.without_url())
}

fn explain_tls(error: &rustls::Error, asked: &Asked<'_>) -> Failure {
    let registry = asked.registry();
    match error {
        rustls::Error::InvalidCertificate(why) => asked
            .failure(Reason::TlsUntrusted, &format!("the certificate is not trusted: {why}"))
            .remedy(format!(
                "give the registry {registry} the private CA (ca_file) or pin the certificate \
                 (cert_sha256)"
            )),
        // The first bytes of the answer were no TLS record.
        rustls::Error::InvalidMessage(_) => asked
            .failure(Reason::PlainHttpRefused, &format!("{registry} does not answer with TLS"))
            .remedy("set plain_http for this registry if it may be spoken to without TLS"),
        other => asked.unavailable(&format!("TLS failed: {other}")),
    }
}

/// Looks for an error of a type in the chain of causes. An `io::Error` hides what it carries
/// from `source()`, so it is asked too.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}
