//! docker-registry (the reference implementation of the distribution-spec, as Debian packages
//! it) with its storage in a temporary folder.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    Error, Kept, Result,
    home::Home,
    port::Port,
    process::{Process, Signal, bound, run},
    tool,
};

const PART: &str = "docker-registry";
const PATIENCE: Duration = Duration::from_secs(30);

/// bcrypt's least work factor: the registry checks the password on every request.
const BCRYPT_COST: u32 = 4;

/// How a registry is set up.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Who may enter.
    pub auth: RegistryAuth,
    /// The certificate to serve with; plain HTTP without.
    pub tls: Option<Tls>,
    /// Whether manifests and blobs can be deleted.
    pub delete: bool,
    /// Whether `Location` is without scheme and host.
    pub relative_urls: bool,
    /// Where it stays; in a temporary folder, on any port, without.
    pub kept: Option<Kept>,
}

impl Default for RegistryOptions {
    /// Plain HTTP, open to all, deletion on, absolute `Location`.
    fn default() -> Self {
        Self { auth: RegistryAuth::None, tls: None, delete: true, relative_urls: false, kept: None }
    }
}

/// Who may enter a registry.
#[derive(Clone)]
pub enum RegistryAuth {
    /// Everybody, for everything.
    None,
    /// Basic authentication; every login may do everything.
    Htpasswd(Vec<Login>),
    /// The token flow (distribution-spec's "Bearer").
    Token {
        /// The URL of the token service.
        realm: String,
        /// The `service` that clients name there.
        service: String,
        /// The `iss` of its tokens.
        issuer: String,
        /// The certificate that signs them, or its CA, in PEM.
        root_cert_pem: String,
    },
}

/// A username and a password.
#[derive(Clone)]
pub struct Login {
    /// The username.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

impl Login {
    /// Joins the two.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into().into() }
    }
}

/// A server's certificate.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate, and what leads to its CA, in PEM.
    pub cert_pem: String,
    /// Its private key in PEM.
    pub key_pem: SecretString,
    /// What clients trust, in PEM: the CA, or the certificate itself.
    pub ca_pem: String,
}

impl Tls {
    /// Writes the certificate and its key into a folder that only its owner may enter.
    pub(crate) fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, &self.cert_pem).map_err(Error::prepare(&cert))?;
        std::fs::write(&key, self.key_pem.expose_secret()).map_err(Error::prepare(&key))?;
        Ok((cert, key))
    }
}

/// A running registry. Dropping it kills it and removes its folder, unless that is kept.
pub struct Registry {
    port: Port,
    server: Option<Process>,
    folder: Home,
    scheme: &'static str,
}

impl Registry {
    /// Starts a registry: an empty one, or a kept one with what it held.
    pub async fn start(options: RegistryOptions) -> Result<Self> {
        let folder = Home::of(options.kept.as_ref(), "colophon-registry-")?;
        let port = Port::of(PART, options.kept.as_ref())?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        if let RegistryAuth::Htpasswd(logins) = &options.auth {
            write_logins(folder.path(), logins)?;
        }
        let config = config(&options, &port, folder.path())?;
        let path = folder.path().join("config.yml");
        // JSON is YAML, and quotes what needs quoting.
        std::fs::write(&path, config.to_string()).map_err(Error::prepare(&path))?;
        let mut registry = Self { port, server: None, folder, scheme };
        registry.resume().await?;
        Ok(registry)
    }

    /// `127.0.0.1:port`, as it stands in references.
    pub fn host(&self) -> String {
        self.port.address()
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.port.address())
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The folder with its blobs and manifests (`docker/registry/v2/..` below), for tests that
    /// damage them.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Replaces the logins of a registry with basic authentication while it runs.
    pub fn set_logins(&self, logins: &[Login]) -> Result<()> {
        write_logins(self.folder.path(), logins)
    }

