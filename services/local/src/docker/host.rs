//! Which engine: one of this machine, by its socket or by plain HTTP.

use std::{env, net::IpAddr};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as DockerError};

use crate::error::{LocalError, LocalErrorKind, shown};

/// Where the engine is, unless somebody says otherwise.
const USUAL: &str = "unix:///var/run/docker.sock";
/// How long an answer may take, in seconds. An old engine puts the whole image into a folder of
/// its own before it answers with the first byte of it.
const PATIENCE: u64 = 60 * 60;

const PIPE: &str = "pipe the image instead: docker save NAME | colophon push - ..";

/// A client, not connected yet, and the address that it will use.
pub(super) fn client(host: Option<&str>) -> Result<(Docker, String), LocalError> {
    let variable = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let host = host.map(str::to_owned).or(variable).unwrap_or_else(|| USUAL.to_owned());
    let made = match host.split_once("://") {
        Some(("unix", path)) => Docker::connect_with_unix(path, PATIENCE, API_DEFAULT_VERSION),
        Some(("tcp" | "http", address)) if is_here(address) => {
            Docker::connect_with_http(&host, PATIENCE, API_DEFAULT_VERSION)
        }
        Some(("tcp" | "http" | "https", _)) => {
            return Err(refused(&host, "is not on this machine, or needs TLS"));
        }
        Some(("ssh", _)) => return Err(refused(&host, "is reached by ssh")),
        _ => return Err(refused(&host, "is no address of an engine")),
    };
    match made {
        Ok(docker) => Ok((docker, host)),
        Err(error) => Err(unreachable(&host, error)),
    }
}

/// Whether an address without TLS is one of this machine.
fn is_here(address: &str) -> bool {
    let address = address.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let local = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    // The port that engines take TLS at.
    local && port != "2376" && env::var_os("DOCKER_TLS_VERIFY").is_none_or(|set| set.is_empty())
}

fn refused(host: &str, why: &str) -> LocalError {
    let text = format!("the Docker engine at {} {why}, which is not supported", shown(host));
    LocalError::new(LocalErrorKind::Unsupported, text).remedy(PIPE)
}

/// What is said where no engine answers.
pub(super) fn unreachable(address: &str, error: DockerError) -> LocalError {
    let why = match &error {
        DockerError::SocketNotFoundError(_) => "there is no such socket".to_owned(),
        error => causes(error),
    };
    let text = format!("the Docker engine does not answer: {why}");
    LocalError::new(LocalErrorKind::Engine, text)
        .in_file(address)
        .remedy(format!(
            "set DOCKER_HOST to its socket (contexts of the docker command are not read), or {PIPE}"
        ))
        .caused_by(error)
}

/// The whole chain of an error; that the permission is missing stands at its end.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.chars().take(300).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engines_of_this_machine_are_asked() {
        for host in ["tcp://127.0.0.1:2375", "http://localhost:2375", "tcp://[::1]:2375/"] {
            assert_eq!(client(Some(host)).unwrap().1, host);
        }
        for host in [
            "tcp://docker:2375",
            "tcp://127.0.0.1:2376",
            "http://192.0.2.1:2375",
            "https://127.0.0.1",
            "ssh://me@there",
            "npipe:////./pipe/docker_engine",
            "/var/run/docker.sock",
        ] {
            let error = client(Some(host)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), LocalErrorKind::Unsupported, "{host}");
            assert!(error.remedy_text().unwrap().contains("docker save"));
        }
        let error = client(Some("unix:///nowhere/docker.sock")).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Engine);
        assert!(error.remedy_text().unwrap().contains("DOCKER_HOST"));
    }
}
