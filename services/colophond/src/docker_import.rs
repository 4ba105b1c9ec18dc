//! `colophond config import-docker`: what Docker's `daemon.json` calls insecure registries, as
//! sections of the configuration. To Docker an entry means "TLS with any certificate, else HTTP";
//! here each registry is trusted in one way, so each is asked which one it needs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use colophon_domain::RegistryHost;
use colophon_registry::{Shown, appraise};
use serde::Deserialize;

/// The part of `daemon.json` that is read.
#[derive(Deserialize)]
struct Daemon {
    #[serde(default, rename = "insecure-registries")]
    insecure_registries: Vec<String>,
}

/// Prints a section for each entry.
///
/// # Errors
/// A file that cannot be read, and entries that became no section; the others are printed.
pub(crate) async fn import(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let daemon: Daemon = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a daemon.json of Docker", file.display()))?;
    if daemon.insecure_registries.is_empty() {
        return super::say("# Docker trusts no insecure registry there.");
    }
    let mut left_out = 0;
    for entry in &daemon.insecure_registries {
        match section(entry).await {
            Ok(section) => super::say(section)?,
            Err(error) => {
                eprintln!("{}: {entry}: {error:#}", file.display());
                left_out += 1;
            }
        }
    }
    if left_out > 0 {
        bail!("entries that became no section: {left_out}");
    }
    Ok(())
}

async fn section(entry: &str) -> Result<String> {
    let host = host(entry)?;
    let head = format!("[[registry]]\nhost = \"{host}\"\n");
    Ok(match appraise(&host).await? {
        Shown::Trusted => {
            format!("# Its certificate is trusted by this system: nothing has to be said.\n{head}")
        }
        Shown::Certificate(hash) => format!(
            "# It showed this certificate just now. Compare it with the one that the registry really has\n\
             # (openssl x509 -noout -fingerprint -sha256 -in its.crt), or name its private CA by ca_file.\n\
             {head}cert_sha256 = \"{}\"\n",
            hex::encode(hash)
        ),
        Shown::PlainHttp => format!(
            "# It has no TLS: whoever is on the way can read the PAT.\n{head}plain_http = true\n"
        ),
        Shown::Nothing => bail!(
            "the registry answers neither by TLS nor by HTTP; try again from where it can be \
             reached, or write its section by hand"
        ),
    })
}

fn host(entry: &str) -> Result<RegistryHost> {
    let name = ["http://", "https://"].iter().find_map(|scheme| entry.strip_prefix(scheme));
    let name = name.unwrap_or(entry);
    if name.contains('/') {
        bail!(
            "a range of addresses (CIDR) cannot be trusted as a whole, since whoever gets an address \
             in it would get the PATs; name its registries one by one"
        );
    }
    name.parse().with_context(|| "this is no registry's host[:port]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_refused_and_schemes_are_not_part_of_the_name() {
        for range in ["10.0.0.0/8", "fd00::/8"] {
            let error = host(range).unwrap_err();
            assert!(error.to_string().contains("CIDR"), "{error}");
        }
        for entry in ["r.corp.lan:5000", "http://r.corp.lan:5000", "https://r.corp.lan:5000"] {
            assert_eq!(host(entry).unwrap().as_str(), "r.corp.lan:5000");
        }
        assert!(host("not a host").is_err());
    }
}