    /// Removes blobs that no manifest names, as an operator's nightly job does. With
    /// `untagged`, manifests without a tag go as well.
    pub async fn collect_garbage(&self, untagged: bool) -> Result<()> {
        let verb: &[&str] =
            if untagged { &["garbage-collect", "--delete-untagged"] } else { &["garbage-collect"] };
        run("docker-registry garbage-collect", self.command(verb)?).await.map(drop)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::TERM, PATIENCE).await.map(drop),
            None => Ok(()),
        }
    }

    /// Starts it again, with the same port and content.
    pub async fn resume(&mut self) -> Result<()> {
        if self.server.as_mut().is_some_and(|server| server.ended().is_none()) {
            return Ok(());
        }
        let command = self.command(&["serve"])?;
        let log = self.folder.path().join("log");
        let mut server = Process::spawn(PART, command, &log).await?;
        let address = self.address();
        let open = async || TcpStream::connect(address).await.ok().map(drop);
        server.until("listening", PATIENCE, open).await?;
        self.server = Some(server);
        Ok(())
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.resume().await
    }

    fn command(&self, verb: &[&str]) -> Result<Command> {
        let program = tool::find("docker-registry", "apt-get install -y docker-registry")?;
        let mut command = bound(program)?;
        command.args(verb).arg(self.folder.path().join("config.yml"));
        Ok(command)
    }
}

fn config(options: &RegistryOptions, port: &Port, folder: &Path) -> Result<Value> {
    let mut http = json!({
        "addr": port.address(),
        "relativeurls": options.relative_urls,
        // Signs the state of uploads; one process needs no secret that others know.
        "secret": "one process only",
    });
    if let Some(tls) = &options.tls {
        let (certificate, key) = tls.write(folder)?;
        set(&mut http, "tls", json!({ "certificate": certificate, "key": key }));
    }
    let mut config = json!({
        "version": 0.1,
        "log": { "level": "info", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": folder.join("storage") },
            "delete": { "enabled": options.delete },
            "maintenance": { "uploadpurging": { "enabled": false } },
        },
        "http": http,
    });
    match &options.auth {
        RegistryAuth::None => {}
        RegistryAuth::Htpasswd(_) => {
            let auth = json!({ "realm": "colophon", "path": folder.join("htpasswd") });
            set(&mut config, "auth", json!({ "htpasswd": auth }));
        }
        RegistryAuth::Token { realm, service, issuer, root_cert_pem } => {
            let bundle = folder.join("token-root.pem");
            std::fs::write(&bundle, root_cert_pem).map_err(Error::prepare(&bundle))?;
            let auth = json!({
                "realm": realm, "service": service, "issuer": issuer, "rootcertbundle": bundle,
            });
            set(&mut config, "auth", json!({ "token": auth }));
        }
    }
    Ok(config)
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

fn write_logins(folder: &Path, logins: &[Login]) -> Result<()> {
    let mut lines = String::new();
    for Login { username, password } in logins {
        let hash = bcrypt::hash(password.expose_secret(), BCRYPT_COST)
            .map_err(|error| Error::refused("htpasswd", error.to_string()))?;
        lines.extend([username, ":", &hash, "\n"]);
    }
    // Renamed into place, so that the registry never reads half a file.
    let (new, path) = (folder.join("htpasswd.new"), folder.join("htpasswd"));
    std::fs::write(&new, lines).map_err(Error::prepare(&new))?;
    std::fs::rename(&new, &path).map_err(Error::prepare(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(registry: &Registry, login: Option<(&str, &str)>) -> u16 {
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let mut request = client.get(format!("{}/v2/", registry.url()));
        if let Some((username, password)) = login {
            request = request.basic_auth(username, Some(password));
        }
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn logins_rotate_while_it_runs_and_the_port_survives_a_restart() {
        let auth = RegistryAuth::Htpasswd(vec![Login::new("ann", "first")]);
        let options = RegistryOptions { auth, ..RegistryOptions::default() };
        let mut registry = Registry::start(options).await.unwrap();
        assert_eq!(status(&registry, None).await, 401);
        assert_eq!(status(&registry, Some(("ann", "first"))).await, 200);
        registry.set_logins(&[Login::new("ann", "second"), Login::new("bob", "b")]).unwrap();
        assert_eq!(status(&registry, Some(("ann", "first"))).await, 401);
        assert_eq!(status(&registry, Some(("ann", "second"))).await, 200);
        let host = registry.host();
        registry.restart().await.unwrap();
        assert_eq!(registry.host(), host);
        assert_eq!(status(&registry, Some(("bob", "b"))).await, 200);
        registry.stop().await.unwrap();
    }
}
